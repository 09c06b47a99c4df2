"""What training steps are for GPUs and TPUs, read off programs lowered for them.

Nothing is compiled or run: a program can be lowered for a platform that is not here.
"""

import functools
import re
from unittest import mock

import jax
import numpy as np
import pytest

from configs import smoke, vg_default
from input_pipeline.training_data.synthetic import SyntheticClips
from jax_atvg import sharding
from jax_atvg.models import convolutions
from jax_atvg.models.precision import traced
from jax_atvg.training import train_step
from jax_atvg.training.config import Mix

FRAMES = 16
CONVOLUTION = re.compile(
    r"stablehlo\.convolution\(.*?dim_numbers = (\[.*?\]x\[.*?\]->\[.*?\]), "
    r"window = \{(.*?)\}"
)
KERNEL_GRADIENT = "[f, 0, 1, b]x"  # the pictures' channels are its batch


def experiment_of(name: str):
    """The smoke config, with windows of the original's length; or, in bfloat16, the
    default model's with its mouth discriminator and light, and three LSTM layers."""
    if name != "default":
        experiment = smoke.get_config(name)
        experiment.data.num_frames = FRAMES
        return experiment
    experiment = vg_default.get_config()
    experiment.batch_size, experiment.precision = 2, "bfloat16"
    experiment.data.num_frames, experiment.data.mix = 3, Mix()
    experiment.discriminator.lstm_layers = 3
    return experiment


def mesh_of(platform: str):
    """All that says for which platform a program is traced."""
    devices = np.array([mock.Mock(platform=platform)])
    return mock.Mock(devices=devices, spec=sharding.data_mesh())


@functools.cache
def lowered(name: str, platform: str) -> str:
    """A step, built for a mesh of the platform's devices as far as it is looked at."""
    experiment = experiment_of(name)
    pca = SyntheticClips(2, 8).pca(experiment.data.num_coefficients)

    def for_platform(mesh, *rest):
        return traced(mesh_of(platform), *rest)

    with mock.patch.object(train_step, "traced", for_platform):
        mesh = sharding.data_mesh(jax.devices()[:1])
        built = train_step.build(experiment, mesh, pca)
    step = built.step.trace(jax.eval_shape(built.init, 0), built.shapes, 0)
    lowering = {"gpu": "cuda"}.get(platform, platform)
    return step.lower(lowering_platforms=(lowering,)).as_text()


def windows(text: str) -> list[tuple[bool, dict[str, str]]]:
    """Of every convolution: (whether it is a kernel's gradient, its window)."""
    found = []
    for numbers, window in CONVOLUTION.findall(text):
        fields = re.findall(r"(\w+) = (\[+.*?\]+)(?:, |$)", window)
        found.append((numbers.startswith(KERNEL_GRADIENT), dict(fields)))
    return found


@pytest.mark.parametrize("platform", ["cpu", "gpu", "tpu"])
def test_the_form_of_convolutions_is_that_of_the_meshs_platform(platform):
    x, kernel = np.zeros((1, 8, 8, 4), "f4"), np.zeros((3, 3, 4, 4), "f4")

    def layer(x, kernel):
        return convolutions.conv(x, kernel, 1, 1)

    text = str(jax.make_jaxpr(traced(mesh_of(platform), "default", layer))(x, kernel))
    plain = str(jax.make_jaxpr(layer)(x, kernel))  # for the CPU that is here
    assert (text == plain) == (platform == "cpu")
    assert ("custom_vjp" in text) == (platform == "cpu")


@pytest.mark.parametrize("platform", ["gpu", "tpu"])
@pytest.mark.parametrize("network", ["at", "vg", "default"])
def test_a_step_has_no_barrier_and_no_loop(network, platform):
    """Barriers forbid fusion; each turn of a loop starts its operations anew."""
    text = lowered(network, platform)
    assert "optimization_barrier" not in text
    assert "stablehlo.while" not in text
    assert "stablehlo.case" not in text  # one form alone, nothing to decide later
    assert "unique_indices = false" not in text  # a scatter that adds, in any order


def test_in_bfloat16_all_convolutions_are():
    """Also those whose kernels are divided by their spectral norms."""
    text = lowered("default", "gpu")
    types = re.findall(r"stablehlo\.convolution.*: \((.*?)\) -> ", text)
    assert len(types) > 100
    assert not [one for one in types if "f32" in one]


def test_a_step_for_cpus_has_both():
    """The control: what the other tests look for can be found."""
    text = lowered("vg", "cpu")
    assert "optimization_barrier" in text and "stablehlo.while" in text


@pytest.mark.parametrize("platform", ["gpu", "tpu"])
def test_no_kernel_gradient_has_strides_or_zeros_between_pixels(platform):
    """XLA takes a convolution for a kernel's gradient, which cuDNN computes, if its
    windows have no strides and its pictures no zeros between the pixels."""
    found = windows(lowered("vg", platform))
    gradients = [window for is_gradient, window in found if is_gradient]
    assert len(found) > len(gradients) > 20
    for window in gradients:
        assert window.get("stride", "[1, 1]") == "[1, 1]", window
        assert window.get("lhs_dilate", "[1, 1]") == "[1, 1]", window


def test_only_kernel_gradients_have_dilated_windows():
    """The recurrence's convolutions, which are dilated, run on phases."""
    found = windows(lowered("vg", "gpu"))
    dilated = [g for g, w in found if w.get("rhs_dilate", "[1, 1]") != "[1, 1]"]
    assert dilated and all(dilated)
