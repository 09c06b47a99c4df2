"""benchmarks/tpu_layers.py: its forms and its table.  What XLA says is not asserted."""

import sys
import types

import jax
import numpy as np
import pytest

from benchmarks import tpu_layers
from jax_atvg.ahead_of_time import cost as compiling
from jax_atvg.models.layers import conv_transpose


def test_the_sub_pixel_form_is_the_transposed_convolution():
    random = np.random.default_rng(0).normal
    x, kernel = random(size=(2, 5, 7, 3)), random(size=(3, 3, 3, 4))
    with jax.enable_x64():
        found = tpu_layers.sub_pixel(x, kernel)
        np.testing.assert_allclose(found, conv_transpose(x, kernel), atol=1e-12)


def test_every_form_of_a_layer_gives_as_many_numbers():
    sizes = {}
    for layer, form, function, *shapes in tpu_layers.layers():
        arrays = [jax.ShapeDtypeStruct(shape, "bfloat16") for shape in shapes]
        sizes[layer, form] = jax.eval_shape(function, *arrays).size
    for layer, form in sizes:
        if layer != "head":
            assert sizes[layer, form] == sizes[layer, "transposed"]
    both = "colour and attention"
    assert sizes["head", "both, in blocks"] == sizes["head", both]
    assert sizes["head", "colour"] == 3 * sizes["head", "attention"]


@pytest.fixture
def call(monkeypatch):
    """main on the device here, with these words."""
    for name in ("enlarge_stack", "pretend_tpu_host"):
        monkeypatch.setattr(tpu_layers, name, lambda: None)

    def run(*words):
        monkeypatch.setattr(sys, "argv", ["tpu_layers.py", *words])
        return tpu_layers.main()

    return run


def test_its_table_has_a_row_a_form(call, monkeypatch, capsys):
    cost = {"ms": 1.25, "back_ms": 2.5, "gflop": 3.0, "back_gflop": 6.0}
    monkeypatch.setattr(tpu_layers, "estimate", lambda *_: cost)
    device = types.SimpleNamespace(device_kind="TPU v5 lite")
    monkeypatch.setattr(compiling, "topology_devices", lambda _: [device])
    assert call() == 0
    lines = capsys.readouterr().out.splitlines()
    rows = lines[lines.index(next(x for x in lines if "GFLOP" in x)) + 2 :]
    assert len(rows) == len(tpu_layers.layers())
    assert all("| 1.25 |    2.50 |" in row for row in rows)


def test_what_is_not_there_ends_with_exit_code_2(call, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "libtpu", None)
    assert call("--topology=v5p:2x2x1") == 2
    assert "error: --topology=v5p:2x2x1: libtpu is missing" in capsys.readouterr().err
    monkeypatch.setattr(compiling, "topology_devices", lambda _: jax.devices())
    assert call("--topology=v4:2x2x1") == 2
    assert "error: --topology=v4:2x2x1: its clock is not" in capsys.readouterr().err


def test_an_estimate_is_of_the_layer_and_of_its_gradients():
    """On the device here, whose compiler notes no cycles."""

    def product(x, kernel):
        return x @ kernel

    found = tpu_layers.estimate(product, jax.devices()[0], 1e9, (64, 32), (32, 16))
    assert found["gflop"] == 2 * 64 * 32 * 16 / 1e9
    assert found["back_gflop"] == 2 * found["gflop"] and found["ms"] == 0
