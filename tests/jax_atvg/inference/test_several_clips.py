"""The networks play several clips at once: each is what it is alone."""

import dataclasses

import jax
import numpy as np
import pytest

from input_pipeline.media.image import to_u8
from jax_atvg.inference import animate
from jax_atvg.inference.networks import CHUNK, Clip, Networks, compiled_draw
from jax_atvg.inference.predict import Photo, predict
from jax_atvg.models.precision import cast_variables
from jax_atvg.sharding import data_mesh
from tests.small_bundle import photo, small_bundle


@pytest.fixture(scope="module")
def clips(bundle):
    """Makes five clips of different lengths and photos, of which one is still and two
    are told to close the eyes."""
    subject = animate.read_subject(photo(), bundle).photo

    def make():
        random = np.random.default_rng(0)
        for still, frames in ((0, 37), (0, 5), (1, 16), (0, 20), (0, 1)):
            other = Photo(*(x + np.float32(0.1 * random.normal()) for x in subject))
            windows = random.normal(size=(frames, 28, 12)).astype(np.float32)
            lids = random.uniform(0, 1, frames).astype(np.float32)
            yield Clip(other, windows, bool(still), lids=lids if frames > 16 else None)

    return lambda: list(make())


def made_of(networks, clips, maps=True):
    """What the networks make of each clip, joined."""
    parts = {clip: [] for clip in clips}
    for made in networks.predict(clips, maps):
        for part, rendered in made:
            parts[part.clip].append(rendered)
    joined = (jax.tree.map(lambda *x: np.concatenate(x), *p) for p in parts.values())
    return list(joined)


@pytest.mark.parametrize(("rows", "devices"), [(3, 1), (4, 2), (8, 1)])
def test_each_clip_is_what_it_is_alone(bundle, alone, clips, rows, devices):
    mesh = data_mesh(jax.devices()[:devices])
    together = made_of(Networks(bundle, rows, mesh), clips())
    for clip, got in zip(clips(), together, strict=True):
        (expected,) = made_of(alone, [clip])
        np.testing.assert_allclose(got.landmarks, expected.landmarks, atol=1e-5)
        for name in ("frames", "attention", "color"):
            a, b = (getattr(x, name).astype(int) for x in (got, expected))
            assert a.shape == b.shape and np.abs(a - b).max() <= 1


def test_of_one_program_it_is_that_to_the_bit(three, clips):
    """Neither the other rows nor what the row played before have a say."""
    together = made_of(three, clips())
    for clip, got in zip(clips(), together, strict=True):
        (expected,) = made_of(three, [clip])
        jax.tree.map(np.testing.assert_array_equal, got, expected)


def test_what_is_shown_are_the_bytes_of_the_networks_floats(bundle, alone, clips):
    """As `predict` computes them, in one piece."""
    clip = clips()[0]
    (got,) = made_of(alone, [clip])
    sizes, weights = (bundle.at_net, bundle.vg_net), alone.weights
    networks = jax.jit(predict, static_argnums=(0, 1, 2))
    inputs = clip.photo, clip.windows[None]
    floats = networks(*sizes, False, weights, *inputs, lids=clip.lids[None])
    for name, expected in (
        ("frames", floats.frames[0]),
        ("color", floats.color[0]),
        ("attention", 2 * floats.attention[0, ..., 0] - 1),
    ):
        shown = getattr(got, name)
        assert shown.dtype == np.uint8
        difference = np.abs(shown.astype(int) - to_u8(np.asarray(expected)))
        assert difference.max() <= 1 and (difference > 0).mean() < 1e-3
    np.testing.assert_allclose(got.landmarks, floats.landmarks[0], atol=1e-5)


def test_a_device_makes_the_bytes_that_the_host_makes():
    """Halves included, which are rounded to even."""
    halves = (np.arange(-3, 260) + 0.5) / 127.5 - 1
    random = np.random.default_rng(0).uniform(-1.1, 1.1, 100_000)
    floats = np.concatenate([halves, random]).astype(np.float32)
    np.testing.assert_array_equal(jax.jit(to_u8)(floats), to_u8(floats))


def drawing(networks, maps=()):
    """VG-net's program, lowered."""
    rows, size = networks.batch_size, networks.bundle.vg_net.image_size
    image = np.zeros((rows, size, size, 3), np.float32)
    landmarks = np.zeros((rows, CHUNK, 136), np.float32)
    inputs = image, landmarks[:, 0], np.zeros(rows, bool), landmarks
    program = compiled_draw(networks.bundle.vg_net, networks.mesh, "default", maps)
    state = networks.first_state().vg_net
    return program.lower(networks.weights.vg_net, *inputs, state)


def test_no_picture_is_computed_that_nobody_asked_for(three):
    """What one call hands over, in bytes: 3 clips of 16 frames of 32 x 32 pixels."""

    def handed_over(*maps):
        made, _ = drawing(three, maps).out_info
        return sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(made))

    pixels = 3 * 16 * 32 * 32
    assert handed_over() == 3 * pixels
    assert handed_over("attention") == (3 + 1) * pixels
    assert handed_over("attention", "color") == (3 + 1 + 3) * pixels


def test_the_state_is_donated(three):
    """Its memory becomes that of the next state."""
    donated = drawing(three).compile().memory_analysis().alias_size_in_bytes
    assert donated == three.first_state().vg_net.nbytes


def test_a_recurrence_over_the_batch_plays_one_clip_at_a_time(clips):
    """It would mix them."""
    over_the_batch = small_bundle(recurrence="batch")
    networks = Networks(over_the_batch, 3)
    assert networks.batch_size == 1
    parts = [[part for part, _ in made] for made in networks.predict(clips()[:2])]
    assert [len(made) for made in parts] == [1] * 4
    order = [made[0].clip for made in parts]
    assert len(set(order)) == 2 and order == sorted(order, key=order.index)


def test_weights_on_a_device_are_cast_by_one_program(bundle, compilations):
    """Not by one for each of their shapes; to the bits of numpy's casts."""
    on_device = dataclasses.replace(bundle, variables=jax.device_put(bundle.variables))
    before = len(compilations)
    weights = Networks(on_device, precision="bfloat16").weights
    assert len(compilations) == before + 1

    def same(got, expected):
        assert got.dtype == expected.dtype
        assert np.asarray(got).tobytes() == expected.tobytes()

    for name, variables in bundle.variables.items():
        expected = jax.tree.map(np.asarray, cast_variables(variables, "bfloat16"))
        jax.tree.map(same, getattr(weights, name), expected)
