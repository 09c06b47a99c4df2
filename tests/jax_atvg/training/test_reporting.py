"""What a run tells arrives, whole, where the config and the caller want it."""

import functools
import json
import pathlib
import sys
import time

import fsspec
import numpy as np
import pytest
from etils import epath
from fsspec.implementations.memory import MemoryFileSystem

from input_pipeline.clip import InputError
from jax_atvg.training import config as configuration
from jax_atvg.training.config import Experiment, validate
from jax_atvg.training.reporting import (
    REPORTERS,
    JsonLines,
    Reporter,
    Reporters,
    TensorBoard,
    WandB,
    check_installed,
    open_reporters,
)
from tests.jax_atvg.training.report_files import (
    events,
    exit_codes,
    logged,
    offline_runs,
)

PICTURE = np.arange(4 * 6 * 3, dtype=np.uint8).reshape(4, 6, 3)
CONFIG = {"seed": 7, "at_net.audio_widths": (4, 8)}


class Kept:
    """A reporter of the caller's own: keeps what it is told."""

    def __init__(self):
        self.told = []

    def scalars(self, step, values):
        self.told.append(("scalars", step, dict(values)))

    def picture(self, step, name, picture):
        self.told.append(("picture", step, name, picture.shape))

    def publish(self):
        self.told.append(("publish",))

    def close(self):
        self.told.append(("close",))


@pytest.fixture
def workdir(tmp_path):
    folder = epath.Path(tmp_path / "my_run")
    folder.mkdir()
    return folder


def starts():
    """(steps done, next step) of two starts of a run, in two seconds: files are named
    by them."""
    yield 0, 1
    time.sleep(1.01 - time.time() % 1)
    yield 1, 2


# --- metrics.jsonl ---


def test_lines_of_a_second_start_follow_those_of_the_first(workdir):
    for done in (0, 5):
        lines = JsonLines(workdir, done, CONFIG)
        lines.scalars(done + 5, {"vg/loss": 0.5, "pace/steps_per_second": 2.0})
        lines.picture(done + 5, "generated", PICTURE)
        lines.close()
    text = (workdir / "metrics.jsonl").read_text()
    read = [json.loads(line) for line in text.splitlines()]
    assert [line.pop("time") > 0 for line in read] == [True, True]
    values = {"vg/loss": 0.5, "pace/steps_per_second": 2.0}
    assert read == [{"step": 5, **values}, {"step": 10, **values}]


def test_a_step_that_is_done_again_is_told_of_once(workdir):
    """Lines that cannot be read are left, and the next one is a line of its own."""
    path = workdir / "metrics.jsonl"
    lines = [json.dumps({"step": step, "vg/loss": 1.0}) for step in (2, 4, 4, 6)]
    path.write_text("\n".join([*lines, '{"step": 8, "vg/l']))
    reporter = JsonLines(workdir, 4, CONFIG)
    reporter.scalars(6, {"vg/loss": 0.5})
    reporter.close()
    *kept, new = path.read_text().splitlines()
    assert kept == [*lines[:3], '{"step": 8, "vg/l']
    assert json.loads(new)["vg/loss"] == 0.5


def test_a_line_is_on_disk_at_once(workdir):
    lines = JsonLines(workdir, 0, CONFIG)
    lines.scalars(1, {"vg/loss": 0.5})
    assert json.loads((workdir / "metrics.jsonl").read_text())["vg/loss"] == 0.5
    lines.close()


# --- TensorBoard ---


def test_tensorboard_has_curves_and_pictures(workdir):
    import cv2

    board = TensorBoard(workdir, 0, CONFIG)
    board.scalars(3, {"vg/loss": 0.5, "disc/loss": 0.25})
    board.picture(3, "generated", PICTURE)
    board.close()
    found = {
        value.tag: (event.step, value)
        for event in events(workdir)
        for value in event.summary.value
    }
    assert set(found) == {"vg/loss", "disc/loss", "generated"}
    assert {step for step, _ in found.values()} == {3}
    assert found["vg/loss"][1].simple_value == 0.5
    png = np.frombuffer(found["generated"][1].image.encoded_image_string, np.uint8)
    np.testing.assert_array_equal(cv2.imdecode(png, 1)[..., ::-1], PICTURE)


def test_tensorboard_hides_what_is_done_again(workdir):
    """Stopped after step 6, going on from the checkpoint of step 4."""
    told = {0: (2, 4, 6), 1: (6, 8)}
    for (start, _), done in zip(starts(), (0, 4), strict=True):
        board = TensorBoard(workdir, done, CONFIG)
        for step in told[start]:
            board.scalars(step, {"vg/loss": float(step)})
        board.close()
    shown = []
    for event in events(workdir):
        if event.HasField("session_log"):  # TensorBoard's rule
            assert event.session_log.status == event.session_log.START
            shown = [step for step in shown if step < event.step]
        shown += [event.step for _ in event.summary.value]
    assert shown == [2, 4, 6, 8]


# --- Weights & Biases ---


@pytest.fixture
def offline(monkeypatch):
    """Nothing is sent, whatever the machine's own settings are."""
    pytest.importorskip("wandb")
    for name in ("WANDB_PROJECT", "WANDB_DIR", "WANDB_RUN_ID", "WANDB_NAME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    monkeypatch.setenv("WANDB_CONSOLE", "off")


def test_weights_and_biases_has_it_all_and_a_run_goes_on(offline, workdir):
    for done, step in starts():
        board = WandB(workdir, done, CONFIG)
        board.scalars(step, {"vg/loss": 0.5})
        board.picture(step, "generated", PICTURE)
        board.publish()
        board.close()
    first, second = map(list, offline_runs(workdir))
    (about,) = (record.run for record in first if record.HasField("run"))
    assert (about.project, about.display_name) == ("jax_atvg", "my_run")
    assert about.run_id == (workdir / "wandb_id.txt").read_text()
    config = {one.key: json.loads(one.value_json) for one in about.config.update}
    assert config["seed"] == 7
    assert config["at_net.audio_widths"] == [4, 8]
    numbers, picture = logged(first)
    assert numbers == {"step": 1, "vg/loss": 0.5}
    assert picture["step"] == 1
    assert (picture["generated/width"], picture["generated/height"]) == (6, 4)
    assert logged(second)[0] == {"step": 2, "vg/loss": 0.5}
    (again,) = (record.run for record in second if record.HasField("run"))
    assert again.run_id == about.run_id
    assert exit_codes(first, second) == [0, 0]


def test_the_x_axis_is_our_step(offline, workdir):
    """wandb's own count would refuse steps that are told again."""
    with open_reporters(["wandb"], workdir, 0, CONFIG) as reporter:
        for step in (2, 4, 3):
            reporter.scalars(step, {"vg/loss": float(step)})
    (records,) = offline_runs(workdir)
    assert [line["step"] for line in logged(records)] == [2, 4, 3]
    metrics = [record.metric for record in records if record.HasField("metric")]
    assert [one.step_metric for one in metrics if one.glob_name == "*"] == ["step"]


def test_a_run_that_fails_is_marked_as_failed_beside_one_of_the_callers_own(
    offline, workdir, tmp_path
):
    import wandb

    with wandb.init(dir=str(tmp_path), project="own") as own:
        second = starts()
        next(second)
        try:
            with open_reporters(["wandb"], workdir, 0, {}):
                raise RuntimeError
        except RuntimeError:
            next(second)
            with open_reporters(["wandb"], workdir, 0, {}):
                pass  # where an exception is being handled, but none of its own
        assert wandb.run is own
    assert exit_codes(*offline_runs(workdir)) == [1, 0]


def test_for_a_workdir_in_a_store_the_offline_run_is_here(
    offline, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    for protocol in ("gs", "gcs"):
        fsspec.register_implementation(protocol, MemoryFileSystem, clobber=True)
    store = epath.Path("gs://bucket/my_run")
    store.mkdir(parents=True)
    with open_reporters(["wandb"], store, 0, CONFIG) as reporter:
        reporter.scalars(1, {"vg/loss": 0.5})
    (records,) = offline_runs(tmp_path)
    assert logged(records) == [{"step": 1, "vg/loss": 0.5}]
    (about,) = (record.run for record in records if record.HasField("run"))
    assert about.run_id == (store / "wandb_id.txt").read_text()
    MemoryFileSystem.store.clear()


def test_without_wandb_the_remedy_is_named(workdir, monkeypatch):
    check_installed(["jsonl", "tensorboard"])
    monkeypatch.setitem(sys.modules, "wandb", None)
    check_installed(["jsonl", "tensorboard"])
    with pytest.raises(InputError, match=r"not installed; run `pip install wandb`"):
        check_installed(["jsonl", "wandb"])
    with pytest.raises(InputError, match="pip install wandb"):
        WandB(workdir, 0, CONFIG)


def test_what_wandb_refuses_is_one_error(offline, workdir, monkeypatch):
    import wandb

    def refuse(**_):
        raise wandb.errors.UsageError("No API key configured")

    monkeypatch.setattr(wandb, "init", refuse)
    with pytest.raises(InputError, match=r"No API key .*`wandb login`.*WANDB_MODE"):
        WandB(workdir, 0, CONFIG)


# --- several ---


def test_all_are_told_in_turn_and_closed(workdir):
    own = Kept(), Kept()
    assert isinstance(own[0], Reporter)
    with open_reporters(["jsonl"], workdir, 0, CONFIG, own) as reporter:
        reporter.scalars(1, {"vg/loss": 0.5})
        reporter.picture(1, "generated", PICTURE)
        reporter.publish()
    expected = [
        ("scalars", 1, {"vg/loss": 0.5}),
        ("picture", 1, "generated", (4, 6, 3)),
        ("publish",),
        ("close",),
    ]
    assert own[0].told == own[1].told == expected
    assert json.loads((workdir / "metrics.jsonl").read_text())["vg/loss"] == 0.5


def test_all_are_closed_where_one_cannot_be_opened_or_closed(workdir, monkeypatch):
    class Stuck(Kept):
        def close(self):
            super().close()
            raise OSError("no space")

    def fail(*_):
        raise InputError("cannot be opened")

    own = Kept(), Stuck(), Kept()
    with pytest.raises(OSError, match="no space"):
        Reporters(own).close()
    assert [one.told for one in own] == [[("close",)]] * 3
    last = Kept()
    monkeypatch.setitem(REPORTERS, "wandb", fail)
    with (
        pytest.raises(InputError, match="cannot be opened"),
        open_reporters(["jsonl", "wandb"], workdir, 0, CONFIG, [last]),
    ):
        pass
    assert last.told == [("close",)]


# --- the config ---


def test_the_config_knows_the_reporters_there_are():
    assert set(configuration.REPORTERS) == set(REPORTERS)
    for names in (("jsonl",), tuple(REPORTERS), Experiment().report_to):
        validate(Experiment(report_to=names))


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (
            ("jsonl", "mlflow"),
            r"\('jsonl', 'mlflow'\): choose among jsonl, tensorboard",
        ),
        (("jsonl", "jsonl"), "each once"),
        (("tensorboard",), "must have 'jsonl'"),
        ((), "must have 'jsonl'"),
    ],
)
def test_other_reporters_are_an_error(names, message):
    with pytest.raises(InputError, match=rf"config.report_to=.*{message}"):
        validate(Experiment(report_to=names))


def test_a_word_in_place_of_a_tuple_is_an_error():
    experiment = Experiment()
    experiment.report_to = "jsonl"
    with pytest.raises(InputError, match="'jsonl': choose among jsonl, tensorboard"):
        validate(experiment)


# --- a run ---


@functools.cache
def clips():
    from input_pipeline.training_data import synthetic

    return synthetic.SyntheticClips(4, 16)


def run(workdir: pathlib.Path, *reporters, **changes):
    """A few steps of AT-net."""
    import jax

    from configs import smoke
    from input_pipeline.training_data import loader
    from jax_atvg.sharding import data_mesh
    from jax_atvg.training.loop import training_loop

    config = smoke.get_config("at")
    for name, value in changes.items():
        setattr(config, name, value)
    pca = clips().pca(config.data.num_coefficients)
    options = {"batch_size": config.batch_size, "num_threads": 1, "pca": pca}
    options |= {"num_frames": config.data.num_frames, "seed": 0}
    return training_loop(
        config,
        workdir,
        loader.training_batches(clips(), "at", **options),
        pca=pca,
        reporters=reporters,
        mesh=data_mesh(jax.devices()[:1]),
    )


def test_a_reporter_given_from_python_is_told_of_the_whole_run(tmp_path):
    own = Kept()
    run(tmp_path, own, steps=4, report_every=2, report_to=("jsonl",))
    lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
    written = [json.loads(line) for line in lines]
    told = [told[1:] for told in own.told if told[0] == "scalars"]
    assert told == [(line.pop("step"), line) for line in written if line.pop("time")]
    assert [step for step, _ in told] == [2, 4]
    assert own.told[-2:] == [("publish",), ("close",)]
    assert not (tmp_path / "events").exists()
    assert not (tmp_path / "wandb").exists()


def test_a_run_may_take_other_reporters_when_it_goes_on(tmp_path):
    run(tmp_path, steps=2, report_every=1, report_to=("jsonl",))
    own = Kept()
    run(tmp_path, own, steps=4, report_every=1)
    assert [told[1] for told in own.told if told[0] == "scalars"] == [3, 4]
    starts = [e.step for e in events(tmp_path) if e.HasField("session_log")]
    assert starts == [3]


def test_a_run_without_wandb_ends_before_it_begins(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(InputError, match="pip install wandb"):
        run(tmp_path / "run", report_to=("jsonl", "wandb"))
    assert not (tmp_path / "run").exists()
