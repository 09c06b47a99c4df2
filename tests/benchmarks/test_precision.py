"""benchmarks/precision.py: its rows at small size, and its arithmetic."""

import json
import sys

import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks import precision
from input_pipeline.training_data.synthetic import SyntheticClips, write_dataset
from jax_atvg.inference.bundle import save_bundle
from jax_atvg.models import convolutions, layers, lstm
from tests.small_bundle import small_bundle


@pytest.mark.parametrize(("bits", "apart"), [(10, 2.0**-11), (7, 2.0**-8)])
def test_factors_are_rounded_to_so_many_bits(bits, apart, monkeypatch):
    for module in (layers, lstm):  # and undone afterwards
        monkeypatch.setattr(module, "in_kernels_precision", layers.in_kernels_precision)
    monkeypatch.setattr(convolutions, "form_for", convolutions.form_for)
    precision.round_factors(bits)
    x = np.linspace(1, 2, 1001, dtype=np.float32)
    assert layers.in_kernels_precision is lstm.in_kernels_precision
    rounded, kernel = layers.in_kernels_precision(x, jnp.float32(1 / 3))
    wrong = np.abs(np.asarray(rounded) - x).max()
    assert apart / 2 < wrong <= apart and kernel != np.float32(1 / 3)
    assert convolutions.form_for("cpu") == "native"


def test_differences_are_paired():
    """Clips differ by far more than the precision changes them."""
    those = [20.0, 30.0, 40.0]
    assert precision.difference([20.5, 30.5, 40.5], those) == (
        "+0.5000 (+0.5000, +0.5000)"
    )


@pytest.mark.parametrize("words", [["--rows=half"], ["--limit=-1"], ["--steps=-1"]])
def test_bad_flags_end_with_exit_code_2(words):
    with pytest.raises(SystemExit) as stop:
        precision.arguments(["--data_dir=x", *words])
    assert stop.value.code == 2


def test_it_measures_small_networks(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", str(tmp_path / "cache"))
    save_bundle(small_bundle(), tmp_path / "bundle")
    write_dataset(
        tmp_path, train=SyntheticClips(1, 8), validation=SyntheticClips(2, 10)
    )
    words = [f"--data_dir={tmp_path}", f"--bundle={tmp_path / 'bundle'}", "--steps=0"]
    words += ["--rows=highest;bfloat16", f"--json={tmp_path / 'found.json'}"]
    monkeypatch.setattr(sys, "argv", ["precision.py", *words])
    precision.main()
    rows = json.loads((tmp_path / "found.json").read_text())["rows"]
    assert set(rows) == {"highest", "bfloat16"}
    full, half = (rows[name]["scores"] for name in rows)
    assert set(full) == set(precision.SCORES) and full != half
    for heading, values in full.items():
        assert len(values) == 2
        np.testing.assert_allclose(half[heading], values, rtol=0.05, equal_nan=True)
    assert "|  bfloat16 |     2 |" in capsys.readouterr().out
