"""A run's checkpoints: asynchronous, atomic, the newest few and the best.

workdir/checkpoints/1000/    state, data iterator, metrics after step 1000
"""

import logging
import os
import sys
from typing import Any

import jax
import orbax.checkpoint as ocp
from etils import epath
from jax.experimental import multihost_utils
from orbax.checkpoint import checkpoint_managers

from input_pipeline.clip import InputError
from input_pipeline.files import in_store
from jax_atvg.training.config import Experiment, differences, flatten
from jax_atvg.training.config_files import read_config, write_config
from jax_atvg.training.distributed import peer_lost
from jax_atvg.training.optim import fixed_until
from jax_atvg.training.state import from_stored, to_stored

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
)
BEST = "validation/loss"  # the best checkpoint has the least of it


def of_interest(record: logging.LogRecord) -> bool:
    """Whether a log record is shown: not orbax's warning, at every save, that no
    validation came with it."""
    return "tracked_metric" not in record.getMessage()


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


def claim_workdir(workdir: epath.Path, experiment: Experiment) -> None:
    """Makes the folder and notes the experiment in it, in the first process.

    InputError: it holds another experiment (the fields are named), or cannot be made.
    """
    try:
        workdir.mkdir(parents=True, exist_ok=True)
        if (workdir / "config.json").exists():
            check_same_run(workdir, experiment)
        if jax.process_index() == 0:
            write_config(workdir, experiment)
    except OSError as error:
        raise InputError(
            f"{workdir}: cannot be used ({error}); choose another --workdir"
        ) from error


def check_same_run(workdir: epath.Path, experiment: Experiment) -> None:
    """InputError unless the run there may go on as this experiment.

    Its number of steps may change as long as no learning rate that was used depends on
    it: a constant one always, "wsd" before its fall.
    """
    before = read_config(workdir)
    old, new = (
        {k: v for k, v in flatten(x).items() if k not in FREE}
        for x in (before, experiment)
    )
    remedy = "take the old values, or another --workdir"
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


def saved_steps(workdir: epath.Path) -> list[int]:
    """The steps of which there are checkpoints, in order."""
    folder = workdir / "checkpoints"
    return sorted(ocp.utils.checkpoint_steps(folder)) if folder.is_dir() else []


class Checkpoints:
    """Saves checkpoints in the background and restores the newest undamaged one."""

    def __init__(self, workdir: epath.Path, keep: int):
        self.folder, self.keep = workdir / "checkpoints", keep
        logging.getLogger("absl").addFilter(of_interest)
        self.manager = self._open()

    def _open(self) -> ocp.CheckpointManager:
        best = checkpoint_managers.BestN(
            get_metric_fn=lambda metrics: metrics[BEST],
            reverse=True,
            n=1,
            keep_checkpoints_without_metrics=False,
        )
        newest = checkpoint_managers.LatestN(self.keep)
        return ocp.CheckpointManager(
            self.folder,
            options=ocp.CheckpointManagerOptions(
                # Names the best, and has the metrics stored: a restarted run knows it.
                best_fn=lambda metrics: metrics[BEST],
                best_mode="min",
                preservation_policy=checkpoint_managers.AnyPreservationPolicy(
                    [newest, best]
                ),
            ),
        )

    def restore(self, shapes: Any) -> tuple[Any, dict] | None:
        """(state, data iterator's state) of the newest checkpoint, None if there is
        none.  shapes: ShapeDtypeStructs with shardings, as the state is wanted.

        A damaged checkpoint is reported on standard error, moved to workdir/damaged,
        and the one before taken.  InputError: all are damaged; one is whole, but of
        other networks than this state's.
        """
        steps = sorted(self.manager.all_steps(), reverse=True)
        for step in steps:
            try:
                found = self.manager.restore(
                    step,
                    args=ocp.args.Composite(
                        state=ocp.args.StandardRestore(to_stored(shapes)),
                        data=ocp.args.JsonRestore(),
                    ),
                )
                return from_stored(found.state), found.data
            except Exception as error:  # orbax and tensorstore raise many kinds
                if lost := peer_lost(error):
                    raise lost from error
                if other := self._foreign(step, shapes):
                    raise InputError(
                        f"{self.folder / str(step)}: of other networks than this run's "
                        f"({other}); go on with the version that wrote it, or start in "
                        "another --workdir"
                    ) from error
                reason = (str(error).splitlines() or [""])[0][:200]
                print(
                    f"warning: checkpoint {self.folder / str(step)} is damaged "
                    f"({type(error).__name__}: {reason}); taking the one before",
                    file=sys.stderr,
                )
                self._set_aside(step)
        if steps:
            raise InputError(
                f"{self.folder}: all checkpoints are damaged; start in another "
                "--workdir"
            )
        return None

    def _foreign(self, step: int, shapes: Any) -> str:
        """The first array whose shape differs between checkpoint and state, in words;
        "" if there is none, or the checkpoint cannot be read."""
        try:
            handler = ocp.PyTreeCheckpointHandler()
            stored = handler.metadata(self.folder / str(step) / "state").tree
        except Exception:  # damaged there, too
            return ""
        wanted, stored = (
            {
                "/".join(path): leaf.shape
                for path, leaf in ocp.tree.to_flat_dict(x).items()
            }
            for x in (ocp.tree.serialize_tree(to_stored(shapes)), stored)
        )
        for name in sorted(wanted | stored):
            if wanted.get(name) != stored.get(name):
                return f"{name} is {stored.get(name)} there, {wanted.get(name)} here"
        return ""

    def _set_aside(self, step: int) -> None:
        """Moves a damaged checkpoint away, in case that it can still be of use."""
        self.manager.close()
        if jax.process_index() == 0:
            aside = self.folder.parent / "damaged" / str(step)
            aside.parent.mkdir(exist_ok=True)
            aside.rmtree(missing_ok=True)  # of the same step, damaged before
            (self.folder / str(step)).rename(aside)
        if jax.process_count() > 1:
            multihost_utils.sync_global_devices(f"checkpoint {step} set aside")
        self.manager = self._open()

    def save(self, step: int, state: Any, data: dict, metrics: dict) -> None:
        """Returns before all is written.  InputError: the disk is full, this or the
        last time; what was saved before is whole.  PeerLost: see processes.py."""
        if step in self.manager.all_steps():
            return
        try:
            self.manager.save(
                step,
                args=ocp.args.Composite(
                    state=ocp.args.StandardSave(to_stored(state)),
                    data=ocp.args.JsonSave(data),
                ),
                metrics=metrics or None,
            )
        except (OSError, ValueError, RuntimeError) as error:
            raise self._unwritten(error) from error

    def close(self) -> None:
        """Waits until all is written.  InputError: the disk is full."""
        try:
            self.manager.wait_until_finished()
        except (OSError, ValueError, RuntimeError) as error:
            raise self._unwritten(error) from error
        finally:
            self.manager.close()

    def _unwritten(self, error: Exception) -> Exception:
        if lost := peer_lost(error):
            return lost
        reason = (str(error).splitlines() or [""])[0][:200]
        return InputError(
            f"{self.folder}: a checkpoint could not be written ({reason}); make room "
            "and start again, older checkpoints are whole"
        )
