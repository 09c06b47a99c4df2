"""What is shown of the networks' frames: blinks, labels, whole pictures."""

import dataclasses

import numpy as np
import pytest
import soundfile

from input_pipeline.faces import align, eyelids
from input_pipeline.media.image import write_image
from jax_atvg.inference import animate
from jax_atvg.inference.life import BLINK_EVERY, lids_down
from jax_atvg.inference.live import Talker
from jax_atvg.inference.networks import Clip, Networks
from jax_atvg.inference.options import Look
from jax_atvg.inference.painting import Painter, Subject
from jax_atvg.inference.predict import Photo
from tests.small_bundle import photo, photo_points, speech

SIZE = 128
SOUND = (speech(4.0), 16000)
OPEN, SHUT = 0, next(t for t in range(BLINK_EVERY) if lids_down(0, t) == 1)


@pytest.fixture(scope="module")
def subject():
    points = photo_points().astype(np.float64)
    nothing = np.zeros((1, 136), np.float32)
    image = np.zeros((1, SIZE, SIZE, 3), np.float32)
    prepared = Photo(image, nothing[:, :4], nothing, nothing)
    return Subject(photo(), points, align.align(points), prepared)


@pytest.fixture(scope="module")
def crop(subject):
    return align.warp(subject.picture, subject.matrix, SIZE)


def test_frames_between_blinks_are_the_networks(subject, crop):
    paint = Painter(subject)
    np.testing.assert_array_equal(paint(crop, OPEN), crop)
    assert (paint(crop, SHUT) != crop).any()
    np.testing.assert_array_equal(paint(crop, SHUT), paint.eyelids(crop, 1.0))
    off = Painter(subject, Look(blinks=False))
    np.testing.assert_array_equal(off(crop, SHUT), crop)


def test_points_blink_along(subject):
    points = photo_points()
    for blinks in (False, True):
        paint = Painter(subject, Look(blinks=blinks))
        np.testing.assert_array_equal(paint.points(points, OPEN), points)
        expected = eyelids.closed(points, 1.0 if blinks else 0.0)
        np.testing.assert_array_equal(paint.points(points, SHUT), expected)


def test_eyes_that_are_closed_in_the_photo_do_not_blink(subject, crop):
    asleep = dataclasses.replace(subject, points=eyelids.closed(subject.points, 0.9))
    paint = Painter(asleep)
    np.testing.assert_array_equal(paint(crop, SHUT), crop)
    points = photo_points()
    np.testing.assert_array_equal(paint.points(points, SHUT), points)


def test_the_whole_picture_stays_where_the_networks_change_nothing(subject, crop):
    paint = Painter(subject, Look(full_frame=True, head_movement=True))
    assert paint.size == photo().shape[:2]
    np.testing.assert_array_equal(paint(crop, 0), photo())
    moved = paint(crop, OPEN + 40)
    assert (moved != photo()).any()
    np.testing.assert_array_equal(moved[:, 0], photo()[:, 0])
    still = Painter(subject, Look(full_frame=True))
    np.testing.assert_array_equal(still(crop, OPEN + 5), photo())


def test_seeds_blink_at_other_times(alone):
    first, again, other, off = (
        animate.animate(photo(), SOUND, alone, seed=seed, blinks=blinks)
        for seed, blinks in ((0, True), (0, True), (1, True), (0, False))
    )
    np.testing.assert_array_equal(first, again)

    def blinking(frames):
        return np.flatnonzero((frames != off).any((1, 2, 3))).tolist()

    assert blinking(first) == [t for t in range(100) if lids_down(0, t)]
    assert blinking(other) == [t for t in range(100) if lids_down(1, t)]


# --- networks that close the eyes ---


@pytest.fixture(scope="module")
def blinking(bundle):
    """Networks whose eyelids are left to them."""
    closes_eyes = bundle.vg_net.clone(closes_eyes=True)
    return Networks(dataclasses.replace(bundle, vg_net=closes_eyes))


def test_networks_that_close_eyes_are_told_by_the_landmarks(alone, blinking):
    """Those of eyelids.closed, from which VG-net draws; nothing else is moved."""
    subject = animate.read_subject(photo(), alone.bundle)
    heard, count = animate.read_speech(SOUND), 100
    lids = np.array([lids_down(0, t) for t in range(count)], np.float32)
    paint = Painter(subject, closes_eyes=True)
    np.testing.assert_array_equal(paint.lids(count), lids)
    np.testing.assert_array_equal(paint.lids(30, 50), lids[50:80])
    open_eyes = np.concatenate(
        [one.landmarks[None] for one in animate.talk(alone, subject.photo, heard)]
    )
    made = list(animate.talk(blinking, subject.photo, heard, lids=lids))
    told = np.stack([one.landmarks for one in made])
    np.testing.assert_array_equal(told[lids == 0], open_eyes[lids == 0])
    points = open_eyes.reshape(-1, 68, 2)
    shut = [eyelids.closed(p, float(s)) for p, s in zip(points, lids, strict=True)]
    np.testing.assert_allclose(told.reshape(-1, 68, 2), shut, atol=1e-6)
    drawn, _ = blinking.draw(subject.photo.image, subject.photo.landmarks, told[None])
    frames = animate.animate(photo(), SOUND, blinking)
    np.testing.assert_array_equal(frames, drawn[0])
    assert (frames != animate.animate(photo(), SOUND, blinking, blinks=False)).any()


def test_a_talkers_networks_close_eyes_at_the_same_time(as_users_run_it, blinking):
    expected = animate.animate(photo(), SOUND, blinking)
    talker, sound = Talker(photo(), blinking), SOUND[0]
    frames = [talker.push(sound[i : i + 5000]) for i in range(0, len(sound), 5000)]
    np.testing.assert_array_equal(np.concatenate([*frames, talker.flush()]), expected)


def test_a_films_landmarks_blink_once(blinking, tmp_path):
    """Not by geometry again."""
    soundfile.write(tmp_path / "a.wav", *SOUND)
    write_image(tmp_path / "a.png", photo())
    found = {}
    for blinks in (True, False):
        animate.animate_file(
            tmp_path / "a.png",
            tmp_path / "a.wav",
            tmp_path / "a.mp4",
            blinking,
            blinks=blinks,
            landmarks_out=tmp_path / "a.npy",
        )
        found[blinks] = np.load(tmp_path / "a.npy").astype(np.float64)
    lids = [lids_down(0, t) for t in range(100)]
    shut = [eyelids.closed(p, s) for p, s in zip(found[False], lids, strict=True)]
    np.testing.assert_allclose(found[True], shut, atol=1e-5)
    assert np.abs(found[True] - found[False]).max() > 0.01


# --- expressiveness ---


def spoken(alone, expressiveness):
    subject = animate.read_subject(photo(), alone.bundle)
    heard = animate.read_speech(SOUND)
    clip = Clip(subject.photo, heard.windows, False, expressiveness)
    made = [r.landmarks for made in alone.predict([clip]) for _, r in made]
    return subject, np.concatenate(made)


def test_expressiveness_multiplies_the_movement_away_from_the_photo(alone):
    subject, usual = spoken(alone, 1.0)
    p = subject.photo
    rest = alone.bundle.pca.reconstruct(p.coefficients)[0] + p.own[0]
    for e in (0.0, 0.5, 2.0):
        expected = rest + e * (usual.astype(np.float64) - rest)
        np.testing.assert_allclose(spoken(alone, e)[1], expected, atol=2e-5)
    assert np.abs(usual - rest).max() > 0.02


def test_rows_of_a_batch_have_their_own_expressiveness(alone, three):
    subject, usual = spoken(alone, 1.0)
    heard = animate.read_speech(SOUND)
    clips = [Clip(subject.photo, heard.windows, False, e) for e in (1.0, 2.0)]
    found = {id(clip): [] for clip in clips}
    for made in three.predict(clips):
        for part, rendered in made:
            found[id(part.clip)].append(rendered.landmarks)
    first, second = (np.concatenate(found[id(clip)]) for clip in clips)
    np.testing.assert_allclose(first, usual, atol=2e-5)
    np.testing.assert_allclose(second, spoken(alone, 2.0)[1], atol=2e-5)


def test_without_movement_the_frames_stand_still_but_for_blinks(alone):
    frames = animate.animate(photo(), SOUND, alone, expressiveness=0.0, blinks=False)
    later = frames[50:]  # the recurrence has settled
    assert np.abs(later.astype(int) - later[0]).max() <= 1
