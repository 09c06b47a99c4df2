"""A run's checkpoints: asynchronous, atomic, the newest few and the best.

workdir/checkpoints/1000/    state, data iterator, metrics after step 1000
"""

import json
import logging
import sys
import zlib
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
import orbax.checkpoint as ocp
from etils import epath
from jax.experimental import multihost_utils
from orbax.checkpoint import checkpoint_managers

from input_pipeline.clip import InputError, first_line
from jax_atvg.training.distributed import peer_lost
from jax_atvg.training.pace import DIVERGED
from jax_atvg.training.state import from_stored, to_stored

BEST = "validation/loss"  # the best checkpoint has the least of it


def of_interest(record: logging.LogRecord) -> bool:
    """Whether a log record is shown.  Two warnings of orbax's are not: that a save has
    no validation, and that it removes what a killed run has left half-written."""
    text = record.getMessage()
    return "tracked_metric" not in text and "is not finalized" not in text


def saved_steps(workdir: epath.Path) -> list[int]:
    """The steps of which there are checkpoints, in order."""
    folder = workdir / "checkpoints"
    return sorted(ocp.utils.checkpoint_steps(folder)) if folder.is_dir() else []


class Damaged(Exception):
    """A checkpoint's files are not what was written."""


SUMS = "checksums"  # of the state's arrays, kept with the data iterator's state
# What the errors of damaged files say; others mean that a file cannot be reached, or
# that there is no room for what it holds.
DAMAGE = (
    *("DATA_LOSS", "NOT_FOUND", "OUT_OF_RANGE"),
    *("Error decoding", "Invalid JSON", "checksum", "Truncated"),
)
DAMAGE_TYPES = (FileNotFoundError, UnicodeDecodeError, json.JSONDecodeError)


def is_damage(error: BaseException | None) -> bool:
    """Whether an error, or one that led to it, says that files are damaged: missing,
    cut off, or with other bytes than were written."""
    while error is not None:
        if isinstance(error, DAMAGE_TYPES) or any(w in str(error) for w in DAMAGE):
            return True
        error = error.__cause__ or error.__context__
    return False


def sums(tree: Any) -> dict[str, int]:
    """CRC-32 of every array that this process has whole: orbax keeps none of the
    arrays' bytes."""
    return {name: zlib.crc32(x.tobytes()) for name, x in whole_arrays(tree).items()}


def whole_arrays(tree: Any) -> dict[str, np.ndarray]:
    """Those that every process has whole, by name: all but the parts of an optimiser's
    state that config.optimizer.shard splits."""
    return {
        name: np.asarray(x)
        for name, x in named_leaves(tree).items()
        if not isinstance(x, jax.Array) or x.is_fully_replicated
    }


def check_finite(step: int, state: Any) -> None:
    """InputError: an array of the state after this step is not finite.  Its last update
    can be the cause, which no loss has seen yet."""
    for name, x in whole_arrays(state).items():
        if not np.isfinite(x).all():
            raise InputError(f"{name} is not finite after step {step}; {DIVERGED}")


def named_leaves(tree: Any) -> dict[str, Any]:
    """{"net/opt_state/0/mu/...": leaf}, whatever containers they are in: orbax gives
    dictionaries and lists back for tuples with names and without."""
    return {
        jax.tree_util.keystr(path, simple=True, separator="/"): leaf
        for path, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]
    }


def saved_sums(folder: epath.Path) -> dict[str, int]:
    """The checksums that a checkpoint was saved with; {}: of an earlier version."""
    return json.loads((folder / "data" / "metadata").read_text()).get(SUMS, {})


def check_sums(tree: Any, expected: dict[str, int]) -> None:
    """Damaged: an array has not the bytes that were saved."""
    if not expected:  # of an earlier version
        return
    found = sums(tree)
    for name in found.keys() & expected.keys():
        if found[name] != expected[name]:
            raise Damaged(f"checksum of {name} differs")


def agree(path: Any, read: Callable[[], Any]) -> Any:
    """What read() returns, if it ends well in every process.

    Damaged: in one of them it met damage.  InputError: in one of them it met another
    error, or raised an InputError here.
    """
    result, error = None, None
    try:
        result = read()
    except Exception as met:  # orbax and tensorstore raise many kinds
        if lost := peer_lost(met):
            raise lost from met
        error = met
    code = 0 if error is None else 1 if is_damage(error) else 2
    codes = np.array([code])
    if jax.process_count() > 1:
        codes = multihost_utils.process_allgather(codes)
    if not codes.any():
        return result
    if isinstance(error, InputError):
        raise error
    reason = "in another process"
    if error:
        text = first_line(error)
        reason = f"{type(error).__name__}: {text}"
    if codes.max() == 1:
        raise Damaged(f"checkpoint {path} is damaged ({reason})") from error
    raise InputError(
        f"{path}: cannot be read ({reason}); nothing was changed: start again when the "
        "cause is mended, or remove the folder to use the one before"
    ) from error


class KeepBest(NamedTuple):
    """Of the checkpoints with a validation loss the one of the least stays.

    warm_up: VG-net's first steps, on pixels alone.  Their pixel loss is lower than that
    of all later ones, since they are blurred: they rank after those, as for `export`.
    """

    warm_up: int = 0

    def should_preserve(
        self, checkpoints: Sequence[Any], *, context: Any
    ) -> list[bool]:
        """What orbax asks; checkpoints: PolicyCheckpointInfo."""
        scored = [one for one in checkpoints if one.metrics]
        best = min(scored, key=self._rank, default=None)
        return [one is best for one in checkpoints]

    def _rank(self, one: Any) -> tuple:
        return one.step <= self.warm_up, one.metrics[BEST], -one.step


class Checkpoints:
    """Saves checkpoints in the background and restores the newest undamaged one."""

    def __init__(
        self,
        workdir: epath.Path,
        keep: int,
        save_every: int = 1,
        report_every: int = 1,
        *,
        warm_up: int = 0,
    ):
        """keep: how many of the newest stay, beside the best one, see KeepBest.
        save_every, report_every: of the run that has saved them."""
        self.folder, self.keep, self.warm_up = workdir / "checkpoints", keep, warm_up
        self.save_every, self.report_every = save_every, report_every
        logging.getLogger("absl").addFilter(of_interest)
        self.manager = self._open()

    def _open(self) -> ocp.CheckpointManager:
        newest = checkpoint_managers.LatestN(self.keep)
        return ocp.CheckpointManager(
            self.folder,
            options=ocp.CheckpointManagerOptions(
                # Names the best, and has the metrics stored: a restarted run knows it.
                best_fn=lambda metrics: metrics[BEST],
                best_mode="min",
                preservation_policy=checkpoint_managers.AnyPreservationPolicy(
                    [newest, KeepBest(self.warm_up)]
                ),
            ),
        )

    def restore(
        self, shapes: Any, reached: int = 0, *, go_back: bool = False
    ) -> tuple[Any, dict] | None:
        """(state, data iterator's state) of the newest readable checkpoint, None if
        there is none.

        shapes: ShapeDtypeStructs with shardings, as the state is wanted.  reached: the
        last step that the run has told of; a damaged checkpoint tells of its step.
        go_back: start from an earlier one all the
        same; checkpoints that are damaged are moved to workdir/damaged then.
        A checkpoint is damaged if its files show it (is_damage).  Whatever else stands
        in the way of reading ends the run, and nothing is moved.  Several processes
        decide together.
        InputError: the newest readable checkpoint is older than what was reached; one
        is of other networks than this state's, or cannot be read.
        """
        damaged, found = [], None
        for step in sorted(self.manager.all_steps(), reverse=True):
            try:
                found = self._read(step, shapes)
            except Damaged as error:
                print(f"warning: {error}; taking the one before", file=sys.stderr)
                damaged.append(step)
                reached = max(reached, step)
            else:
                break
        good = int(found[0].step) if found else 0
        far = 0 if damaged else 2 * self.save_every + self.report_every
        if reached > good + far and not go_back:
            newest = f"its newest readable checkpoint is {good}"
            raise InputError(
                f"{self.folder}: the run has reached step {reached}, but "
                f"{newest if good else 'there is no readable checkpoint'}; bring the "
                "newer ones back, or start from there with --go_back"
            )
        if go_back and damaged:
            self._set_aside(damaged)
        return found

    def _read(self, step: int, shapes: Any) -> tuple[Any, dict]:
        """A checkpoint.  Damaged; InputError: it is whole, but cannot be read."""
        path = self.folder / str(step)
        if jax.process_count() > 1:
            # Orbax waits for all processes: each first reads for itself, so that none
            # waits for one that cannot.
            agree(path, lambda: self._read_here(step, shapes))
            return self._restored(step, shapes)
        return agree(path, lambda: self._restored(step, shapes))

    def _restored(self, step: int, shapes: Any) -> tuple[Any, dict]:
        self._check_networks(step, shapes)
        found = self.manager.restore(
            step,
            args=ocp.args.Composite(
                state=ocp.args.StandardRestore(to_stored(shapes)),
                data=ocp.args.JsonRestore(),
            ),
        )
        data = dict(found.data)
        check_sums(found.state, data.pop(SUMS, {}))
        return from_stored(found.state), data

    def _read_here(self, step: int, shapes: Any) -> None:
        """Reads all of a checkpoint, without the other processes."""
        self._check_networks(step, shapes)
        path = self.folder / str(step)
        state = ocp.PyTreeCheckpointHandler().restore(path / "state")
        check_sums(state, saved_sums(path))

    def _check_networks(self, step: int, shapes: Any) -> None:
        """InputError: the checkpoint is of other networks."""
        stored = ocp.PyTreeCheckpointHandler().metadata(
            self.folder / str(step) / "state"
        )
        wanted, stored = (
            {name: leaf.shape for name, leaf in named_leaves(x).items()}
            for x in (to_stored(shapes), stored.tree)
        )
        for name in sorted(wanted | stored):
            if wanted.get(name) != stored.get(name):
                raise InputError(
                    f"{self.folder / str(step)}: of other networks than this run's "
                    f"({name} is {stored.get(name)} there, {wanted.get(name)} here); "
                    "go on with the version that wrote it, or start in another "
                    "--workdir"
                )

    def _set_aside(self, steps: list[int]) -> None:
        """Moves damaged checkpoints away, in case that they can still be of use."""
        self.manager.close()
        if jax.process_index() == 0:
            for step in steps:
                aside = self.folder.parent / "damaged" / str(step)
                aside.parent.mkdir(exist_ok=True)
                aside.rmtree(missing_ok=True)  # of the same step, damaged before
                (self.folder / str(step)).rename(aside)
        if jax.process_count() > 1:
            multihost_utils.sync_global_devices("damaged checkpoints set aside")
        self.manager = self._open()

    def save(self, step: int, state: Any, data: dict, metrics: dict) -> None:
        """Returns before all is written.  InputError: the state is not finite; the disk
        is full, this or the last time; what was saved before is whole.  PeerLost: see
        distributed.py."""
        if step in self.manager.all_steps():
            return
        check_finite(step, state)
        try:
            self.manager.save(
                step,
                args=ocp.args.Composite(
                    state=ocp.args.StandardSave(to_stored(state)),
                    data=ocp.args.JsonSave(data | {SUMS: sums(to_stored(state))}),
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
        reason = first_line(error)
        return InputError(
            f"{self.folder}: a checkpoint could not be written ({reason}); make room "
            "and start again, older checkpoints are whole"
        )
