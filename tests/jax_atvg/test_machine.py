"""What a program runs on, in words."""

import types

import jax
import numpy as np
import pytest

from jax_atvg import machine


def device(platform: str, kind: str):
    return types.SimpleNamespace(platform=platform, device_kind=kind)


@pytest.mark.parametrize(
    ("devices", "precision", "asked", "text"),
    [
        ([device("cpu", "cpu")], "default", None, "1 x CPU, float32"),
        (
            [device("gpu", "NVIDIA H100 80GB HBM3")] * 8,
            "default",
            None,
            "8 x NVIDIA H100 80GB HBM3, float32 (TF32 products)",
        ),
        (
            [device("gpu", "NVIDIA H100 80GB HBM3")],
            "default",
            "highest",
            "1 x NVIDIA H100 80GB HBM3, float32",
        ),
        ([device("gpu", "A100")], "bfloat16", None, "1 x A100, bfloat16"),
        ([device("gpu", "A100")], "highest", None, "1 x A100, float32"),
        (
            [device("tpu", "TPU v5 lite")] * 4,
            "default",
            None,
            "4 x TPU v5 lite, float32 (bfloat16 products)",
        ),
    ],
)
def test_devices_are_named_with_what_they_multiply_in(devices, precision, asked, text):
    with jax.default_matmul_precision(asked):
        assert machine.describe(devices, precision) == text


def test_a_gpu_that_jax_cannot_use_is_warned_of(tmp_path, monkeypatch):
    driver = tmp_path / "nvidiactl"
    monkeypatch.setattr(machine, "GPU_DRIVERS", (str(driver),))
    monkeypatch.delenv("JAX_PLATFORMS", raising=False)
    assert machine.unused_gpu() is None
    driver.touch()
    monkeypatch.setattr(machine, "CUDA_PLUGINS", ("no_such_plugin",))
    assert 'pip install "jax[cuda13]"' in machine.unused_gpu()
    monkeypatch.setattr(machine, "CUDA_PLUGINS", ("no_such_plugin", "json"))
    assert "look at the driver" in machine.unused_gpu()
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")  # asked for
    assert machine.unused_gpu() is None


def test_parameters_are_counted_by_network():
    tree = {"a": np.zeros((1000, 1200)), "b": [np.zeros(34_000)]}
    text = machine.parameters(AT_net=tree, discriminator={"c": np.zeros(5)})
    assert text == "AT-net 1.23 M, discriminator 5e-06 M parameters"
