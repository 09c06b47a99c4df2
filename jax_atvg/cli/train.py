"""Trains AT-net or VG-net, from where its folder has got to.

    python main.py train --config=vg_small --workdir=runs/vg --data_dir=DATA

The same command goes on with a run that was interrupted.  Ctrl-C saves and ends, with
exit code 0; a second one ends at once.  Any field of the config can be set, as
--config.optimizer.learning_rate=1e-4.
"""

from input_pipeline.clip import InputError
from jax_atvg.cli.flags import Flags, Given


def flags(add: Flags) -> None:
    add.config(
        "The experiment: a name as vg_small, at_default, smoke:at, or the "
        "path of a file that ends in .py; see configs/, and for the fields "
        "jax_atvg/training/config.py."
    )
    add.path(
        "workdir", "The run's folder, also gs://...; resumes there.", required=True
    )
    add.path(
        "data_dir",
        "The dataset that `prepare` wrote; configs with data.synthetic need none.",
    )
    add.switch(
        "go_back",
        "Start from the newest readable checkpoint, or anew, though the run has got "
        "further: what came later is lost.  Otherwise that is an error.",
    )
    add.text(
        "profile", "Trace these steps for a profiler, as 10:15.", kind="FIRST:LAST"
    )
    add.text(
        "coordinator",
        "host:port of the first of several processes; auto: as a TPU pod or SLURM "
        "says; none: this process is alone.",
        "auto",
        kind="HOST:PORT",
    )
    add.number("num_processes", "How many there are; with --coordinator.")
    add.number("process_id", "Which one this is, from 0; with --coordinator.")
    add.number(
        "peer_timeout",
        "Seconds after which a process that is silent, or does not come, is lost.",
        100,
        least=1,
    )


def run(given: Given) -> int:
    from jax_atvg.cli.machine import keep_freed_memory, set_up_jax
    from jax_atvg.training import distributed
    from jax_atvg.training.config import validate

    profile = profile_steps(given.profile)
    validate(given.config)
    if not given.data_dir and not given.config.data.synthetic:
        raise InputError("--data_dir missing; give the folder that `prepare` wrote")
    keep_freed_memory(one_heap=given.config.network == "at")
    distributed.connect(
        given.coordinator,
        given.num_processes,
        given.process_id,
        timeout=given.peer_timeout,
    )
    set_up_jax(given.workdir)
    from jax_atvg.training.train import train

    train(
        given.config,
        given.workdir,
        given.data_dir,
        profile=profile,
        go_back=given.go_back,
    )
    return 0


def profile_steps(text: str | None) -> tuple[int, int] | None:
    """ "10:15" -> (10, 15); "" -> None.  InputError: anything else."""
    if not text:
        return None
    try:
        first, last = map(int, text.split(":"))
    except ValueError:
        first = last = -1
    if not 0 <= first < last:
        raise InputError(f"--profile={text}: give the first and last step, as 10:15")
    return first, last
