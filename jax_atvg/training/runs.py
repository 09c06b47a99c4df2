"""Reads finished training runs: their experiments, networks and landmark PCAs."""

import dataclasses
import json
import os
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
import orbax.checkpoint as ocp
from etils import epath

from input_pipeline.clip import InputError, Pca, first_line
from jax_atvg.training.checkpoint import (
    BEST,
    check_sums,
    saved_steps,
    saved_sums,
)
from jax_atvg.training.config import Experiment, differences, flatten
from jax_atvg.training.config_files import read_config
from jax_atvg.training.reporting import lines_of
from jax_atvg.training.state import STORED_AS
from jax_atvg.training.workdir import open_workdir, read_data, read_pca

WHICH = ("best", "newest")


class Run(NamedTuple):
    """variables: {"params", "batch_stats"} of AT-net or VG-net, numpy.  pca: None if
    the run was given none.  step: of the checkpoint.  data: which it was trained on,
    see fingerprint.py; None: not known."""

    experiment: Experiment
    variables: dict[str, Any]
    pca: Pca | None
    step: int
    data: dict[str, Any] | None = None


def read_run(
    workdir: str | os.PathLike, network: str | None = None, which: str = "best"
) -> Run:
    """network: the kind it must be, "at" or "vg"; None for any.

    which: "best", of the least validation loss, or the newest where none was measured.
    VG-net's checkpoints from before its GAN terms (gan_loss.pixel_steps) count
    only where there are no later ones: blur lowers a pixel loss.
    InputError: no run there, one of the other network, no checkpoint, a damaged one;
    AT-net's without a face model.
    """
    workdir = open_workdir(workdir)
    experiment = read_config(workdir)
    if network not in (None, experiment.network):
        names = {"at": "AT-net", "vg": "VG-net"}
        raise InputError(
            f"{workdir}: a run of {names[experiment.network]}, {names[network]} wanted "
            "here; exchange --at and --vg or give another run"
        )
    if which not in WHICH:
        raise InputError(f"checkpoint={which}: choose one of {', '.join(WHICH)}")
    step = choose_step(workdir, experiment.gan_loss.pixel_steps, which)
    pca = read_pca(workdir)
    if network == "at" and pca is None:
        raise InputError(
            f"{workdir}: no pca.npz, without which AT-net's coefficients mean nothing; "
            "start `train` there once more, which writes it"
        )
    expected = experiment.data.num_coefficients
    if network == "at" and pca.components.shape[1] != expected:
        raise InputError(
            f"{workdir}: its pca.npz has {pca.components.shape[1]} components, its "
            f"networks {expected}; start `train` there once more, which writes it"
        )
    variables, data = read_variables(workdir, step), read_data(workdir)
    return Run(experiment, variables, pca, step, data)


def averaged(runs: Sequence[Run]) -> Run:
    """One AT-net whose output is the mean of these runs' outputs; a single run is
    returned as it is.

    Networks trained from different seeds make different errors, so that their mean errs
    less than one of them does on average.
    InputError: their sizes or face models are not the same.
    """
    first = runs[0]
    if len(runs) == 1:
        return first
    for other in runs[1:]:
        apart = differences(
            flatten(first.experiment.at_net), flatten(other.experiment.at_net)
        )
        if apart:
            raise InputError(
                f"--at: no average of networks of other sizes: {', '.join(apart)}; "
                "give runs of the same at_net"
            )
        if not all(map(np.array_equal, first.pca, other.pca)):
            raise InputError(
                "--at: no average of runs of other face models (pca.npz); train them "
                "on the same data"
            )
    if first.experiment.at_net.members > 1:
        raise InputError(
            f"--at: runs of {first.experiment.at_net.members} members each; give one "
            "of them alone, or runs of one member"
        )
    at_net = dataclasses.replace(first.experiment.at_net, members=len(runs))
    stacked = jax.tree.map(lambda *x: np.stack(x), *[run.variables for run in runs])
    return first._replace(
        experiment=dataclasses.replace(first.experiment, at_net=at_net),
        variables={name: {"member": tree} for name, tree in stacked.items()},
    )


def choose_step(workdir: epath.Path, pixel_steps: int, which: str) -> int:
    steps = saved_steps(workdir)
    if not steps:
        raise InputError(f"{workdir}: no checkpoint yet; let `train` reach its first")
    steps = [step for step in steps if step > pixel_steps] or steps
    losses = validation_losses(workdir / "metrics.jsonl")
    scored = [step for step in steps if step in losses]
    if which == "newest" or not scored:
        return steps[-1]
    return min(scored, key=lambda step: (losses[step], -step))


def validation_losses(path: epath.Path) -> dict[int, float]:
    """{step: loss}; of a step done twice the later one."""
    losses = {}
    for line in lines_of(path):
        try:
            report = json.loads(line)
            if BEST in report:
                losses[int(report["step"])] = float(report[BEST])
        except (ValueError, TypeError, KeyError):
            continue  # cut off when the machine stopped
    return losses


def read_variables(workdir: epath.Path, step: int) -> dict[str, Any]:
    """Of the state only what is needed: no optimiser, no discriminator.  InputError:
    damaged, also where only a checksum shows it."""
    path = workdir / "checkpoints" / str(step) / "state"
    try:
        handler = ocp.PyTreeCheckpointHandler()
        with ocp.Checkpointer(handler) as checkpointer:
            stored = handler.metadata(path).tree
            name = "net" if "net" in stored else STORED_AS["vg"]
            wanted = {name: part(stored[name], "params", "batch_stats")}
            item = jax.tree.map(
                lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), wanted
            )
            as_numpy = jax.tree.map(
                lambda _: ocp.RestoreArgs(restore_type=np.ndarray), item
            )
            found = checkpointer.restore(
                path,
                args=ocp.args.PyTreeRestore(
                    item=item, restore_args=as_numpy, partial_restore=True
                ),
            )
        check_sums(found, saved_sums(path.parent))
    except Exception as error:  # orbax and tensorstore raise many kinds
        reason = first_line(error)
        raise InputError(
            f"{path.parent}: damaged checkpoint ({type(error).__name__}: {reason}); "
            "remove its folder to use the one before, or train on"
        ) from error
    return found[name]


def part(tree: dict[str, Any], *names: str) -> dict[str, Any]:
    return {name: tree[name] for name in names}
