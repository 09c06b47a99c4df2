"""One person is followed through cuts and losses, and nobody else."""

import functools
import itertools

import numpy as np
import pytest

from input_pipeline.clip import InputError
from input_pipeline.faces import recognition
from input_pipeline.faces.detection import photo_points
from input_pipeline.faces.recognition import (
    SAME_PERSON,
    descriptor,
    face_chip,
    track_person,
)
from input_pipeline.media.video import read_frames
from tests.input_pipeline import face_videos

NOBODY = np.full((face_videos.HEIGHT, face_videos.WIDTH, 3), 128, np.uint8)


@functools.cache
def grid_frame(path, number=0):
    return next(itertools.islice(read_frames(path), number, None))


@pytest.fixture
def one(shared):
    return grid_frame(shared("data", "grid", "s11", "bbae2n.mpg"))


@pytest.fixture
def other(shared):
    return grid_frame(shared("data", "grid", "s5", "bbae9s.mpg"))


def beside(*pictures):
    return np.concatenate(pictures, 1)


def seen(frames, cuts, **options):
    """Where the middle of the face is, in pixels from the left; None where unseen."""
    found = track_person(frames, cuts, **options)
    return [None if p is None else float(p[:, 0].mean()) for p in found]


def test_descriptors_of_one_person_are_closer_than_those_of_two(one, other, shared):
    later = grid_frame(shared("data", "grid", "s11", "bbae2n.mpg"), 60)
    chips = [face_chip(x, photo_points(x)) for x in (one, later, other)]
    own, again, strange = map(descriptor, chips)
    assert np.linalg.norm(own - again) < SAME_PERSON < np.linalg.norm(own - strange)


@pytest.mark.parametrize("cuts", [[7], []], ids=["cut", "lost"])
def test_a_face_that_is_elsewhere_is_found_at_once(cuts):
    """By three times its width."""
    left = beside(face_videos.picture(), NOBODY)
    right = beside(NOBODY, face_videos.picture())
    places = seen([left] * 7 + [right] * 7, cuts)
    assert np.ptp(places[:7]) < 3 and np.ptp(places[7:]) < 3
    assert places[7] - places[0] == pytest.approx(face_videos.WIDTH, abs=5)


def test_of_two_the_same_person_is_taken_though_the_other_is_nearer(one, other):
    empty = np.full_like(one, 128)
    places = seen([beside(one, empty)] * 7 + [beside(other, one)] * 4, [7])
    assert places[7] - places[0] == pytest.approx(one.shape[1], abs=5)


@pytest.mark.parametrize("cut", [5, 7])
def test_after_a_cut_another_person_at_the_very_place_is_not_taken(one, other, cut):
    places = seen([one] * cut + [other] * 6 + [one] * 4, [cut, cut + 6])
    assert [x is None for x in places] == [False] * cut + [True] * 6 + [False] * 4


def test_a_chosen_face_stays_the_chosen_one(one, other):
    film = [beside(one, other)] * 6 + [beside(other, one)] * 4
    for face, first in (("0", False), ("1", True)):
        right = [x > one.shape[1] for x in seen(film, [6], face=face)]
        assert right == [first] * 6 + [not first] * 4
    with pytest.raises(InputError, match="2 faces found"):
        seen(film, [6], face="2")


def test_a_face_that_is_lost_before_it_was_described_is_found_near_its_place(one):
    empty = np.full_like(one, 128)
    places = seen([one, empty, one, one, one], [])
    assert [x is None for x in places] == [False, True, False, False, False]


def test_a_cut_before_any_face_changes_nothing():
    places = seen([NOBODY] * 3 + [face_videos.picture()] * 3, [3])
    assert [x is None for x in places] == [True] * 3 + [False] * 3


def calls_of(monkeypatch, owner, name):
    """A list that grows by one with every call of the function."""
    calls, function = [], getattr(owner, name)

    def counted(*arguments):
        calls.append(1)
        return function(*arguments)

    monkeypatch.setattr(owner, name, counted)
    return calls


def test_where_nothing_is_lost_no_descriptor_is_computed(monkeypatch):
    calls = calls_of(monkeypatch, recognition, "descriptor")
    frames = (face_videos.picture(60 + t) for t in range(40))
    assert None not in seen(frames, [])
    assert calls == []


def test_a_face_that_stays_away_is_searched_for_in_every_fifth_frame(monkeypatch):
    """But its first frame is found."""
    calls = calls_of(monkeypatch, recognition.detection, "detect")
    here = face_videos.picture()
    places = seen([here] * 5 + [NOBODY] * 28 + [here] * 4, [])
    assert [x is None for x in places] == [False] * 5 + [True] * 28 + [False] * 4
    # The first frame; five one by one; four fifth ones; the group in which it appears.
    assert len(calls) == 1 + 5 + 4 + (1 + 4)


def test_no_more_than_five_frames_are_read_ahead():
    read = 0

    def frames():
        nonlocal read
        for _ in range(17):
            read += 1
            yield face_videos.picture()

    for count, _ in enumerate(track_person(frames(), [7, 9]), 1):
        assert read < count + 5
    assert count == 17
