"""`main.py compile`: the prediction against its formulas, and the verb itself."""

import dataclasses
import importlib.util
import json
import os
import pathlib
import subprocess
import sys
import types

import jax
import numpy as np
import pytest
from jax.experimental import topologies

from configs import smoke
from input_pipeline.clip import InputError
from input_pipeline.training_data.synthetic import SyntheticClips
from jax_atvg.ahead_of_time import cost as compiling
from jax_atvg.models import convolutions
from jax_atvg.programs.chips import CHIPS, GPUS, Chip
from tests.conftest import ROOT

LIBTPU = pathlib.Path(sys.prefix) / "tpu"  # where `make test` puts it
CHIP = Chip(
    flops=100e12,
    memory=10e9,
    bandwidth=1e12,
    network=50e9,
    clock=2e9,
    latency=1e-5,
)
COST = compiling.Cost(
    device_kind="TPU v5 lite",
    devices=16,
    batch_per_device=8,
    arguments=1_000_000_000,
    outputs=1_000,
    temporaries=2_000_000_000,
    code=1_000_000,
    flops=2_000_000_000_000,
    memory_bytes=30_000_000_000,
    collectives={"all-reduce": (3, 200_000_000), "all-gather": (1, 1_000_000)},
)


def test_the_prediction_is_the_stated_roofline():
    found = compiling.predict(COST, CHIP)
    share = 15 / 16
    network = 4e-5 + share * (2 * 200e6 + 1e6) / 50e9
    np.testing.assert_allclose(found["compute"], 0.02)
    np.testing.assert_allclose(found["hbm"], 0.03)
    np.testing.assert_allclose(found["network"], network)
    np.testing.assert_allclose(found["step"], 0.03 + network)


def test_one_device_sends_nothing_and_many_lose_what_they_send():
    alone = dataclasses.replace(COST, devices=1)
    assert compiling.predict(alone, CHIP)["network"] == 0
    found = compiling.efficiency(COST, CHIP)
    assert found[1] == 1
    assert list(found.values()) == sorted(found.values(), reverse=True)
    step = compiling.predict(COST, CHIP)["step"]
    np.testing.assert_allclose(found[16], 0.03 / step)


def test_the_report_says_how_long_the_configs_clips_take():
    experiment = dataclasses.replace(smoke.get_config("at"), steps=1000, batch_size=10)
    found = compiling.report(experiment, COST, "v5e:4x4")
    seconds = compiling.predict(COST, CHIPS["TPU v5 lite"])
    prediction = found["prediction"]
    assert prediction["clips"] == 10_000
    rate = 8 * 16 / seconds["step"]
    np.testing.assert_allclose(prediction["hours"], 10_000 / rate / 3600)
    assert prediction["bound_by"] == "hbm"
    assert found["memory"] == 3_001_001_000
    text = compiling.plain_text(found)
    assert "3 GB, 19% of 16 GB" in text
    assert "all-reduce" in text and "3, 200 MB" in text
    assert "the compiler's estimate" not in text
    noted = dataclasses.replace(COST, cycles=3_000_000)
    found = compiling.report(experiment, noted, "v5e:4x4")
    line = "the compiler's estimate  2 ms"
    assert line in compiling.plain_text(found)


@pytest.mark.parametrize(
    ("kind", "precision", "times"),
    [
        ("NVIDIA H100 80GB HBM3", "bfloat16", 1),
        ("NVIDIA H100 80GB HBM3", "default", 2),
        ("TPU v5 lite", "default", 1),
    ],
)
def test_tf32_takes_twice_as_long_as_bfloat16(kind, precision, times):
    cost = dataclasses.replace(COST, device_kind=kind)
    experiment = dataclasses.replace(smoke.get_config("at"), precision=precision)
    prediction = compiling.report(experiment, cost, "")["prediction"]
    expected = times * COST.flops / CHIPS[kind].flops
    np.testing.assert_allclose(prediction["compute"], expected)


def test_products_in_float32_are_not_predicted():
    experiment = dataclasses.replace(smoke.get_config("at"), precision="highest")
    found = compiling.report(experiment, COST, "v5e:4x4")
    assert found["prediction"] is None
    text = compiling.plain_text(found)
    assert "no peak of products in float32 is known" in text and "of 16 GB" in text


def test_local_devices_are_not_predicted():
    cost = dataclasses.replace(COST, device_kind="cpu")
    found = compiling.report(smoke.get_config("at"), cost, "")
    assert found["prediction"] is None
    assert "predicted" not in compiling.plain_text(found)


@pytest.mark.parametrize(
    ("x", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1.5e9, "1.5 GB"),
        (2e-5, "20 uB"),
        (3e16, "3e+04 TB"),
    ],
)
def test_amounts_have_three_digits(x, text):
    assert compiling.amount(x, "B") == text


# --- the step ---


def test_the_step_that_is_compiled_is_that_of_training():
    """AT-net's on two devices: the parameters are arguments, their gradients one or
    more all-reduces of at least their size."""
    experiment = smoke.get_config("at")
    pca = SyntheticClips(4, 32).pca(experiment.data.num_coefficients)
    cost = compiling.compile_step(experiment, jax.devices()[:2], 3, pca)
    built = compiling.build(
        dataclasses.replace(experiment, batch_size=6),
        compiling.data_mesh(jax.devices()[:2]),
        pca,
    )
    state = jax.eval_shape(built.init, 0)
    params = sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(state.net.params))
    assert cost.arguments > 3 * params  # Adam has two moments
    assert cost.collectives["all-reduce"][1] >= params
    assert cost.flops > 0 and cost.memory_bytes > cost.arguments
    assert (cost.devices, cost.batch_per_device) == (2, 3)


def test_a_step_that_does_not_fit_costs_nothing_and_other_failures_are_raised(
    monkeypatch,
):
    class Lowered:
        def __init__(self, message):
            self.message = message

        def compile(self):
            raise RuntimeError(self.message)

    def build_with(message):
        built = types.SimpleNamespace(
            init=lambda seed: 0,
            at=lambda _: types.SimpleNamespace(lower=lambda *_: Lowered(message)),
            shapes=None,
        )
        monkeypatch.setattr(compiling, "build", lambda *_: built)

    experiment = smoke.get_config("at")
    build_with("RESOURCE_EXHAUSTED: 17 GB of 16 GB hbm")
    assert compiling.compile_step(experiment, jax.devices()[:1], 1) is None
    build_with("INTERNAL: broken")
    with pytest.raises(RuntimeError, match="broken"):
        compiling.compile_step(experiment, jax.devices()[:1], 1)


# --- fitting ---


def growing(monkeypatch, each: float, tried: list[int]):
    """compile_step needs each bytes a clip, or fails as XLA does above 16 GB."""

    def cost(experiment, devices, batch, pca):
        tried.append(batch)
        if batch * each > 20e9:
            return None
        return dataclasses.replace(
            COST, batch_per_device=batch, arguments=0, temporaries=int(batch * each)
        )

    monkeypatch.setattr(compiling, "compile_step", cost)


V5E = [types.SimpleNamespace(device_kind="TPU v5 lite")]


@pytest.mark.parametrize("most", [1, 2, 3, 7, 8, 25])
def test_the_largest_batch_that_fits_is_found(monkeypatch, most):
    tried = []
    growing(monkeypatch, (16e9 - 2e6) / most, tried)
    best = compiling.largest_batch(smoke.get_config("at"), V5E)
    assert best.batch_per_device == most
    assert len(tried) == len(set(tried)) <= 12


def test_only_batches_of_whole_virtual_ones_are_tried(monkeypatch):
    """Eight clips on four devices: two each, or a multiple of that."""
    tried, experiment = [], smoke.get_config("vg")
    experiment.virtual_batch_size = 8
    growing(monkeypatch, (16e9 - 2e6) / 7, tried)
    assert compiling.largest_batch(experiment, 4 * V5E).batch_per_device == 6
    assert tried == [2, 4, 8, 6]


def test_a_clip_that_does_not_fit_is_an_error(monkeypatch):
    growing(monkeypatch, 17e9, [])
    with pytest.raises(InputError, match=r"--fit: 1 clips a device do not fit 16 GB"):
        compiling.largest_batch(smoke.get_config("at"), V5E)


@pytest.mark.parametrize(
    ("cost", "needed"),
    [
        (None, "more than the device has"),
        (dataclasses.replace(COST, temporaries=17_000_000_000), "18 GB"),
    ],
)
def test_a_batch_that_does_not_fit_is_an_error(cost, needed):
    with pytest.raises(
        InputError, match=f"--batch_per_device=9: needs {needed}; lower it"
    ):
        compiling.check_fit(cost, 9)
    assert compiling.check_fit(COST, 8) is COST


def test_fitting_devices_of_unknown_memory_is_an_error():
    with pytest.raises(
        InputError, match=r"--fit: the memory of cpu is not known; give"
    ):
        compiling.largest_batch(smoke.get_config("at"), jax.devices()[:1])


def test_devices_send_each_other_sums_and_no_pictures():
    """What is gathered grows with the devices, and so would its use on every one: the
    gradient of VG-net's recurrence once was.  In the form for accelerators; that for
    CPUs goes through large gradients in groups of pictures, and does gather them."""
    experiment = smoke.get_config("vg")
    experiment.data.num_frames = 2
    with convolutions.form("native"):
        cost = compiling.compile_step(experiment, jax.devices()[:4], 1)
        alone = compiling.compile_step(experiment, jax.devices()[:1], 1)
    assert set(cost.collectives) == {"all-reduce"}
    assert cost.flops == pytest.approx(alone.flops, rel=0.02)


# --- topologies ---


def test_without_libtpu_a_topology_is_an_error_with_the_remedy(monkeypatch):
    monkeypatch.setitem(sys.modules, "libtpu", None)
    with pytest.raises(InputError, match=r"libtpu is missing; pip install -r"):
        compiling.topology_devices("v5e:2x2")


def test_an_unknown_topology_is_an_error_with_examples(monkeypatch):
    def unknown(**_):
        raise RuntimeError("INVALID_ARGUMENT: no such\nmore")

    monkeypatch.setitem(sys.modules, "libtpu", types.ModuleType("libtpu"))
    monkeypatch.setattr(topologies, "get_topology_desc", unknown)
    with pytest.raises(
        InputError, match=r"--topology=v9:2x2: .*no such\); try v5e:2x2, "
    ):
        compiling.topology_devices("v9:2x2")


@pytest.mark.parametrize("name", GPUS)
def test_gpus_are_described_to_xla(name, monkeypatch):
    asked = {}

    def describe(**options):
        asked.update(options)
        return types.SimpleNamespace(devices=["gpu"] * 8)

    monkeypatch.setattr(topologies, "get_topology_desc", describe)
    assert compiling.topology_devices(f"{name}:8") == ["gpu"] * 8
    assert asked["platform"] == "cuda" and asked["topology"] == "1x1x8"
    chip = CHIPS[GPUS[name].kind]
    target = asked["target_config"]
    assert f'"{GPUS[name].kind}"' in target
    assert f"memory_bandwidth: {chip.bandwidth:.0f}\n" in target
    assert target.count("{") == target.count("}")


@pytest.mark.parametrize("name", ["h100", "h100:0", "h100:x"])
def test_gpus_without_their_number_are_an_error(name):
    with pytest.raises(InputError, match="say how many GPUs, as h100:8"):
        compiling.topology_devices(name)


def test_without_the_plugin_for_cuda_gpus_are_an_error_with_the_remedy(monkeypatch):
    def none(**_):
        raise NotImplementedError("topology not implemented for cuda")

    monkeypatch.setattr(topologies, "get_topology_desc", none)
    with pytest.raises(InputError, match=r"missing or fails \(topology.*; pip install"):
        compiling.topology_devices("h100:8")


def test_a_report_that_cannot_be_written_is_an_error(tmp_path):
    with pytest.raises(InputError, match=r"cannot be written .*choose another --out"):
        compiling.write({}, tmp_path / "missing" / "compile.json")


# --- the verb ---


def compile_verb(tmp_path, *arguments: str):
    """(the finished process, its JSON)."""
    out = tmp_path / "cost.json"
    done = subprocess.run(
        [sys.executable, "main.py", "compile", f"--out={out}", *arguments],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(LIBTPU)},
        capture_output=True,
        text=True,
    )
    found = json.loads(out.read_text()) if out.exists() else None
    return done, found


def test_the_verb_reports_on_the_devices_here(tmp_path):
    done, found = compile_verb(tmp_path, "--config=configs/smoke.py:at")
    assert done.returncode == 0, done.stderr
    assert "memory: in all" in done.stdout and "wrote" in done.stdout
    assert found["flops"] > 0 and found["topology"] == ""


def test_the_verb_without_a_config_says_what_is_missing(tmp_path):
    done, found = compile_verb(tmp_path)
    assert done.returncode == 2 and found is None
    assert done.stderr.startswith("error: compile: --config missing")


@pytest.mark.slow
@pytest.mark.skipif(
    importlib.util.find_spec("libtpu") is None and not LIBTPU.is_dir(),
    reason="libtpu is not installed: requirements/tpu.txt",
)
def test_the_step_compiles_for_a_tpu_slice_and_fits(tmp_path):
    done, found = compile_verb(
        tmp_path,
        "--config=configs/smoke.py:at",
        "--config.precision=bfloat16",
        "--topology=v5e:2x2",
        "--batch_per_device=2",
    )
    assert done.returncode == 0, done.stderr
    assert (found["devices"], found["device_kind"]) == (4, "TPU v5 lite")
    assert 0 < found["memory"] < found["chip"]["memory"]
    assert found["collectives"]["all-reduce"][0] > 0
    assert found["cycles"] > 0
    assert found["prediction"]["bound_by"] in ("compute", "hbm", "network")
