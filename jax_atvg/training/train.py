"""Training from a config and a dataset: what `python main.py train` calls."""

import contextlib
import functools
import os
import sys
import warnings
from collections.abc import Callable, Iterable, Sequence

import jax
from jax.sharding import Mesh

from input_pipeline.clip import EvaluationBatch, InputError, Pca
from input_pipeline.training_data import dataset, loader, synthetic
from input_pipeline.training_data.batches import usable_workers
from input_pipeline.training_data.fingerprint import fingerprint
from jax_atvg import machine
from jax_atvg.sharding import data_mesh, to_devices
from jax_atvg.training.config import Experiment, beside_defaults, validate
from jax_atvg.training.loop import training_loop
from jax_atvg.training.reporting import Reporter
from jax_atvg.training.train_step import State

SYNTHETIC_FRAMES = 32  # of a drawn clip
CLIPS_A_DEVICE = 4  # accelerators validate at once; one leaves most of them idle


def train(
    experiment: Experiment,
    workdir: str | os.PathLike,
    data_dir: str | os.PathLike | None = None,
    *,
    reporters: Sequence[Reporter] = (),
    profile: tuple[int, int] | None = None,
    mesh: Mesh | None = None,
    progress: bool = True,
    go_back: bool = False,
) -> State:
    """Trains an experiment to its end, from where its workdir has got to.

    data_dir: what `prepare` wrote; not needed with experiment.data.synthetic, which
    trains on drawn clips.  reporters: more places for scalars and pictures, beside
    those that experiment.report_to names.  profile: first and last step of a profiler
    trace, written to workdir/profile.  mesh: all devices unless given.  progress: say
    on standard error what runs and how far it is.  go_back: start from the newest
    readable checkpoint, or anew, though the run has got further.
    Where experiment.data.num_workers makes it start processes, which it does by default
    on four cores or more, a program must call it under `if __name__ == "__main__"`.
    Returns the state after the last step; checkpoints, curves and config are in the
    workdir.  On SIGTERM or Ctrl-C it saves and returns; called again it goes on.
    InputError, PeerLost: see training_loop; InputError: no dataset there.
    """
    validate(experiment)
    mesh = mesh or data_mesh()
    say = speaker(progress)
    say(f"running on {machine.describe(list(mesh.devices.flat), experiment.precision)}")
    if warning := machine.unused_gpu():
        warnings.warn(warning, stacklevel=2)
    corpora = corpora_of(experiment, data_dir)
    clips, held_out, pca = open_data(experiment, data_dir, corpora)
    place = "drawn clips" if experiment.data.synthetic else data_dir
    say(f"data: {place}, {len(clips)} clips to train on, {len(held_out)} to validate")
    say(f"config, beside the defaults: {beside_defaults(experiment)}")
    # Closed whatever happens: worker processes would go on.
    with contextlib.closing(training_batches(experiment, clips, pca, mesh)) as batches:
        return training_loop(
            experiment,
            workdir,
            batches,
            pca=pca,
            validation=validation_pass(
                experiment,
                held_out,
                pca,
                clips_at_once(experiment, mesh, len(held_out)),
            ),
            reporters=reporters,
            profile=profile,
            mesh=mesh,
            progress=progress,
            data=None if experiment.data.synthetic else fingerprint(data_dir, corpora),
            go_back=go_back,
        )


def speaker(progress: bool) -> Callable[[str], None]:
    """Prints a line on standard error, in the first process alone."""
    if not progress or jax.process_index():
        return lambda text: None
    return lambda text: print(text, file=sys.stderr, flush=True)


def corpora_of(experiment: Experiment, data_dir: str | os.PathLike | None) -> list[str]:
    """Those that are trained on; []: of all videos.  InputError: no dataset."""
    if experiment.data.synthetic:
        return []
    if data_dir is None:
        raise InputError(
            "data_dir is missing; give the folder that `prepare` wrote, or train on "
            "drawn clips with config.data.synthetic"
        )
    corpora = list(experiment.data.mix.shares())
    if not corpora and experiment.network == "vg":
        corpora = list(dataset.all_datasets(data_dir))  # photos that talk as well
    return corpora


def open_data(
    experiment: Experiment,
    data_dir: str | os.PathLike | None,
    corpora: Sequence[str] = (),
):
    """(clips to train on, clips to validate on, Pca).  InputError: no dataset."""
    data = experiment.data
    if data.synthetic:
        clips = synthetic.SyntheticClips(data.synthetic, SYNTHETIC_FRAMES)
        return clips, clips, clips.pca(data.num_coefficients)
    clips, held_out = (
        dataset.open_clips(data_dir, split, corpora)
        for split in ("train", "validation")
    )
    return clips, held_out, dataset.open_pca(data_dir, data.num_coefficients)


def this_process(experiment: Experiment) -> dict[str, int]:
    """Which part of each batch is this process's, and its threads."""
    return {
        "process_index": jax.process_index(),
        "process_count": jax.process_count(),
        "num_threads": experiment.data.num_threads,
    }


def training_batches(experiment: Experiment, clips, pca: Pca, mesh: Mesh):
    """The endless batches that the experiment trains on, as global arrays."""
    data = experiment.data
    return loader.training_batches(
        clips,
        experiment.network,
        batch_size=experiment.batch_size,
        seed=experiment.seed,
        pca=pca,
        num_frames=data.num_frames,
        balance=data.balance,
        mix=data.mix.shares(),
        augment=data.augment,
        from_rest=experiment.at_net.from_rest,
        num_workers=usable_workers(data.num_workers, len(mesh.local_devices)),
        place=functools.partial(to_devices, mesh=mesh),
        **this_process(experiment),
    )


def clips_at_once(experiment: Experiment, mesh: Mesh, count: int) -> int:
    """The size of a batch of validation clips, of which the split has `count`.

    One a device, on accelerators several, but not more than are needed for the clips
    that are scored; where a recurrence over the batch would mix them, one a process.
    """
    if experiment.network == "vg" and experiment.vg_net.recurrence == "batch":
        return jax.process_count()
    if mesh.devices.flat[0].platform == "cpu":
        return mesh.size
    scored = min(experiment.data.validation_clips or count, count)
    return mesh.size * min(CLIPS_A_DEVICE, max(-(-scored // mesh.size), 1))


def validation_pass(
    experiment: Experiment, clips, pca: Pca, batch_size: int
) -> Callable[[], Iterable[EvaluationBatch]]:
    """() -> the clips that are scored during training, once."""
    at = experiment.network == "at"
    return lambda: loader.evaluation_batches(
        clips,
        batch_size=batch_size,
        pca=pca if at else None,
        frames=not at,
        from_rest=experiment.at_net.from_rest,
        limit=experiment.data.validation_clips,
        **this_process(experiment),
    )
