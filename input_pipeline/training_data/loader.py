"""Makes batches of clips, with grain: endless for training, one pass for evaluation.

Which examples a global batch holds, and in which order, depends on the clips, settings
and seed alone, not on the number of processes, threads or workers, nor on where a run
was interrupted.

`clips` is the result of dataset.open_clips or a synthetic.SyntheticClips: len(clips),
clips[i] -> Clip, i[N] clips.lengths, and N names in clips.speakers and clips.clip_ids.
"""

import dataclasses
import sys
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import grain
import numpy as np

from input_pipeline.clip import AtBatch, EvaluationBatch, InputError, Pca, VgBatch
from input_pipeline.training_data import sampling
from input_pipeline.training_data.augment import Strength
from input_pipeline.training_data.batches import (
    Batches,
    local_rows,
    num_bytes,
    pipeline,
    that_fit,
    usable_workers,
)

KINDS = ("at", "vg")
BALANCES = {"clips": None, "sqrt": 0.5, "speakers": 0.0}  # exponents, see groups_of
NUM_THREADS = 8


def training_batches(
    clips,
    kind: str,
    *,
    batch_size: int,
    seed: int,
    pca: Pca | None = None,
    num_frames: int = 16,
    balance: str = "clips",
    mix: Mapping[str, float] | None = None,
    augment: Strength | None = None,
    from_rest: bool = False,
    process_index: int = 0,
    process_count: int = 1,
    num_threads: int = NUM_THREADS,
    num_workers: int = 0,
    place: Callable[[Any], Any] | None = None,
) -> Batches:
    """Endless batches of AtBatch (kind "at", needs pca) or VgBatch ("vg").

    batch_size: of the global batch; this process gets batch_size / process_count rows.
    num_frames: an example's target frames.  Shorter clips are left out, with a warning.
    balance: "clips", each clip once an epoch; "speakers", each speaker equally often;
    or "sqrt", in between: as the square root of the speaker's number of clips.
    mix: {corpus: its share of the examples}; balance is then within each corpus, and an
    epoch has as many examples as there are clips.  None: no shares.
    augment: the strength of training augmentation; None, or all zeros: there is none.
    from_rest: see rest.photo_coefficients.
    num_workers: processes beside this one that make the batches; -1: see
    usable_workers; 0: num_threads threads of this process do.  Processes need
    `if __name__ == "__main__"` in the program.
    place: what is done with every batch, in a thread of this process, as moving it to a
    device.
    InputError: no clip is long enough, or a setting is invalid.
    """
    if kind not in KINDS:
        raise InputError(f"kind={kind}: say one of {' '.join(KINDS)}")
    if balance not in BALANCES:
        raise InputError(f"balance={balance}: say one of {' '.join(BALANCES)}")
    if kind == "at" and pca is None:
        raise InputError("kind=at without pca; give the one of the dataset")
    if seed < 0 or num_frames < 1:
        raise InputError(
            f"seed={seed} num_frames={num_frames}: must be 0 and 1 at least; raise it"
        )
    rows = local_rows(batch_size, process_index, process_count)
    strength = augment if augment and any(vars(augment).values()) else None
    usable = long_enough(clips, num_frames)
    order = Order(clips, usable, seed, balance, mix or {})

    def example(place: int) -> AtBatch | VgBatch:
        epoch, place = divmod(place, len(usable))
        index = int(order(epoch)[place])
        clip, key = sampling.read(clips, index), (seed, epoch, place)
        if kind == "at":
            return sampling.at_example(clip, pca, key, num_frames, strength, from_rest)
        return sampling.vg_example(clip, key, num_frames, strength)

    def open_at(first: int) -> grain.IterDataset:
        endless = sys.maxsize // batch_size
        workers = usable_workers(num_workers)
        if workers:
            one = num_bytes(example(first * batch_size + rows[0]))
            workers = that_fit(workers, one * len(rows))
        return pipeline(
            example, first, endless, rows, batch_size, num_threads, workers, place
        )

    data = {"kind": kind, "num_clips": len(usable), "batch_size": batch_size}
    data |= {"seed": seed, "num_frames": num_frames, "balance": balance}
    data |= {"augment": strength and dataclasses.asdict(strength)}
    if mix:
        data |= {"mix": dict(mix)}
    if from_rest:
        data |= {"from_rest": True}
    return Batches(open_at, data)


def evaluation_batches(
    clips,
    *,
    batch_size: int,
    pca: Pca | None = None,
    frames: bool = True,
    from_rest: bool = False,
    limit: int = 0,
    process_index: int = 0,
    process_count: int = 1,
    num_threads: int = NUM_THREADS,
) -> Batches:
    """Batches (EvaluationBatch) of every clip once, whole, in the split's order.

    All have one shape: T is the length of the longest clip used.  The last batch is
    filled with rows of valid = 0, so that all processes get equally many batches.
    pca: if given, `at` is filled.  frames: whether `vg` is filled.  from_rest: see
    rest.photo_coefficients.
    limit: use only so many clips, evenly spread over the split; 0: all.
    InputError: the split is empty, or a setting is invalid.
    """
    if limit < 0:
        raise InputError(f"limit={limit}: must be 0 (all clips) or more; raise it")
    rows = local_rows(batch_size, process_index, process_count)
    long_enough(clips, 1)
    count = min(limit or len(clips), len(clips))
    chosen = np.arange(count) * len(clips) // count
    longest = int(np.asarray(clips.lengths)[chosen].max())

    def example(place: int) -> EvaluationBatch:
        index = int(chosen[min(place, count - 1)])
        clip = sampling.read(clips, index)
        whole = sampling.evaluation_example(
            clip, index, pca, frames, longest, from_rest
        )
        return whole if place < count else sampling.blank(whole)

    def open_at(first: int) -> grain.IterDataset:
        last = -(-count // batch_size)
        return pipeline(example, first, last, rows, batch_size, num_threads)

    return Batches(open_at, {"num_clips": count, "batch_size": batch_size})


class Order:
    """Maps an epoch to the indices of its clips, in that epoch's order.

    The orders of neighbouring epochs are kept, because threads may be in either.
    """

    def __init__(
        self,
        clips,
        usable: np.ndarray,
        seed: int,
        balance: str,
        mix: Mapping[str, float],
    ):
        self.usable, self.seed, self.kept = usable, seed, {}
        self.groups = None  # every clip once an epoch
        if balance != "clips" or mix:
            corpora, speakers = (
                [names[i] for i in usable] for names in (clips.corpora, clips.speakers)
            )
            if absent := sorted(set(mix) ^ set(corpora)) if mix else []:
                raise InputError(
                    f"mix={dict(mix)}: must name the corpora of the clips that are "
                    f"long enough, and {', '.join(absent)} is in one of both alone"
                )
            exponent = BALANCES[balance]
            self.groups = sampling.groups_of(corpora, speakers, exponent, mix)

    def __call__(self, epoch: int) -> np.ndarray:
        kept = self.kept
        if epoch not in kept:
            if self.groups is None:
                order = sampling.shuffled(len(self.usable), self.seed, epoch)
            else:
                order = sampling.in_shares(*self.groups, self.seed, epoch)
            near = {e: o for e, o in kept.items() if abs(e - epoch) == 1}
            self.kept = kept = near | {epoch: self.usable[order]}
        return kept[epoch]


def long_enough(clips, num_frames: int) -> np.ndarray:
    """Indices of the clips with enough frames; warns of others.  InputError: none."""
    lengths = np.asarray(clips.lengths)
    if not len(lengths):
        raise InputError("the split holds no clips; prepare some, or name another")
    usable = np.flatnonzero(lengths >= num_frames)
    if not len(usable):
        raise InputError(
            f"num_frames={num_frames}: the longest of {len(lengths)} clips has "
            f"{lengths.max()}; take a shorter window"
        )
    if left_out := len(lengths) - len(usable):
        warnings.warn(
            f"{left_out} of {len(lengths)} clips are shorter than "
            f"num_frames={num_frames} and left out",
            stacklevel=3,
        )
    return usable
