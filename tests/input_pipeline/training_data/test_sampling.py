"""Examples: pure functions of (clip, seed, epoch, index); windows and references."""

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from input_pipeline.clip import InputError
from input_pipeline.media import features
from input_pipeline.training_data import sampling
from input_pipeline.training_data.augment import Strength
from input_pipeline.training_data.synthetic import SyntheticClips
from tests.input_pipeline.whole_files import windows

T = 16
KEY = (7, 1, 0)


@pytest.fixture(scope="module")
def clips():
    return SyntheticClips(3, [40, 16, 12])


@pytest.fixture(scope="module")
def pca(clips):
    return clips.pca(6)


def same(a, b):
    return all(np.array_equal(x, y) for x, y in zip(a, b, strict=True))


# --- randomness ---


def test_the_same_key_gives_the_same_example(clips, pca):
    clip = clips[0]
    assert same(
        sampling.at_example(clip, pca, KEY, T), sampling.at_example(clip, pca, KEY, T)
    )
    np.random.seed(0)  # noqa: NPY002 (the global state must not matter)
    first = sampling.vg_example(clip, KEY, T)
    np.random.seed(1)  # noqa: NPY002
    sampling.vg_example(clips[1], (9, 9, 9), T)
    assert same(first, sampling.vg_example(clip, KEY, T))


@pytest.mark.parametrize("which", range(3))
def test_seed_epoch_and_index_each_change_the_window(which):
    draws = set()
    for value in range(50):
        key = list(KEY)
        key[which] = value
        draws.add(sampling.draw(75, tuple(key), T))
    assert len(draws) > 40


def test_neighbouring_keys_are_unrelated():
    """A sum such as seed + epoch would give seed 0's next epoch to seed 1."""
    a = [sampling.draw(1000, (0, e + 1, i), T) for e in range(3) for i in range(9)]
    b = [sampling.draw(1000, (1, e, i), T) for e in range(3) for i in range(9)]
    assert not set(a) & set(b)
    orders = [tuple(sampling.shuffled(50, s, e)) for s in range(4) for e in range(4)]
    assert len(set(orders)) == 16


def test_the_order_and_the_windows_use_different_numbers():
    """SeedSequence([s, e]) and SeedSequence([s, e, 0]) would be the same."""
    order, window = sampling.random_numbers(5, 6), sampling.random_numbers(5, 6, 0)
    assert order.integers(1 << 40) != window.integers(1 << 40)


# --- the order of the clips ---


def test_epochs_are_different_permutations_of_all_clips():
    first, second = (sampling.shuffled(30, 0, epoch) for epoch in (0, 1))
    assert sorted(first) == sorted(second) == list(range(30))
    assert not np.array_equal(first, second)


def balanced(speakers, exponent, seed, epoch=0):
    """The order of one corpus in which a speaker's share is its clips^exponent."""
    corpora = ["grid"] * len(speakers)
    groups = sampling.groups_of(corpora, speakers.tolist(), exponent, {})
    return sampling.in_shares(*groups, seed, epoch)


@given(counts=st.lists(st.integers(1, 9), min_size=1, max_size=5), seed=st.integers(0))
def test_balanced_rounds_hold_every_speaker_once(counts, seed):
    speakers = np.repeat([f"s{i}" for i in range(len(counts))], counts)
    order = balanced(speakers, 0.0, seed)
    assert len(order) == len(speakers)
    for first in range(0, len(order) - len(counts) + 1, len(counts)):
        one_round = speakers[order[first : first + len(counts)]]
        assert sorted(one_round) == sorted(set(speakers))


def test_the_exponent_shares_the_epoch_among_speakers():
    speakers = np.repeat(["a", "b", "c"], [64, 16, 4])
    for exponent, want in [
        (0.0, (28, 28, 28)),
        (0.5, (48, 24, 12)),
        (1.0, (64, 16, 4)),
    ]:
        order = balanced(speakers, exponent, 3)
        counts = np.array([np.sum(speakers[order] == name) for name in "abc"])
        np.testing.assert_allclose(counts, want, atol=1)
        half = speakers[order[: len(order) // 2]]  # evenly spread
        np.testing.assert_allclose(
            [np.sum(half == n) for n in "abc"], counts / 2, atol=1
        )
        if exponent == 1.0:
            assert sorted(order) == list(range(len(speakers)))


def test_balanced_epochs_reach_every_clip_in_the_end():
    speakers = np.array(["many"] * 9 + ["few"])
    seen = {i for epoch in range(20) for i in balanced(speakers, 0.0, 0, epoch)}
    assert seen == set(range(10))


def test_a_mix_gives_each_corpus_its_share_and_balances_within_it():
    """Speaker s1 of one corpus is not s1 of the other; a name may hold slashes."""
    corpora = ["grid"] * 60 + ["folder"] * 20
    speakers = ["s1"] * 50 + ["a/b"] * 10 + ["s1"] * 10 + ["s2"] * 10
    mix = {"grid": 3.0, "folder": 1.0}
    group_of, shares = sampling.groups_of(corpora, speakers, 0.0, mix)
    whose = dict(zip(zip(corpora, speakers, strict=True), group_of, strict=True))
    want = {("grid", "s1"): 3 / 8, ("grid", "a/b"): 3 / 8}
    want |= {("folder", "s1"): 1 / 8, ("folder", "s2"): 1 / 8}
    assert {key: shares[group] for key, group in whose.items()} == pytest.approx(want)
    order = sampling.in_shares(group_of, shares, 0, 0)
    counts = np.bincount(np.array(group_of)[order], minlength=4) / len(order)
    np.testing.assert_allclose(counts, shares, atol=1 / 80)
    group_of, shares = sampling.groups_of(corpora, speakers, None, mix)
    np.testing.assert_allclose(shares[group_of[[0, -1]]], [0.75, 0.25])


# --- windows ---


@settings(max_examples=200)
@given(
    length=st.integers(1, 200),
    num_frames=st.integers(1, 200),
    key=st.tuples(*[st.integers(0, 2**40)] * 3),
)
def test_windows_lie_inside_the_clip(length, num_frames, key):
    num_frames = min(num_frames, length)
    reference, first = sampling.draw(length, key, num_frames)
    assert 0 <= reference < length
    assert 0 <= first <= length - num_frames


def test_all_windows_and_all_references_occur():
    draws = [sampling.draw(20, (0, epoch, 0), T) for epoch in range(400)]
    assert {first for _, first in draws} == set(range(5))
    assert {reference for reference, _ in draws} == set(range(20))


def test_frame_t_hears_mfcc_rows_4t_to_4t_plus_27_without_the_energy(clips, pca):
    clip = clips[0]
    heard = sampling.at_example(clip, pca, KEY, T).audio
    _, first = sampling.draw(40, KEY, T)
    for t in range(T):
        row = 4 * (first + t)
        np.testing.assert_array_equal(heard[t], clip.mfcc[row : row + 28, 1:13])


def test_audio_windows_are_those_that_animate_cuts(clips):
    """Of a sound with silence around it, as animate pads it."""
    sound = np.random.default_rng(0).normal(0, 0.1, 40 * 640).astype(np.float32)
    padded = np.pad(sound, (features.PADDING, features.PADDING + 240))
    clip = clips[0]._replace(mfcc=features.mfcc(padded))
    np.testing.assert_array_equal(sampling.audio_windows(clip), windows(sound, 40))


def test_coefficients_are_the_projected_landmarks(clips, pca):
    clip = clips[0]
    example = sampling.at_example(clip, pca, KEY, T)
    reference, first = sampling.draw(40, KEY, T)
    flat = clip.landmarks.reshape(40, 136)
    h = (flat - pca.mean) @ pca.components
    np.testing.assert_allclose(example.coefficients, h[first : first + T], atol=1e-6)
    np.testing.assert_allclose(example.example, h[reference], atol=1e-6)


def test_vg_frames_and_landmarks_are_the_window_and_the_reference(clips):
    clip = clips[0]
    example = sampling.vg_example(clip, KEY, T)
    reference, first = sampling.draw(40, KEY, T)
    frames = sampling.decode(clip, range(40))
    np.testing.assert_array_equal(example.frames, frames[first : first + T])
    np.testing.assert_array_equal(example.image, frames[reference])
    flat = clip.landmarks.reshape(40, 136)
    np.testing.assert_array_equal(example.landmarks, flat[first : first + T])
    np.testing.assert_array_equal(example.example, flat[reference])
    assert example.frames.dtype == example.image.dtype == np.uint8
    assert example.example.dtype == example.landmarks.dtype == np.float32


def test_frames_are_rgb(clips):
    red = np.zeros((128, 128, 3), np.uint8)
    red[..., 0] = 255
    jpeg = cv2.imencode(".jpg", red[..., ::-1])[1].tobytes()
    clip = clips[1]._replace(frames=[jpeg] * 16)
    frames = sampling.vg_example(clip, KEY, T).frames
    assert frames[..., 0].min() > 251 and frames[..., 1:].max() < 4


def test_only_the_window_and_the_reference_are_decoded(clips, pca, monkeypatch):
    decoded, decode = [], cv2.imdecode
    monkeypatch.setattr(
        cv2, "imdecode", lambda *a: decoded.append(a[0].tobytes()) or decode(*a)
    )
    clip = clips[0]
    sampling.vg_example(clip, KEY, T)
    reference, first = sampling.draw(40, KEY, T)
    assert decoded == [clip.frames[t] for t in [reference, *range(first, first + T)]]
    sampling.at_example(clip, pca, KEY, T)
    assert len(decoded) == T + 1


# --- evaluation ---


def test_an_evaluation_example_is_the_whole_clip_and_its_first_frame(clips, pca):
    clip = clips[2]
    example = sampling.evaluation_example(clip, 2, pca, True, 20)
    assert (example.index, example.valid) == (2, 1)
    np.testing.assert_array_equal(example.frame_valid, [1] * 12 + [0] * 8)
    frames = sampling.decode(clip, range(12))
    np.testing.assert_array_equal(example.vg.frames[:12], frames)
    np.testing.assert_array_equal(example.vg.image, frames[0])
    np.testing.assert_array_equal(example.vg.example, clip.landmarks[0].ravel())
    np.testing.assert_array_equal(example.at.audio[:12], sampling.audio_windows(clip))
    np.testing.assert_array_equal(example.at.example, example.at.coefficients[0])
    assert example.vg.frames.dtype == np.uint8 and example.vg.colour is None
    for part in (*example.at[1:], *example.vg[2:4]):
        assert len(part) == 20 and not part[12:].any()
        assert part is example.vg.frames or part.dtype == np.float32


def test_what_is_not_asked_for_is_none(clips, pca):
    assert sampling.evaluation_example(clips[2], 0, None, True, 20).at is None
    example = sampling.evaluation_example(clips[2], 0, pca, False, 20)
    assert example.vg is None and sampling.blank(example).vg is None


# --- errors ---


def test_a_clip_shorter_than_the_window_is_named(clips, pca):
    with pytest.raises(InputError, match=r"cartoon2/0002: 12 frames, num_frames=16"):
        sampling.at_example(clips[2], pca, KEY, T)
    with pytest.raises(InputError, match="cartoon2/0002"):
        sampling.vg_example(clips[2], KEY, T)


@pytest.mark.parametrize("part", ["landmarks", "mfcc"])
def test_parts_of_different_lengths_are_named(clips, part):
    clip = clips[0]._replace(**{part: getattr(clips[0], part)[:-1]})
    with pytest.raises(InputError, match=r"synthetic cartoon0/0000: 40 frames, .*must"):
        sampling.vg_example(clip, KEY, T)


@pytest.mark.parametrize("damage", ["empty", "noise", "cut", "cut short", "small"])
def test_a_damaged_frame_is_named(clips, damage):
    clip = clips[0]
    small = cv2.imencode(".jpg", np.zeros((64, 64, 3), np.uint8))[1].tobytes()
    data = {
        "empty": b"",
        "noise": b"\xff\xd8" + bytes(99) + b"\xff\xd9",
        "cut": clip.frames[3][:-900],
        "cut short": clip.frames[3][:-1],
        "small": small,
    }[damage]
    frames = [*clip.frames[:3], data, *clip.frames[4:]]
    with pytest.raises(InputError, match="cartoon0/0000: frame 3 is no whole JPEG"):
        sampling.decode(clip._replace(frames=frames), range(40))


def test_the_photo_is_the_first_frame_as_often_as_asked(clips, pca):
    """Windows stay where they were."""
    clip = clips[0]
    landmarks = clip.landmarks.reshape(len(clip.landmarks), -1)
    share = Strength(first_photo=0.5)
    firsts = 0
    for key in ((0, 0, place) for place in range(60)):
        plain = sampling.at_example(clip, pca, key, T)
        example = sampling.at_example(clip, pca, key, T, augment=share)
        np.testing.assert_array_equal(example.coefficients, plain.coefficients)
        first = sampling.augmentation(key, share).first_photo
        photo = pca.project(landmarks[0]) if first else plain.example
        np.testing.assert_array_equal(example.example, photo)
        drawn = sampling.vg_example(clip, key, T, augment=share)
        still = sampling.vg_example(clip, key, T)
        np.testing.assert_array_equal(drawn.frames, still.frames)
        photo = landmarks[0] if first else still.example
        np.testing.assert_array_equal(drawn.example, photo)
        firsts += first
    assert 20 < firsts < 40


def test_a_clip_longer_than_the_padding_is_named(clips, pca):
    with pytest.raises(InputError, match="0000: 40 frames, and room for 30"):
        sampling.evaluation_example(clips[0], 0, pca, True, 30)
