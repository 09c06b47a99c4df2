"""The training loop: exact resume, stopping, damaged checkpoints, clear errors."""

import contextlib
import dataclasses
import functools
import json
import os
import signal
from unittest import mock

import jax
import numpy as np
import pytest

from configs import smoke
from input_pipeline.clip import InputError
from input_pipeline.training_data import loader, synthetic
from jax_atvg.sharding import data_mesh
from jax_atvg.training import config as configuration
from jax_atvg.training import loop as training
from jax_atvg.training.checkpoint import Checkpoints
from jax_atvg.training.train_step import batch_shapes
from jax_atvg.training.workdir import open_workdir


@functools.cache
def clips():
    return synthetic.SyntheticClips(6, 20)


def experiment(network: str, **changes):
    config = smoke.get_config(network)
    config.data.num_coefficients = 3
    for name, value in changes.items():
        setattr(config, name, value)
    return config


@functools.cache
def pca(num_coefficients: int):
    return clips().pca(num_coefficients)


BUILT, BUILD = {}, training.build


def build_once(config, mesh, pca):
    """training.build; configs that differ in nothing it reads share their programs."""
    rest = dict(seed=0, init="", keep=1, report_to=(), report_every=1, image_every=1)
    rest |= dict(save_every=1, validate_every=1)
    if config.optimizer.schedule == "constant":
        rest |= dict(steps=1)
    key = str(dataclasses.replace(config, **rest)), mesh
    if key not in BUILT:
        BUILT[key] = BUILD(config, mesh, pca)
    return BUILT[key]


def batches_of(config):
    return loader.training_batches(
        clips(),
        "at" if config.network == "at" else "vg",
        batch_size=config.batch_size,
        seed=config.seed,
        pca=pca(config.data.num_coefficients),
        num_frames=config.data.num_frames,
        augment=config.data.augment,
        num_threads=2,
    )


def run(config, workdir, mesh=None, batches=None, **options):
    batches = batches or batches_of(config)
    once = mock.patch.object(training, "build", build_once)
    with contextlib.closing(batches), once:
        return training.training_loop(
            config,
            workdir,
            batches,
            pca=pca(config.data.num_coefficients),
            mesh=mesh or data_mesh(jax.devices()[:1]),
            **options,
        )


class Meddled:
    """Batches of which one, counted from 1, goes through a function."""

    def __init__(self, config, which, meddle):
        self.batches, self.left, self.meddle = batches_of(config), which, meddle

    def __getattr__(self, name):
        return getattr(self.batches, name)

    def __next__(self):
        self.left -= 1
        batch = next(self.batches)
        return batch if self.left else self.meddle(batch)


def assert_bit_for_bit(a, b):
    jax.tree.map(np.testing.assert_array_equal, a, b)


def lines(workdir):
    text = (workdir / "metrics.jsonl").read_text()
    return [json.loads(line) for line in text.splitlines()]


@pytest.mark.parametrize(
    ("network", "gain"), [("at", 0.0), ("vg", 0.0), ("vg", 0.1), ("at", 0.1)]
)
def test_a_batch_has_the_shapes_the_step_is_built_for(network, gain):
    config = experiment(network)
    config.data.augment.gain = gain
    batches = batches_of(config)
    with contextlib.closing(batches):
        real = next(batches)
    shapes = batch_shapes(config, config.batch_size)
    assert jax.tree.structure(real) == jax.tree.structure(shapes)
    for x, y in zip(jax.tree.leaves(real), jax.tree.leaves(shapes), strict=True):
        assert (x.shape, x.dtype) == (y.shape, y.dtype)


@pytest.mark.parametrize("network", ["at", "vg"])
def test_six_steps_equal_three_plus_restore_plus_three_bit_for_bit(network, tmp_path):
    config = functools.partial(experiment, network)
    whole = run(config(steps=6), tmp_path / "whole")
    run(config(steps=3), tmp_path / "parts")
    parts = run(config(steps=6), tmp_path / "parts")
    assert parts.step == 6
    assert_bit_for_bit(parts, whole)


def test_finished_run_started_again_changes_nothing(tmp_path):
    first = run(experiment("at"), tmp_path)
    assert_bit_for_bit(run(experiment("at"), tmp_path), first)


def test_a_second_ctrl_c_stops_at_once(tmp_path, request):
    """The first one is answered at the end of its step; the second is not waited for.
    Afterwards Ctrl-C has its usual meaning again."""
    before = signal.default_int_handler  # a script's background job ignores the signal
    theirs = signal.signal(signal.SIGINT, before)
    request.addfinalizer(lambda: signal.signal(signal.SIGINT, theirs))

    def interrupt(batch):
        signal.raise_signal(signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
        raise KeyboardInterrupt

    config = experiment("at", steps=12, save_every=100)
    with pytest.raises(KeyboardInterrupt):
        run(config, tmp_path, batches=Meddled(config, 4, interrupt))
    assert signal.getsignal(signal.SIGINT) == before
    assert list((tmp_path / "checkpoints").iterdir()) == []


def test_sigterm_saves_and_the_next_start_goes_on(tmp_path):
    """The signal comes while batch 4 is made."""
    config = experiment("at", steps=12, save_every=100)

    def interrupt(batch):
        os.kill(os.getpid(), signal.SIGTERM)
        return batch

    handler = signal.getsignal(signal.SIGTERM)
    stopped = run(config, tmp_path / "stopped", batches=Meddled(config, 4, interrupt))
    assert signal.getsignal(signal.SIGTERM) == handler
    assert stopped.step == 4
    resumed = run(config, tmp_path / "stopped")
    assert_bit_for_bit(resumed, run(config, tmp_path / "whole"))


def test_a_checkpoint_of_other_networks_is_refused_and_kept(tmp_path):
    """Not the config is another, but the program."""
    run(experiment("at", steps=3), tmp_path)
    other = experiment("at", steps=3)
    other.at_net.lstm_width += 1
    (tmp_path / "config.json").write_text(json.dumps(configuration.flatten(other)))
    with pytest.raises(
        InputError, match=r"checkpoints/3: of other networks .* there, "
    ):
        run(other, tmp_path)
    (tmp_path / "config.json").unlink()
    assert run(experiment("at", steps=3), tmp_path).step == 3


@pytest.mark.parametrize("restarted", [False, True])
def test_newest_and_best_checkpoints_are_kept(tmp_path, restarted):
    """Validation losses 3, 1, 2, 4, 5 at steps 1 to 5: the best is step 2; step 6 has
    none.  A run started anew before every save still knows its best."""
    config = experiment("at", steps=1)
    state = run(config, tmp_path / "state")
    checkpoints = Checkpoints(open_workdir(tmp_path), keep=2)
    for step, loss in enumerate([3.0, 1.0, 2.0, 4.0, 5.0, None], 1):
        if restarted:
            checkpoints.close()
            checkpoints = Checkpoints(open_workdir(tmp_path), keep=2)
        metrics = {"validation/loss": loss} if loss else {}
        checkpoints.save(step, state, {"next_batch": step}, metrics)
    checkpoints.close()
    kept = {p.name for p in (tmp_path / "checkpoints").iterdir()}
    assert kept == {"2", "5", "6"}


def test_workdir_of_another_config_is_an_error_that_names_the_fields(tmp_path):
    run(experiment("at", steps=1), tmp_path)
    other = experiment("at", steps=1, seed=7)
    other.optimizer.learning_rate = 1e-3
    with pytest.raises(InputError) as error:
        run(other, tmp_path)
    assert "optimizer.learning_rate=0.0002 (now 0.001), seed=0 (now 7)" in str(
        error.value
    )
    run(experiment("at", steps=1, report_every=1, keep=9), tmp_path)


def test_steps_may_grow_unless_the_schedule_knows_them(tmp_path):
    cosine = experiment("at", steps=1)
    cosine.optimizer.schedule = "cosine"
    run(cosine, tmp_path)
    longer = dataclasses.replace(cosine, steps=2)
    with pytest.raises(InputError, match=r"steps=1 \(now 2\)"):
        run(longer, tmp_path)


def test_unusable_workdir_is_an_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"cannot be used .* choose another --workdir"):
        run(experiment("at"), tmp_path / "file" / "run")


def test_loss_that_is_not_finite_names_step_and_term_and_saves_nothing(tmp_path):
    config = experiment("at", steps=9, save_every=2, report_every=9)

    def poison(batch):
        return batch._replace(audio=batch.audio * np.nan)

    with pytest.raises(
        InputError, match=r"at/loss is nan at step 5; .* another --workdir"
    ):
        run(config, tmp_path, batches=Meddled(config, 5, poison))
    assert {p.name for p in (tmp_path / "checkpoints").iterdir()} == {"2", "4"}


@pytest.mark.filterwarnings("ignore:overflow")
def test_an_update_that_is_not_finite_is_not_saved(tmp_path):
    """The loss of the step before it is finite."""
    config = experiment("at", steps=3, save_every=1)
    config.optimizer.learning_rate = 1e39  # float32 ends at 3e38
    with pytest.raises(
        InputError, match=r"^net/params/.* is not finite after step 1; lower the learn"
    ):
        run(config, tmp_path)
    assert list((tmp_path / "checkpoints").iterdir()) == []


def test_the_validation_is_told_what_the_step_is_told(tmp_path, monkeypatch):
    """Else scores of two deterministic runs on a GPU could differ."""
    config, told = experiment("at", steps=1), {"xla_gpu_no_such_option": True}
    monkeypatch.setattr(training, "compiler_options", lambda *_: told)

    def validation():
        return loader.evaluation_batches(
            clips(), batch_size=1, pca=pca(3), frames=False, num_threads=1, limit=1
        )

    with pytest.raises(Exception, match="No such compile option"):
        run(config, tmp_path, validation=validation)


def test_full_disk_is_an_error_and_older_checkpoints_stay(tmp_path, monkeypatch):
    config = experiment("at", steps=4, save_every=2, keep=5)
    run(dataclasses.replace(config, steps=2), tmp_path)

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("orbax.checkpoint.CheckpointManager.save", full)
    with pytest.raises(InputError, match=r"could not be written .*No space left.*make"):
        run(config, tmp_path)
    monkeypatch.undo()
    assert run(config, tmp_path).step == 4


def test_a_record_that_cannot_be_read_is_named(tmp_path):
    config = experiment("vg", steps=2)
    broken = synthetic.SyntheticClips(6, 20)
    for i in range(6):
        frames = [b"no picture"] * 20
        broken._kept[i] = clips()[i]._replace(frames=frames)
    batches = loader.training_batches(
        broken, "vg", batch_size=2, seed=0, num_frames=4, num_threads=1
    )
    with pytest.raises(InputError, match=r"cartoon\d/\d+: frame \d+ is no whole JPEG"):
        run(config, tmp_path, batches=batches)


def test_what_a_run_writes(tmp_path):
    """Curves, pictures, and the validation loss that decides what is best."""
    config = experiment("vg", steps=6, report_every=2, image_every=3, validate_every=6)

    def validation():
        return loader.evaluation_batches(clips(), batch_size=1, num_threads=1, limit=2)

    run(config, tmp_path, validation=validation, profile=(1, 2))
    written = lines(tmp_path)
    assert [line["step"] for line in written] == [2, 4, 6, 6]
    pace = {"pace/clips_per_second", "pace/waiting_for_data"}
    assert {"vg/pixel", "disc/loss"} | pace <= set(written[0])
    assert all(0 <= line["pace/waiting_for_data"] <= 1 for line in written[:3])
    assert 0 < written[-1]["validation/loss"] < 2
    assert list((tmp_path / "events").iterdir())
    assert list((tmp_path / "profile").rglob("*.xplane.pb"))


@pytest.mark.parametrize(("network", "devices"), [("at", 8), ("vg", 2)])
def test_several_devices_give_the_numbers_of_one(network, devices, tmp_path):
    """BatchNorm sees the global batch, gradients are averaged over it."""
    config = experiment(network, steps=2, batch_size=devices, report_every=1)
    for name, count in (("one", 1), ("several", devices)):
        mesh = data_mesh(jax.devices()[:count])
        run(config, tmp_path / name, mesh=mesh)
    one, several = (lines(tmp_path / name) for name in ("one", "several"))
    for a, b in zip(one, several, strict=True):
        for name in set(a) - {"time"} - {n for n in a if n.startswith("pace")}:
            np.testing.assert_allclose(b[name], a[name], rtol=2e-4, err_msg=name)


@pytest.mark.parametrize("shard", [False, True])
def test_a_run_goes_on_with_other_devices_and_ends_the_same(shard, tmp_path):
    """One device, then eight, then two; also with a split optimiser's state."""
    moved, stayed = tmp_path / "moved", tmp_path / "stayed"
    for steps, devices in ((2, 1), (4, 8), (6, 2)):
        config = experiment("at", steps=steps, batch_size=8, report_every=1)
        config.optimizer.shard = shard
        run(config, moved, mesh=data_mesh(jax.devices()[:devices]))
    config.optimizer.shard = False
    run(config, stayed)
    for a, b in zip(lines(moved), lines(stayed), strict=True):
        assert a["step"] == b["step"]
        np.testing.assert_allclose(a["at/loss"], b["at/loss"], rtol=2e-4)


def test_batch_that_does_not_divide_names_sizes_that_work(tmp_path):
    config = experiment("at", batch_size=6)
    with pytest.raises(
        InputError, match=r"batch_size=6 must divide by 4 devices; try 4 o"
    ):
        run(config, tmp_path, mesh=data_mesh(jax.devices()[:4]))
