"""Scores and pictures of a training state, against every clip alone in numpy."""

import contextlib
from unittest import mock

import jax
import numpy as np
import pytest

from configs import smoke
from input_pipeline.media.image import to_float, to_u8
from input_pipeline.training_data import loader, synthetic
from jax_atvg.sharding import data_mesh, to_devices
from jax_atvg.training import validation
from jax_atvg.training.train import clips_at_once
from jax_atvg.training.train_step import build

VARIED = synthetic.SyntheticClips(3, [9, 12, 10])


def experiment(network: str):
    config = smoke.get_config(network)
    config.data.num_coefficients = 3
    return config


@pytest.mark.parametrize("target", ["coefficients", "landmarks"])
def test_at_net_is_validated_by_what_it_is_trained_on(target):
    """Every clip alone, in numpy, against one padded pass."""
    config = experiment("at")
    config.at_loss.target, config.at_loss.mouth_weight = target, 4.0
    mesh = data_mesh(jax.devices()[:1])
    pca = VARIED.pca(config.data.num_coefficients)
    built = build(config, mesh, pca)
    nets, state = built.nets, built.init(0)
    net = jax.jit(nets.net.apply)
    kept = dict(pca=pca, frames=False, num_threads=1)
    batches = loader.evaluation_batches(VARIED, batch_size=2, **kept)
    with contextlib.closing(batches):
        score = validation.validator(nets, mesh)(state, batches)
    errors = []
    for batch in loader.evaluation_batches(VARIED, batch_size=1, **kept):
        length = int(batch.frame_valid.sum())
        h = net(state.net.variables, *batch.at[:2]).coefficients
        error = (h - batch.at.coefficients)[0, :length]
        if target == "landmarks":
            x_y = (error @ pca.components.T).reshape(length, 68, 2)
            weight = np.where(np.arange(68) < 48, 1, 4)
            smooth = np.sqrt(np.sum(x_y**2, -1) + 0.005**2) - 0.005
            errors.extend(np.mean(weight * smooth, -1))
        else:
            errors.extend(np.mean(error**2, -1))
    assert len(errors) == 31
    assert score == pytest.approx(np.mean(errors), rel=1e-5)


def clip_by_clip(nets, state) -> float:
    """The validation loss of VG-net, from every clip alone."""
    errors, net = [], jax.jit(nets.vg_net.apply)
    kept = dict(pca=None, frames=True, num_threads=1)
    for batch in loader.evaluation_batches(VARIED, batch_size=1, **kept):
        inputs, length = batch.vg, int(batch.frame_valid.sum())
        frames = net(
            jax.device_get(state.vg.variables),
            *(to_float(inputs.image), inputs.landmarks, inputs.example),
        ).frames
        error = np.abs(frames - to_float(inputs.frames))
        errors.extend(error.mean((2, 3, 4))[0, :length])
    return np.mean(errors)


def on_white(batches):
    """The same batches, but what only fills them is white."""
    for batch in batches:
        frames = batch.vg.frames.copy()
        frames[batch.frame_valid == 0] = 255
        yield batch._replace(vg=batch.vg._replace(frames=frames))


@pytest.mark.parametrize(("recurrence", "size"), [("batch", 1), ("time", 2)])
def test_vg_net_is_scored_as_clip_by_clip_and_padding_is_no_matter(recurrence, size):
    """On two devices as on one.  A recurrence over the batch sees one clip at a time:
    else other clips would be its past.  The last batch of two has a row to spare."""
    config = experiment("vg")
    config.vg_net.recurrence = recurrence
    several = data_mesh(jax.devices()[:2])
    built = build(config, several)
    nets, state = built.nets, built.init(0)
    assert clips_at_once(config, several, 3) == size
    kept = dict(pca=None, frames=True, num_threads=1)
    with contextlib.closing(
        loader.evaluation_batches(VARIED, batch_size=size, **kept)
    ) as batches:
        passes = list(batches)
    score = validation.validator(nets, several)
    found = score(state, passes)
    assert found == pytest.approx(clip_by_clip(nets, state), rel=1e-4)
    assert score(state, on_white(passes)) == found


@pytest.mark.parametrize(
    ("platform", "recurrence", "scored", "at_once"),
    [
        ("cpu", "time", 9, 2),
        ("gpu", "time", 9, 8),
        ("tpu", "none", 9, 8),
        ("gpu", "batch", 9, 1),
        ("gpu", "time", 5, 6),
        ("gpu", "time", 1, 2),
        ("cpu", "time", 1, 2),
    ],
)
@pytest.mark.parametrize("chosen", [False, True])
def test_accelerators_validate_several_clips_a_device(
    platform, recurrence, scored, at_once, chosen
):
    """As many as are needed at most: a row without a clip is computed, too.  chosen:
    the config says how many are scored, not the split."""
    config = experiment("vg")
    config.data.validation_clips = scored if chosen else 0
    config.vg_net.recurrence = recurrence
    device = mock.Mock(platform=platform)
    mesh = mock.Mock(size=2, devices=np.array([device, device]), spec=data_mesh())
    assert clips_at_once(config, mesh, 99 if chosen else scored) == at_once


@pytest.mark.parametrize("devices", [1, 2])
def test_picture_shows_photo_target_result_attention_color_and_landmarks(devices):
    """Of a batch that one device has, or two devices have in parts."""
    config, mesh = experiment("vg"), data_mesh(jax.devices()[:devices])
    built = build(config, mesh)
    nets, state = built.nets, built.init(0)
    batches = loader.training_batches(VARIED, "vg", batch_size=2, seed=0, num_frames=4)
    with contextlib.closing(batches):
        batch = next(batches)
    strip = validation.painter(nets, mesh)(state, to_devices(batch, mesh))
    assert strip.shape == (6 * 128, 4 * 128, 3) and strip.dtype == np.uint8
    np.testing.assert_array_equal(strip[:128, :128], batch.image[0])
    np.testing.assert_array_equal(strip[128:256, -128:], batch.frames[0, -1])
    output = jax.jit(nets.vg_net.apply)(
        jax.device_get(state.vg.variables),
        to_float(batch.image[:1]),
        *(batch.landmarks[:1], batch.example[:1]),
    )
    made = strip[256:384, :128].astype(int)
    assert abs(made - to_u8(output.frames)[0, 0]).max() <= 1
    share = strip[384:512, :128].astype(int)
    assert abs(share - to_u8(2 * output.attention - 1)[0, 0]).max() <= 1
    assert strip[640:].max() == 255 and (strip[640:] == 0).mean() > 0.5
