"""Bytes become the networks' floats on the device, in another light where asked."""

from unittest import mock

import cv2
import jax
import numpy as np
import pytest

from input_pipeline.clip import Colour, VgBatch
from input_pipeline.media.image import to_float
from input_pipeline.training_data import augment
from jax_atvg.training.gan_step import gan_step, pixel_step
from jax_atvg.training.pictures import with_float_pictures
from jax_atvg.training.state import VgNets, VgState

B, T, S = 3, 2, 8
LEVEL = 2 / 255  # of grey, in [-1, 1]


def batch_of(colour: Colour | None) -> VgBatch:
    """All 256 levels are there; the photo of an example is its first frame."""
    levels = np.random.default_rng(0).permutation(np.arange(B * T * S * S * 3) % 256)
    frames = levels.reshape(B, T, S, S, 3).astype(np.uint8)
    landmarks = np.zeros((B, T, 136), np.float32)
    return VgBatch(frames[:, 0], landmarks[:, 0], frames, landmarks, colour)


def colours(**given) -> Colour:
    """What changes nothing, but for what is given."""
    idle = {"gain": 1, "tint": np.ones(3), "offset": 0, "gamma": 1, "saturation": 1}
    values = (np.float32((idle | given)[name]) for name in Colour._fields)
    return Colour(*(np.stack([value] * B) for value in values))


converted = jax.jit(with_float_pictures)


def by_opencv(colour: Colour, frames: np.ndarray) -> np.ndarray:
    """One example's frames u8[T,S,S,3] in its light, rounded to bytes."""
    gain, tint, offset, gamma, saturation = (np.float64(x) for x in colour)
    levels = np.linspace(0, 1, 256)[:, None]
    curve = (255 * (gain * tint * levels**gamma + offset)).astype(np.float32)
    lit = cv2.LUT(frames.reshape(-1, S, 3), curve[:, None])
    grey = np.full((3, 3), (1 - saturation) / 3)
    lit = cv2.transform(lit, saturation * np.eye(3) + grey)
    return np.clip(lit + 0.5, 0, 255).astype(np.uint8).reshape(frames.shape)


def test_drawn_colours_are_the_stated_formula_to_a_level_of_grey():
    strength = augment.Strength(
        gain=0.3, tint=0.2, offset=0.1, gamma=0.4, saturation=0.5
    )
    drawn = [
        augment.draw(np.random.default_rng(seed), strength).colour for seed in range(B)
    ]
    batch = batch_of(Colour(*map(np.stack, zip(*drawn, strict=True))))
    found = converted(batch)
    for i in range(B):
        for pictures, floats in (
            (batch.frames[i], found.frames[i]),
            (batch.image[i : i + 1], found.image[i : i + 1]),
        ):
            wanted = to_float(by_opencv(drawn[i], pictures))
            assert np.abs(np.asarray(floats) - wanted).max() < LEVEL
            assert np.abs(wanted - to_float(pictures)).max() > 5 * LEVEL


def test_photo_and_frames_get_the_same_light():
    batch = batch_of(colours(gain=0.8, gamma=1.3, tint=np.array([1, 0.9, 1.1])))
    found = converted(batch)
    np.testing.assert_array_equal(found.image, found.frames[:, 0])
    assert found.colour is None


def test_a_colour_that_changes_nothing_does_so_bit_for_bit():
    """Of one example in the batch, whatever the others' do."""
    plain = converted(batch_of(None))
    np.testing.assert_array_equal(converted(batch_of(colours())).frames, plain.frames)
    mixed = colours(gain=0.8)
    mixed.gain[1] = 1
    frames = converted(batch_of(mixed)).frames
    np.testing.assert_array_equal(frames[1], plain.frames[1])
    assert not np.array_equal(frames[0], plain.frames[0])


def test_without_saturation_all_channels_are_the_mean():
    frames = np.asarray(converted(batch_of(colours(saturation=0))).frames)
    mean = to_float(batch_of(None).frames).mean(-1, keepdims=True)
    np.testing.assert_allclose(frames, np.broadcast_to(mean, frames.shape), atol=1e-6)


@pytest.mark.parametrize(("offset", "value"), [(2.0, 1.0), (-2.0, -1.0)])
def test_what_is_too_bright_or_dark_is_cut_off(offset, value):
    assert np.all(converted(batch_of(colours(offset=offset))).frames == value)


def test_without_a_gain_only_the_offset_is_left():
    frames = converted(batch_of(colours(gain=0, offset=0.25, gamma=0.5))).frames
    np.testing.assert_allclose(frames, -0.5, atol=1e-6)


def test_bytes_are_mapped_as_everywhere_else_and_floats_stay():
    batch = batch_of(None)
    found = converted(batch)
    assert found.frames.dtype == found.image.dtype == np.float32
    np.testing.assert_allclose(found.frames, to_float(batch.frames), atol=2e-7)
    again = converted(found)
    np.testing.assert_array_equal(again.frames, found.frames)
    np.testing.assert_array_equal(again.image, found.image)


@pytest.mark.parametrize("step", [gan_step, pixel_step])
@pytest.mark.parametrize("kind", ["bytes", "floats"])
def test_steps_see_floats_whatever_they_are_given(step, kind, monkeypatch):
    """By what reaches the forward pass, which comes first in both."""

    class Seen(Exception):
        pass

    def generate(nets, state, batch, seed):
        raise Seen(batch)

    module = "jax_atvg.training.gan_step.generate"
    monkeypatch.setattr(module, generate)
    batch = jax.tree.map(jax.numpy.asarray, batch_of(None))
    if kind == "floats":
        batch = with_float_pictures(batch)
    with pytest.raises(Seen) as seen:
        step(mock.Mock(spec=VgNets), mock.Mock(spec=VgState), batch, 0)
    (found,) = seen.value.args
    assert found.frames.dtype == found.image.dtype == np.float32
    np.testing.assert_allclose(found.frames, to_float(batch_of(None).frames), atol=2e-7)
