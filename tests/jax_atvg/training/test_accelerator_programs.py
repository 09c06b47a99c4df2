"""What training steps are for GPUs and TPUs, read off programs lowered for them.

Nothing is compiled or run: a program can be lowered for a platform that is not here.
"""

import functools
import re

import jax
import pytest

from configs import smoke
from input_pipeline.training_data.synthetic import SyntheticClips
from jax_atvg import sharding
from jax_atvg.models import convolutions
from jax_atvg.training import train_step

FRAMES = 16
CONVOLUTION = re.compile(
    r"stablehlo\.convolution\(.*?dim_numbers = (\[.*?\]x\[.*?\]->\[.*?\]), "
    r"window = \{(.*?)\}"
)
KERNEL_GRADIENT = "[f, 0, 1, b]x"  # the pictures' channels are its batch


@functools.cache
def lowered(network: str, platform: str) -> str:
    """The step of the smoke config, with windows of the original's length."""
    experiment = smoke.get_config(network)
    experiment.data.num_frames = FRAMES
    pca = SyntheticClips(2, 8).pca(experiment.data.num_coefficients)
    mesh = sharding.data_mesh(jax.devices()[:1])
    with convolutions.form(convolutions.form_for(platform)):
        built = train_step.build(experiment, mesh, pca)
        state = jax.eval_shape(built.init, 0)
        traced = built.step.trace(state, built.shapes, 0)
    name = {"gpu": "cuda"}.get(platform, platform)
    return traced.lower(lowering_platforms=(name,)).as_text()


def windows(text: str) -> list[tuple[bool, dict[str, str]]]:
    """Of every convolution: (whether it is a kernel's gradient, its window)."""
    found = []
    for numbers, window in CONVOLUTION.findall(text):
        fields = re.findall(r"(\w+) = (\[+.*?\]+)(?:, |$)", window)
        found.append((numbers.startswith(KERNEL_GRADIENT), dict(fields)))
    return found


@pytest.mark.parametrize("platform", ["gpu", "tpu"])
@pytest.mark.parametrize("network", ["at", "vg"])
def test_a_step_has_no_barrier_and_no_loop(network, platform):
    """Barriers forbid fusion; each turn of a loop starts its operations anew."""
    text = lowered(network, platform)
    assert "optimization_barrier" not in text
    assert "stablehlo.while" not in text
    assert "stablehlo.case" not in text  # one form alone, nothing to decide later
    assert "unique_indices = false" not in text  # a scatter that adds, in any order


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
