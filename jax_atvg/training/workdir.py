"""A run's folder: where it may be, whose it is, and what was noted in it.

workdir/config.json, versions.json   the experiment, see config_files.py
workdir/data.json                    which data it is trained on
workdir/pca.npz                      the PCA of its landmarks
"""

import contextlib
import json
import os
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import numpy as np
from etils import epath

from input_pipeline.clip import InputError, Pca
from input_pipeline.faces.align import Template, indices_of
from input_pipeline.faces.landmarks import checked_pca
from input_pipeline.files import in_store, locked, replacing
from input_pipeline.training_data.fingerprint import CLIPS, TEMPLATE, check_same
from jax_atvg.training.checkpoint import saved_steps
from jax_atvg.training.config import Experiment, differences, flatten
from jax_atvg.training.config_files import read_config, write_config
from jax_atvg.training.optim import fixed_until

DATA = "data.json"
# Fields that may change when a run is resumed: none of them changes its state.
FREE = (
    "report_every",
    "image_every",
    "save_every",
    "validate_every",
    "keep",
    "report_to",
    "data.num_threads",
    "data.num_workers",
    "data.validation_clips",
    "optimizer.shard",
    "vg_net.closes_eyes",
)


def open_workdir(path: str | os.PathLike) -> epath.Path:
    """A folder here, or in a store that etils and orbax reach, as gs://bucket/run.

    InputError: a store that cannot be reached.
    """
    if not in_store(path):
        return epath.Path(path).expanduser().absolute()
    path = epath.Path(path)
    try:
        path.exists()
    except Exception as error:  # each store's client raises its own
        raise InputError(
            f"{path}: cannot be reached ({error}); for gs:// install gcsfs and log in "
            "(gcloud auth application-default login), or give a folder here"
        ) from error
    return path


@contextlib.contextmanager
def claim_workdir(
    workdir: epath.Path, experiment: Experiment, data: Mapping[str, Any] | None = None
) -> Iterator[Experiment]:
    """Makes the folder, keeps other runs out of it, and notes the experiment of a new
    run and its data in it, in the first process.

    data: see fingerprint.py.  Yields the experiment that is noted there: where a
    run goes on, the one before, which may differ in free fields and stays until
    note_experiment.
    InputError: another run uses it; it holds another experiment (the fields are named),
    or one that was trained on other data; it cannot be made.
    """
    with contextlib.ExitStack() as stack:
        yield _claim(workdir, experiment, data, stack)


def _claim(workdir, experiment, data, stack: contextlib.ExitStack) -> Experiment:
    first, noted = jax.process_index() == 0, experiment
    with usable(workdir):
        workdir.mkdir(parents=True, exist_ok=True)
        if first and not in_store(workdir):  # a store has no locks
            folder = pathlib.Path(workdir)
            stack.enter_context(locked(folder, "training in it", "--workdir"))
        if (workdir / "config.json").exists():
            noted = check_same_run(workdir, experiment)
        check_same_data(workdir, data)
        if first:
            if noted is experiment:
                write_config(workdir, experiment)
            if data is not None and not (workdir / DATA).exists():
                with replacing(workdir / DATA) as partial:
                    partial.write_text(json.dumps(data, indent=1) + "\n")
    return noted


def note_experiment(workdir: epath.Path, experiment: Experiment) -> None:
    """Notes the experiment as which a run goes on, in the first process.  InputError:
    it cannot be written."""
    if jax.process_index() == 0:
        with usable(workdir):
            write_config(workdir, experiment)


@contextlib.contextmanager
def usable(workdir: epath.Path) -> Iterator[None]:
    """Turns the errors of a folder that cannot be read or written into an
    InputError."""
    try:
        yield
    except OSError as error:
        raise InputError(
            f"{workdir}: cannot be used ({error}); choose another --workdir"
        ) from error


def check_same_data(workdir: epath.Path, data: Mapping[str, Any] | None) -> None:
    """InputError: the run there was trained on other data."""
    before = read_data(workdir)
    if before is not None and data is not None:
        remedy = "give the --data_dir that it was begun with, or another --workdir"
        check_same(before, data, f"{workdir}: the run there was", remedy)


def read_data(workdir: epath.Path) -> dict[str, Any] | None:
    """The fingerprint of a run's data; None for a run of an earlier version, or on
    drawn clips.  InputError: damaged."""
    path = workdir / DATA
    if not path.is_file():
        return None
    try:
        found = json.loads(path.read_text())
        data = {name: dict(found[name]) for name in (CLIPS, TEMPLATE)}
        template_of(data)
        return data
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{path}: damaged ({error}); remove it, if the data are those that the run "
            "was begun with"
        ) from error


def template_of(data: Mapping[str, Any]) -> Template:
    """The template to which the faces of a run's data are aligned.  ValueError,
    KeyError, TypeError: damaged."""
    indices = indices_of(data[TEMPLATE]["indices"])
    points = np.array(data[TEMPLATE]["points"], np.float64)
    return Template(points.reshape(len(indices), 2), indices)


def check_same_run(workdir: epath.Path, experiment: Experiment) -> Experiment:
    """The experiment of the run there.  InputError unless it may go on as this one.

    Its number of steps may change as long as no learning rate that was used depends on
    it: a constant one always, "wsd" before its fall.
    """
    before = read_config(workdir)
    old, new = (
        {k: v for k, v in flatten(x).items() if k not in FREE}
        for x in (before, experiment)
    )
    remedy = "take the old values, or another --workdir"
    if not saved_steps(workdir):
        remedy = "it has saved nothing yet: remove it, or take another --workdir"
    if old["steps"] != new["steps"]:
        optimizer = experiment.optimizer
        fixed = min(fixed_until(optimizer, x["steps"]) for x in (old, new))
        done = max(saved_steps(workdir), default=0)
        if done <= fixed:
            new["steps"] = old["steps"]
        else:
            remedy += (
                f".  (The number of steps can be changed until step {fixed}, from "
                f"which on the learning rate of optimizer.schedule="
                f"{optimizer.schedule} depends on it; step {done} is saved)"
            )
    if changed := differences(old, new):
        raise InputError(
            f"{workdir}: holds a run of another config: {', '.join(changed)}; {remedy}"
        )
    return before


def keep_pca(path: epath.Path, pca: Pca, *, same: bool) -> None:
    """Writes the PCA beside the run, in the first process: `export` needs it to read
    the coefficients.

    same: whether a run that goes on needs the one it was begun with.  InputError: it is
    another one.
    """
    if same and path.is_file():
        before = read_pca(path.parent)
        if before.components.shape != pca.components.shape or not all(
            map(np.allclose, before, pca)
        ):
            raise InputError(
                f"{path.parent}: the run there was begun with another PCA of the "
                "landmarks, which all videos in a --data_dir decide; give those it was "
                "begun with, or another --workdir"
            )
    if jax.process_index() == 0:
        save_pca(path, pca)


def save_pca(path: epath.Path, pca: Pca) -> None:
    """InputError: it cannot be written."""
    try:
        with replacing(path) as unfinished, unfinished.open("wb") as file:
            np.savez(file, **pca._asdict())
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error}); make room") from error


def read_pca(workdir: epath.Path) -> Pca | None:
    path = workdir / "pca.npz"
    if not path.exists():
        return None
    try:
        with path.open("rb") as file, np.load(file) as arrays:
            pca = checked_pca(arrays["mean"], arrays["components"])
            return Pca(*(x.astype(np.float32) for x in pca))
    except Exception as error:  # numpy and zipfile raise many kinds
        raise InputError(
            f"{path}: damaged ({error}); copy pca.npz of the dataset there"
        ) from error
