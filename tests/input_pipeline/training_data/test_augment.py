"""Whole-clip augmentation: everything of an example changes together."""

import contextlib
import dataclasses

import numpy as np
import pytest

from input_pipeline.clip import INNER_LIPS, MOUTH, Colour
from input_pipeline.faces import landmarks
from input_pipeline.training_data import (
    augment,
    augment_sound,
    loader,
    sampling,
    synthetic,
)

OFF = augment.Strength()
STRONG = augment.Strength(
    mirror=0.5,
    rotation=4.0,
    scale=0.04,
    shift=3.0,
    warp=2.5,
    mouth_width=0.3,
    mouth_rise=7.0,
    mouth_curl=3.0,
    gain=0.15,
    tint=0.12,
    offset=0.06,
    gamma=0.2,
    saturation=0.3,
    noise=0.3,
)
KEY, T = (3, 1, 0), 4


@pytest.fixture(scope="module")
def clips():
    return synthetic.SyntheticClips(2, 12)


def drawn(seed: int, **strength) -> augment.Augmentation:
    random = np.random.default_rng(seed)
    return augment.draw(random, dataclasses.replace(OFF, **strength))


def pictures() -> np.ndarray:
    random = np.random.default_rng(0)
    return random.integers(0, 256, (3, 128, 128, 3), dtype=np.uint8)


def points() -> np.ndarray:
    return np.random.default_rng(1).uniform(-0.7, 0.7, (3, 68, 2)).astype(np.float32)


def test_no_strength_changes_nothing():
    change, frames, p = drawn(0), pictures(), points()
    mfcc = np.random.default_rng(2).normal(size=(40, 13)).astype(np.float32)
    np.testing.assert_array_equal(augment.change_frames(change, frames), frames)
    np.testing.assert_array_equal(augment.change_landmarks(change, p), p)
    np.testing.assert_array_equal(augment_sound.change_sound(change, mfcc), mfcc)
    assert change.colour is None


def arrays(example) -> list[np.ndarray]:
    """All that an example or a batch holds, a colour's parts one by one."""
    colour = getattr(example, "colour", None) or ()
    return [*(x for x in example if isinstance(x, np.ndarray)), *colour]


# --- mirror ---


def test_mirrored_twice_is_the_same():
    change, frames, p = drawn(0, mirror=1.0), pictures(), points()
    once = augment.change_frames(change, frames)
    assert not np.array_equal(once, frames)
    np.testing.assert_array_equal(augment.change_frames(change, once), frames)
    once = augment.change_landmarks(change, p)
    assert not np.array_equal(once, p)
    np.testing.assert_array_equal(augment.change_landmarks(change, once), p)


def test_mirrored_points_are_an_involution_that_keeps_the_groups():
    mirrored = augment.mirrored_points()
    np.testing.assert_array_equal(mirrored[mirrored], range(68))
    for group in (range(17), range(17, 27), range(27, 36), range(36, 48)):
        assert set(mirrored[group]) == set(group)
    for group in (MOUTH, INNER_LIPS):
        assert set(mirrored[group]) == set(range(68)[group])


def test_a_symmetric_face_is_its_own_mirror_image(clips):
    """Of the cartoon, whose left and right half are one equation."""
    p = clips.landmarks(0)
    change = drawn(0, mirror=1.0)
    np.testing.assert_allclose(augment.change_landmarks(change, p), p, atol=1e-5)


def test_half_of_the_examples_are_mirrored():
    mirrored = [drawn(seed, mirror=0.5).mirror for seed in range(400)]
    assert 150 < sum(mirrored) < 250


# --- geometry ---


@pytest.mark.parametrize("seed", range(6))
def test_landmarks_follow_the_picture(seed):
    """A dot drawn at a point is found where its landmark goes, to 0.7 pixels."""
    change = augment.draw(np.random.default_rng(seed), STRONG)
    p, mirrored = points()[:1], augment.mirrored_points()
    moved = landmarks.to_pixels(augment.change_landmarks(change, p).reshape(1, 136))[0]
    y, x = np.mgrid[:128, :128]
    for i in (0, 40, 66):
        u, v = landmarks.to_pixels(p.reshape(1, 136))[0, i]
        dot = 255 * np.exp(-((x - u) ** 2 + (y - v) ** 2) / 8)
        frame = np.repeat(dot[None, ..., None], 3, -1).astype(np.uint8)
        seen = augment.change_frames(change, frame)[0, ..., 0].astype(float)
        weight = np.where(seen > seen.max() / 2, seen - seen.max() / 2, 0)
        found = [(weight * axis).sum() / weight.sum() for axis in (x, y)]
        # The point has another number in a mirrored face.
        place = moved[mirrored[i] if change.mirror else i]
        assert np.hypot(*(found - place)) < 0.7


def test_the_motion_is_a_similarity_within_its_bounds():
    for seed in range(50):
        change = drawn(seed, rotation=4.0, scale=0.04, shift=3.0)
        (a, b), (c, d) = change.motion[:, :2]
        assert a == d and b == -c
        assert 0.96 <= np.hypot(a, c) <= 1.04
        assert abs(np.rad2deg(np.arctan2(c, a))) <= 4
        assert np.abs(change.motion[:, 2] * 64).max() <= 3


def test_the_warp_is_as_strong_as_stated_and_passes_through_its_control_points():
    change, n = drawn(3, warp=2.5), augment.GRID
    assert 1.5 < change.field.std() * 64 < 3.5
    control = np.random.default_rng(0).normal(size=(n, n, 2)).astype(np.float32)
    nodes = (2 * np.arange(n) + 1) / n - 1
    p = np.stack(np.meshgrid(nodes, nodes), -1).reshape(1, -1, 2)
    found = augment.at_positions(augment.dense(control), p).reshape(n, n, 2)
    np.testing.assert_allclose(found, control, atol=0.04)


def test_the_mouth_is_widened_lowered_and_its_corners_more():
    """The field by hand: at the mouth's centre, at its corner, and far from it."""
    width, rise, curl = 0.25, 6.0, 3.0
    field = augment.mouth_field(width, rise, curl)
    x, y = augment.MOUTH_CENTRE
    corner = 17 / 64
    at = np.array([[[x, y], [x + corner, y], [x, y - 1.1]]])
    centre, side, brow = 64 * augment.at_positions(field, at)[0]
    near = np.exp(-0.5 * (17 / 26) ** 2)
    np.testing.assert_allclose(centre, (0, rise), atol=0.05)
    np.testing.assert_allclose(side, (near * 0.25 * 17, near * (rise + curl)), atol=0.1)
    np.testing.assert_allclose(brow, 0, atol=0.02)


def test_a_mouth_drawn_wider_is_wider_by_the_stated_factor():
    change = drawn(0)._replace(field=augment.mouth_field(0.2, 0.0, 0.0))
    eyes_and_lips = np.zeros((1, 68, 2))
    eyes_and_lips[:, 0] = np.subtract(augment.MOUTH_CENTRE, (0.02, 0))
    eyes_and_lips[:, 1] = np.add(augment.MOUTH_CENTRE, (0.02, 0))
    left, right = augment.change_landmarks(change, eyes_and_lips)[0, :2]
    np.testing.assert_allclose(right - left, (0.04 / (1 - 0.2), 0), atol=2e-4)


def test_half_of_the_examples_keep_their_shape_if_asked():
    strength = {"warp": 2.0, "mouth_width": 0.3, "mouth_rise": 7.0, "mouth_curl": 3.0}
    kept = [drawn(i, keep_shape=0.5, **strength).field is None for i in range(200)]
    assert 75 < sum(kept) < 125


def test_the_warp_is_inverted_to_a_tenth_of_a_pixel():
    """Of a ramp, the colour seen where a landmark goes is that where it came from."""
    change = drawn(5, warp=2.5)
    ramp = np.arange(128, dtype=np.uint8)
    frame = np.stack([*np.meshgrid(ramp, ramp), np.zeros((128, 128))], -1)
    seen = augment.change_frames(change, frame[None].astype(np.uint8))[0]
    p = np.random.default_rng(0).uniform(-0.7, 0.7, (1, 68, 2)).astype(np.float32)
    came, gone = (
        landmarks.to_pixels(x.reshape(1, 136))[0]
        for x in (p, augment.change_landmarks(change, p))
    )
    x, y = np.round(gone).astype(int).T
    error = seen[y, x, :2] - came - (np.round(gone) - gone)
    assert np.abs(error).mean() < 0.35  # the ramp itself is rounded to whole numbers


@pytest.mark.parametrize("seed", range(20))
def test_the_field_is_inverted_for_landmarks_to_a_twentieth_of_a_pixel(seed):
    """Where a landmark goes, the picture shows what was where it came from; cv2.remap
    itself rounds positions to a 32nd."""
    change = drawn(seed, warp=2.5, mouth_width=0.3, mouth_rise=7.0, mouth_curl=3.0)
    p = points()
    q = augment.change_landmarks(change, p)
    came_from = q - augment.at_positions(change.field, q)
    assert 64 * np.abs(came_from - p).max() < 0.05


def test_a_moved_picture_is_as_sharp_as_before():
    """Half a pixel aside, waves of eight pixels: linearly between neighbours they would
    keep cos(pi/8)^2 = 85 % of their energy."""
    change = drawn(0)._replace(motion=np.array([[1, 0, 1 / 128], [0, 1, 0]]))
    columns = 128 + 100 * np.sin(2 * np.pi * np.arange(128) / 8)
    frame = np.repeat(np.tile(columns, (128, 1))[..., None], 3, -1).round()
    moved = augment.change_frames(change, frame[None].astype(np.uint8))[0]
    after, before = (np.diff(x[:, 8:-8, 0].astype(float)) for x in (moved, frame))
    assert 0.93 < np.mean(after**2) / np.mean(before**2) < 1.07


def test_what_comes_in_from_outside_is_the_edge_repeated():
    frames = np.full((1, 128, 128, 3), 90, np.uint8)
    change = drawn(1, rotation=9.0, shift=20.0)
    np.testing.assert_array_equal(augment.change_frames(change, frames), frames)


# --- light ---


def test_colours_are_drawn_as_stated_and_by_earlier_versions():
    """The place of each number in the stream is what resumed runs rely on."""
    random = np.random.default_rng(4)
    *_, gain, offset, gamma, saturation = random.uniform(-1, 1, 8)
    random.random(2)
    random.standard_normal((5, 5, 2), dtype=np.float32)
    tint = random.uniform(-1, 1, 3)
    strength = {"gain": 0.2, "tint": 0.1, "offset": 0.1, "gamma": 0.3}
    colour = drawn(4, **strength, saturation=0.5).colour
    wanted = Colour(
        gain=1 + 0.2 * gain,
        tint=1 + 0.1 * tint,
        offset=0.1 * offset,
        gamma=np.exp(0.3 * gamma),
        saturation=1 + 0.5 * saturation,
    )
    for found, value in zip(colour, wanted, strict=True):
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, value, rtol=1e-6)


@pytest.mark.parametrize("name", Colour._fields)
def test_one_colour_strength_changes_that_alone(name):
    idle = {"gain": 1, "tint": 1, "offset": 0, "gamma": 1, "saturation": 1}
    colour = drawn(1, **{name: 0.2}).colour._asdict()
    assert {n for n, x in colour.items() if np.any(x != idle[n])} == {name}


def test_without_a_strength_of_colour_examples_come_without_one(clips):
    """So nothing is computed for it."""
    move = dataclasses.replace(STRONG, **dict.fromkeys(Colour._fields, 0.0))
    assert not move.changes_colour and STRONG.changes_colour
    assert sampling.vg_example(clips[0], KEY, T, augment=move).colour is None
    assert sampling.vg_example(clips[0], KEY, T).colour is None


# --- examples ---


def test_photo_and_frames_change_alike(clips):
    """The reference frame, where it lies in the window, is that frame again."""
    clip, found = clips[0], 0
    for index in range(30):
        key = (0, 0, index)
        reference, first = sampling.draw(len(clip.frames), key, T)
        if first <= reference < first + T:
            example = sampling.vg_example(clip, key, T, augment=STRONG)
            same = reference - first
            np.testing.assert_array_equal(example.image, example.frames[same])
            np.testing.assert_array_equal(example.example, example.landmarks[same])
            found += 1
    assert found > 3


def test_the_same_key_gives_the_same_change_and_another_key_another(clips):
    pca = clips.pca(3)
    for make in (
        lambda key: sampling.vg_example(clips[0], key, T, augment=STRONG),
        lambda key: sampling.at_example(clips[0], pca, key, T, augment=STRONG),
    ):
        a, b, other = (arrays(make(key)) for key in (KEY, KEY, (3, 2, 0)))
        for x, y, z in zip(a, b, other, strict=True):
            np.testing.assert_array_equal(x, y)
            assert not np.array_equal(x, z)
    changes = {
        float(sampling.augmentation((3, epoch, 0), STRONG).colour.gain)
        for epoch in range(20)
    }
    assert len(changes) == 20


def test_at_examples_move_face_and_sound_as_one_change(clips):
    """Coefficients are those of the changed landmarks, at the place drawn without; to
    rounding, because there only the frames of the example are changed."""
    pca, clip = clips.pca(6), clips[1]
    change = sampling.augmentation(KEY, STRONG)
    reference, first = sampling.draw(len(clip.frames), KEY, T)
    p = augment.change_landmarks(change, clip.landmarks).reshape(-1, 136)
    example = sampling.at_example(clip, pca, KEY, T, augment=STRONG)
    expected = pca.project(p[reference])
    np.testing.assert_allclose(example.example, expected, atol=1e-6)
    window = pca.project(p[first : first + T])
    np.testing.assert_allclose(example.coefficients, window, atol=1e-6)
    mfcc = augment_sound.change_sound(change, clip.mfcc)
    np.testing.assert_array_equal(
        example.audio[0], mfcc[4 * first : 4 * first + 28, 1:]
    )


def test_the_clip_itself_is_left_alone(clips):
    before = clips[0].landmarks.copy(), clips[0].mfcc.copy()
    sampling.at_example(clips[0], clips.pca(3), KEY, T, augment=STRONG)
    sampling.vg_example(clips[0], KEY, T, augment=STRONG)
    np.testing.assert_array_equal(clips[0].landmarks, before[0])
    np.testing.assert_array_equal(clips[0].mfcc, before[1])


@pytest.mark.parametrize("kind", ["at", "vg"])
def test_the_loader_augments_training_where_asked(kind, clips):
    def first(**options):
        batches = loader.training_batches(
            clips,
            kind,
            batch_size=2,
            seed=0,
            pca=clips.pca(3),
            num_frames=T,
            num_threads=1,
            **options,
        )
        with contextlib.closing(batches):
            return next(batches)

    plain, off, on = first(), first(augment=OFF), first(augment=STRONG)
    if kind == "vg":
        assert [x.shape for x in on.colour] == [(2,), (2, 3), (2,), (2,), (2,)]
        on = on._replace(colour=None)
    for x, y, z in zip(*map(arrays, (plain, off, on)), strict=True):
        np.testing.assert_array_equal(x, y)
        assert z.shape == x.shape and z.dtype == x.dtype
        assert not np.array_equal(x, z)
