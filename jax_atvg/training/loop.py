"""The training loop, the same on one CPU and on a pod of TPUs: steps, reports,
validation, checkpoints, and an orderly end."""

import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from etils import epath
from jax.experimental import multihost_utils
from jax.sharding import Mesh

from input_pipeline.clip import EvaluationBatch, InputError, Pca
from input_pipeline.progress import Progress
from input_pipeline.training_data.fingerprint import TEMPLATE, check_template
from jax_atvg.inference.bundle import Bundle, load_bundle, sizes
from jax_atvg.machine import parameters
from jax_atvg.programs import chips
from jax_atvg.programs.hlo import flops_of
from jax_atvg.sharding import data_mesh, replicated, to_devices
from jax_atvg.training.checkpoint import BEST, Checkpoints
from jax_atvg.training.config import Experiment, differences, flatten, validate
from jax_atvg.training.distributed import peer_lost
from jax_atvg.training.pace import Pending, short
from jax_atvg.training.reporting import (
    LINES,
    Reporter,
    check_installed,
    last_step,
    open_reporters,
)
from jax_atvg.training.state import AtNets, AtState, NetState
from jax_atvg.training.train_step import (
    Nets,
    State,
    Step,
    TrainStep,
    build,
    compiler_options,
)
from jax_atvg.training.validation import painter, validator
from jax_atvg.training.workdir import (
    claim_workdir,
    keep_pca,
    note_experiment,
    open_workdir,
)


class Compiled(NamedTuple):
    """A step: (state, batch, seed) -> (state, losses); flops: of one call, if they were
    counted."""

    run: Step
    flops: int


def training_loop(
    experiment: Experiment,
    workdir: str | os.PathLike,
    batches: Any,
    *,
    pca: Pca | None = None,
    validation: Callable[[], Iterable[EvaluationBatch]] | None = None,
    reporters: Sequence[Reporter] = (),
    profile: tuple[int, int] | None = None,
    mesh: Mesh | None = None,
    progress: bool = True,
    data: Mapping[str, Any] | None = None,
    go_back: bool = False,
) -> State:
    """Trains from the newest checkpoint in workdir, or from the start, to the end.

    workdir: a folder, also in a store, see open_workdir.  batches: endless iterator
    with get_state and set_state, of this process's rows, or of what to_devices made of
    them.  validation: () -> one pass over the validation split.  reporters: beside
    those of the config, and closed like them.  profile: first and last step of a trace,
    written to workdir/profile.  mesh: all devices unless given.  progress: say on
    standard error what is compiled and how far it is.  data: which data the batches are
    of, see fingerprint.py.  go_back: see Checkpoints.restore.
    On SIGTERM, or Ctrl-C, a checkpoint is written, and it returns; the next call goes
    on.  A second Ctrl-C stops at once.
    InputError: a config that cannot be, another run's workdir, a loss or a state that
    is not finite (its step and name), a record that cannot be read, a full disk.
    PeerLost: another process of the run has ended.
    """
    validate(experiment)
    check_installed(experiment.report_to)
    workdir, mesh = open_workdir(workdir), mesh or data_mesh()
    step_of = build(experiment, mesh, pca)
    if experiment.init and not (workdir / "config.json").exists():
        fitting_bundle(experiment, step_of.nets, data)  # before anything is written
    with contextlib.ExitStack() as stack:
        noted = stack.enter_context(claim_workdir(workdir, experiment, data))
        if pca is not None:
            keep_pca(workdir / "pca.npz", pca, same=experiment.network == "at")
        checkpoints = Checkpoints(
            workdir,
            experiment.keep,
            max(noted.save_every, experiment.save_every),
            max(noted.report_every, experiment.report_every),
            warm_up=experiment.gan_loss.pixel_steps,
        )
        stack.callback(checkpoints.close)
        first = jax.process_index() == 0
        stack.push(nothing_together(stack))
        reached = last_step(workdir / LINES)
        state, step = start(
            experiment,
            step_of,
            lambda shapes: checkpoints.restore(shapes, reached, go_back=go_back),
            batches,
            mesh,
        )
        note_experiment(workdir, experiment)
        names, others = (experiment.report_to, reporters) if first else ((), ())
        reporter = stack.enter_context(
            open_reporters(names, workdir, step, flatten(experiment), others)
        )
        bar = Progress(
            experiment.steps, "step", initial=step, active=progress and first
        )
        if step >= experiment.steps:
            bar.say(f"already at step {step}, {experiment.steps} were asked for")
        peak = chips.peak(mesh.local_devices[0].device_kind, experiment.precision)
        programs = compile_steps(
            step_of, experiment, step, bar.say, counted=peak is not None
        )
        stack.enter_context(bar)
        stopping = stack.enter_context(Stopping(bar.say))
        options = compiler_options(experiment, mesh.devices.flat[0].platform)
        score = validator(step_of.nets, mesh, options)
        picture = painter(step_of.nets, mesh)
        tracing = Tracing(workdir, profile if first else None)
        stack.callback(tracing.stop)
        pending = Pending(
            experiment.batch_size, mesh.local_devices[0], peak and peak * mesh.size
        )

        while step < experiment.steps:
            tracing.at(step)
            with pending.data():
                batch = to_devices(next(batches), mesh)
            program = programs[step < step_of.warm_up_steps]
            with jax.profiler.StepTraceAnnotation("train", step_num=step):
                state, losses = program.run(state, batch, experiment.seed)
            step += 1
            pending.add(step, losses, program.flops)
            last = step == experiment.steps
            stop = stopping.agreed(step)
            if last or stop or step % experiment.report_every == 0:
                report = pending.report()
                reporter.scalars(step, report)
                bar.show(**short(report))
            metrics = {}
            if validation and (last or step % experiment.validate_every == 0):
                metrics = {BEST: score(state, validation())}
                reporter.scalars(step, metrics)
            if first and step % experiment.image_every == 0:
                strip = picture(state, batch)
                if strip is not None:
                    reporter.picture(step, "generated", strip)
            if last or stop or metrics or step % experiment.save_every == 0:
                pending.fetch()  # of the losses; save looks at the state itself
                checkpoints.save(step, state, batches.get_state(), metrics)
                reporter.publish()
            bar.update()
            if stop:
                bar.say(f"stopped; step {step} is saved, the same command goes on")
                break
    return state


def nothing_together(stack: contextlib.ExitStack):
    """An exit callback for stack: when another process of the run is lost, it drops all
    earlier callbacks, since saving and closing need every process, and raises
    PeerLost."""

    def end(_, error: BaseException | None, __) -> None:
        if isinstance(error, Exception) and (lost := peer_lost(error)):
            stack.pop_all()
            raise lost from error

    return end


def compile_steps(
    step_of: TrainStep,
    experiment: Experiment,
    done: int,
    say: Callable[[str], None],
    *,
    counted: bool,
) -> dict[bool, Compiled]:
    """{whether it is one of the first, on pixels alone: the step}, of those that are to
    come.  Compiled before the first one, so that what does not fit is known at once.
    counted: count their operations, which takes a second of a large program."""
    state = jax.eval_shape(step_of.init, experiment.seed)
    say(parameters(**{name: net.params for name, net in networks_of(state).items()}))
    warm_up, steps = step_of.warm_up_steps, experiment.steps
    wanted = {False: step_of.step} if max(done, warm_up) < steps else {}
    if done < min(warm_up, steps):
        wanted[True] = step_of.warm_up
    programs = {}
    for first, step in wanted.items():
        began, name = time.perf_counter(), "the first steps" if first else "the step"
        say(f"compiling {name} ...")
        lowered = step.lower(state, step_of.shapes, experiment.seed)
        compiled = lowered.compile()
        seconds = time.perf_counter() - began
        say(f"... took {seconds:.1f} s{memory(compiled)}")
        programs[first] = Compiled(compiled, flops_of(lowered) if counted else 0)
    return programs


def memory(program: Any) -> str:
    """What a compiled step takes of a device's memory, in words."""
    found = program.memory_analysis()
    if found is None:
        return ""
    at_once = found.temp_size_in_bytes + found.argument_size_in_bytes
    return f"; it needs {at_once / 2**20:.0f} MiB of a device"


def networks_of(state: State) -> dict[str, NetState]:
    """By the names that a reader knows."""
    if isinstance(state, AtState):
        return {"AT_net": state.net}
    return {"VG_net": state.vg, "discriminator": state.disc}


def start(
    experiment: Experiment,
    step_of: TrainStep,
    restore: Callable[[Any], tuple[State, dict] | None],
    batches: Any,
    mesh: Mesh,
) -> tuple[State, int]:
    """(state, steps done): of the newest checkpoint, or initial: random, or with the
    network of the bundle config.init."""
    shapes = jax.tree.map(
        lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s),
        jax.eval_shape(step_of.init, experiment.seed),
        step_of.sharding,
    )
    restored = restore(shapes)
    if restored is None:
        state = step_of.init(experiment.seed)
        if experiment.init:
            state = begin_with(step_of.nets, state, experiment, mesh)
        return state, 0
    state, data = restored
    batches.set_state(data)
    return state, int(state.step)


def begin_with(nets: Nets, state: State, experiment: Experiment, mesh: Mesh) -> State:
    """A first state with the network of the bundle config.init in place of random
    values: fine-tuning.  InputError: see fitting_bundle."""
    variables = fitting_bundle(experiment, nets).variables
    # By way of the host: the mesh may be of several processes' devices.
    name = "at_net" if isinstance(nets, AtNets) else "vg_net"
    chosen = jax.device_put(jax.device_get(variables[name]), replicated(mesh))
    if isinstance(nets, AtNets):
        return state._replace(net=state.net._replace(**chosen))
    return state._replace(vg=state.vg._replace(**chosen))


def fitting_bundle(
    experiment: Experiment, nets: Nets, data: Mapping[str, Any] | None = None
) -> Bundle:
    """The bundle config.init.  InputError: there is none, its network is of other
    sizes, or AT-net's of another PCA, or its faces lie otherwise in the crop than those
    of the data."""
    bundle = load_bundle(os.path.expanduser(experiment.init))
    at = isinstance(nets, AtNets)
    name, net = ("at_net", nets.net) if at else ("vg_net", nets.vg_net)
    theirs, ours = sizes(getattr(bundle, name)), sizes(net)
    theirs.pop("closes_eyes", None)  # it can learn that
    if other := differences(theirs, {k: ours[k] for k in theirs}):
        raise InputError(
            f"config.init: the bundle's {name} has {', '.join(other)}; take its sizes "
            "in the config, or another bundle"
        )
    if data:
        remedy = "prepare the data with the bundle's --template, or take another bundle"
        whose = "config.init: the bundle was"
        check_template({TEMPLATE: bundle.alignment}, data, whose, remedy)
    if at and not all(map(np.allclose, bundle.pca, nets.pca)):
        raise InputError(
            "config.init: the bundle's coefficients are of another PCA than the data's;"
            " prepare the data it was trained on, or train AT-net from the start"
        )
    return bundle


class Stopping:
    """Whether this run is to end: SIGTERM, a preemption notice, or Ctrl-C.

    After the first Ctrl-C the usual meaning is back: a second one ends at once.
    """

    def __init__(self, say: Callable[[str], None]):
        self.say, self.asked, self.old = say, False, {}

    def __enter__(self) -> "Stopping":
        if threading.current_thread() is threading.main_thread():
            self._listen(signal.SIGINT, self._interrupted)
            if jax.process_count() == 1:
                # With several processes JAX's own service listens, so that all agree.
                self._listen(signal.SIGTERM, self._ask)
        return self

    def _listen(self, number: int, handler: Callable) -> None:
        self.old[number] = signal.signal(number, handler)

    def _ask(self, *_) -> None:
        self.asked = True

    def _interrupted(self, *_) -> None:
        signal.signal(signal.SIGINT, self.old.pop(signal.SIGINT))
        self.say("stopping after this step; Ctrl-C again stops at once")
        signal.raise_signal(signal.SIGTERM)  # which asks, or tells the other processes

    def agreed(self, step: int) -> bool:
        if jax.process_count() > 1:
            return multihost_utils.reached_preemption_sync_point(step)
        return self.asked

    def __exit__(self, *_) -> None:
        for number, handler in self.old.items():
            signal.signal(number, handler)


class Tracing:
    """Writes a profiler trace of the steps from one to another."""

    def __init__(self, workdir: epath.Path, steps: tuple[int, int] | None):
        self.folder, self.steps, self.running = workdir / "profile", steps, False

    def at(self, step: int) -> None:
        if self.steps and step == self.steps[0]:
            jax.profiler.start_trace(str(self.folder))
            self.running = True
        if self.steps and step == self.steps[1]:
            self.stop()

    def stop(self) -> None:
        if self.running:
            jax.profiler.stop_trace()
            self.running = False
