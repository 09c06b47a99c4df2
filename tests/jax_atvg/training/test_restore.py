"""Restoring: damage is told from everything else, and nothing is thrown away."""

import json
import shutil

import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest
from etils import epath

from input_pipeline.clip import InputError
from jax_atvg.training import checkpoint
from jax_atvg.training.config_files import read_config
from jax_atvg.training.state import to_stored
from tests.jax_atvg.training.test_loop import assert_bit_for_bit, experiment, run


def files_of(workdir):
    """{path: content} of the checkpoints."""
    folder = workdir / "checkpoints"
    return {p: p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def cut(workdir, step):
    """Halves every file of a checkpoint's state."""
    for path, data in files_of(workdir).items():
        if f"/{step}/state/" in str(path):
            path.write_bytes(data[: len(data) // 2])


def six_steps():
    """The config of a run with checkpoints 3 and 6."""
    return experiment("at", steps=6, save_every=3)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """Such a run's folder, not to be changed, and its state after step 6."""
    workdir = tmp_path_factory.mktemp("undisturbed") / "run"
    return workdir, run(six_steps(), workdir)


@pytest.fixture
def two(undisturbed, tmp_path):
    """A copy of the run, its config, and its state after step 6."""
    workdir, whole = undisturbed
    shutil.copytree(workdir, tmp_path, dirs_exist_ok=True)
    return tmp_path, six_steps(), whole


def test_a_damaged_checkpoint_is_skipped_when_it_is_asked_for(two, capsys):
    workdir, config, whole = two
    cut(workdir, 6)
    before = files_of(workdir)
    with pytest.raises(InputError, match=r"reached step 6, but its newest .* is 3; br"):
        run(config, workdir)
    assert files_of(workdir) == before
    assert "checkpoints/6 is damaged" in capsys.readouterr().err
    again = run(config, workdir, go_back=True)
    assert_bit_for_bit(again, whole)
    assert (workdir / "damaged" / "6" / "state").is_dir()
    assert sorted(p.name for p in (workdir / "checkpoints").iterdir()) == ["3", "6"]
    assert_bit_for_bit(run(config, workdir), whole)  # the new one is whole


@pytest.mark.parametrize(
    "fields", [{"clip_norm": 1.0}, {"accumulate": 2}, {"accumulate": 2, "clip_norm": 1}]
)
def test_every_optimizers_state_is_saved_checked_and_restored(tmp_path, fields):
    """Some have states without arrays among those with."""
    config = experiment("at", steps=6, save_every=3, report_to=("jsonl",))
    for name, value in fields.items():
        setattr(config.optimizer, name, value)
    whole = run(config, tmp_path)
    (step,) = (p for p in (tmp_path / "checkpoints").iterdir() if p.name == "6")
    kept = json.loads((step / "data" / "metadata").read_text())[checkpoint.SUMS]
    assert kept == checkpoint.sums(to_stored(whole))
    raw = ocp.PyTreeCheckpointHandler().restore(step / "state")
    assert kept == checkpoint.sums(raw)
    shutil.rmtree(step)
    (tmp_path / "metrics.jsonl").unlink()
    assert_bit_for_bit(run(config, tmp_path), whole)


def test_all_damaged_is_an_error_and_go_back_starts_anew(two):
    workdir, config, whole = two
    cut(workdir, 3)
    cut(workdir, 6)
    with pytest.raises(InputError, match="reached step 6, but there is no readable"):
        run(config, workdir)
    (workdir / "metrics.jsonl").unlink()
    with pytest.raises(InputError, match=r"reached step 6, .* start .* with --go_back"):
        run(config, workdir)
    assert_bit_for_bit(run(config, workdir, go_back=True), whole)


@pytest.mark.parametrize(
    "error",
    [
        jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 8"),
        OSError(116, "Stale file handle"),
        ValueError("UNAVAILABLE: Error reading gs://b/a: HTTP response 503"),
        ValueError("PERMISSION_DENIED: local file"),
        AttributeError("module 'orbax' has no attribute 'restore'"),
        TypeError("restore() got an unexpected keyword argument"),
    ],
)
def test_whatever_else_stands_in_the_way_changes_nothing(two, error, monkeypatch):
    workdir, config, whole = two
    before = files_of(workdir)

    def fail(*_, **__):
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint.ocp.CheckpointManager, "restore", fail)
        with pytest.raises(InputError, match=r"6: cannot be read .* nothing was chang"):
            run(config, workdir)
        with pytest.raises(InputError, match="cannot be read"):
            run(config, workdir, go_back=True)
    assert files_of(workdir) == before
    assert not (workdir / "damaged").exists()
    assert_bit_for_bit(run(config, workdir), whole)


def test_a_folder_of_arrays_that_is_gone_is_damage(two):
    workdir, config, whole = two
    shutil.rmtree(workdir / "checkpoints" / "6" / "state" / "ocdbt.process_0")
    with pytest.raises(InputError, match=r"reached step 6, but its newest .* is 3; br"):
        run(config, workdir)
    assert_bit_for_bit(run(config, workdir, go_back=True), whole)


def test_a_wrong_byte_in_an_array_is_damage(two):
    """Orbax has no checksum of what it compresses."""
    workdir, _, _ = two
    data = json.loads((workdir / "checkpoints" / "6" / "data" / "metadata").read_text())
    assert len(data[checkpoint.SUMS]) > 10
    tree = {"a": np.arange(6.0), "b": {"c": np.float32(2)}}
    expected = checkpoint.sums(tree)
    checkpoint.check_sums(tree, expected)
    checkpoint.check_sums(tree, {})  # of an earlier version
    tree["a"][2] = np.nextafter(tree["a"][2], 9)
    with pytest.raises(checkpoint.Damaged, match="checksum of a differs"):
        checkpoint.check_sums(tree, expected)


def test_no_changed_byte_is_restored_as_if_it_were_whole(two):
    workdir, config, whole = two
    random = np.random.default_rng(0)
    files = {p: x for p, x in files_of(workdir).items() if "/6/" in str(p) and x}
    for number in range(30):
        path = list(files)[number % len(files)]
        damaged = bytearray(files[path])
        damaged[random.integers(len(damaged))] ^= int(random.integers(1, 256))
        path.write_bytes(bytes(damaged))
        try:
            assert_bit_for_bit(run(config, workdir), whole)
        except InputError as error:
            assert "checkpoint is 3" in str(error) or "cannot be read" in str(error)
        path.write_bytes(files[path])


def test_checkpoints_that_are_gone_are_asked_for(undisturbed, tmp_path):
    """As after a mount that did not come back."""
    (_, whole), workdir, config = undisturbed, tmp_path, six_steps()
    config.save_every, config.report_every = 2, 1
    run(config, workdir)
    (workdir / "checkpoints").rename(workdir / "elsewhere")
    with pytest.raises(InputError, match="reached step 6, but there is no readable"):
        run(config, workdir)
    (workdir / "checkpoints").rmdir()
    (workdir / "elsewhere").rename(workdir / "checkpoints")
    assert_bit_for_bit(run(config, workdir), whole)


def test_a_run_that_saves_more_often_goes_on_where_it_did_not(two):
    """Of save_every=3 and report_every=2, reports may be 8 steps ahead."""
    workdir, config, whole = two
    shutil.rmtree(workdir / "checkpoints")
    config.save_every = config.report_every = 1
    assert_bit_for_bit(run(config, workdir), whole)
    assert read_config(epath.Path(workdir)).save_every == 1


def test_a_start_that_is_refused_leaves_the_config_as_it_was(two):
    workdir, config, whole = two
    cut(workdir, 6)
    before = (workdir / "config.json").read_bytes()
    config.save_every = 1
    with pytest.raises(InputError, match="reached step 6"):
        run(config, workdir)
    assert (workdir / "config.json").read_bytes() == before
    assert_bit_for_bit(run(config, workdir, go_back=True), whole)
    assert (workdir / "config.json").read_bytes() != before


def test_processes_decide_together(monkeypatch, tmp_path):
    """What this process met, and what another one did."""
    monkeypatch.setattr(jax, "process_count", lambda: 2)

    def outcome(mine, others):
        monkeypatch.setattr(
            checkpoint.multihost_utils,
            "process_allgather",
            lambda x: np.array([x[0], others]),
        )

        def read():
            if mine:
                raise mine
            return "found"

        return checkpoint.agree(tmp_path, read)

    damage, reach = FileNotFoundError("gone"), OSError(116, "Stale file handle")
    assert outcome(None, 0) == "found"
    for mine, others in ((damage, 0), (None, 1), (damage, 1)):
        with pytest.raises(checkpoint.Damaged):
            outcome(mine, others)
    for mine, others in ((reach, 0), (None, 2), (damage, 2), (reach, 1)):
        with pytest.raises(InputError, match="cannot be read"):
            outcome(mine, others)
