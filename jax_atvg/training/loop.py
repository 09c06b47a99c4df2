"""The training loop: the same from one CPU to a pod, and never loses a run."""

import contextlib
import os
import signal
import time
from collections.abc import Callable, Iterable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath
from jax.experimental import multihost_utils
from jax.sharding import Mesh
from tqdm import tqdm

from input_pipeline.clip import EvaluationBatch, InputError, Pca
from jax_atvg.inference.animate import draw_points, to_u8
from jax_atvg.inference.bundle import Bundle, load_bundle, sizes
from jax_atvg.sharding import data_mesh, replicated, split, to_devices
from jax_atvg.training.checkpoint import BEST, Checkpoints, claim_workdir, open_workdir
from jax_atvg.training.config import Experiment, differences, validate
from jax_atvg.training.distributed import peer_lost
from jax_atvg.training.losses import landmark_distance
from jax_atvg.training.reporting import Reporter
from jax_atvg.training.state import AtNets, AtState, GanState
from jax_atvg.training.train_step import Nets, State, TrainStep, build

IN_FLIGHT = 2  # steps that may be under way at once


def train(
    experiment: Experiment,
    workdir: str | os.PathLike,
    batches: Any,
    *,
    pca: Pca | None = None,
    validation: Callable[[], Iterable[EvaluationBatch]] | None = None,
    profile: tuple[int, int] | None = None,
    mesh: Mesh | None = None,
) -> State:
    """Trains from the newest checkpoint in workdir, or from the start, to the end.

    workdir: a folder, also in a store, see open_workdir.  batches: endless iterator of
    this process's rows, with get_state and set_state.  validation: () -> one pass over
    the validation split.  profile: first and last step of a trace, written to
    workdir/profile.  mesh: all devices unless given.
    On SIGTERM a checkpoint is written, and it returns; the next call goes on.
    InputError: a config that cannot be, another run's workdir, a loss that is not
    finite (its step and name), a record that cannot be read, a full disk.  PeerLost:
    another process of the run has ended.
    """
    validate(experiment)
    workdir, mesh = open_workdir(workdir), mesh or data_mesh()
    step_of = build(experiment, mesh, pca)
    claim_workdir(workdir, experiment)
    if pca is not None and jax.process_index() == 0:
        save_pca(workdir / "pca.npz", pca)
    with contextlib.ExitStack() as stack:
        checkpoints = Checkpoints(workdir, experiment.keep)
        stack.callback(checkpoints.close)
        first = jax.process_index() == 0
        reporter = Reporter(workdir, first)
        stack.callback(reporter.close)
        stack.push(nothing_together(stack))
        state, step = start(experiment, step_of, checkpoints, batches, mesh)
        stopping = stack.enter_context(Stopping())
        score = validator(step_of.nets, mesh)
        bar = tqdm(total=experiment.steps, initial=step, unit="step", disable=not first)
        stack.enter_context(bar)
        tracing = Tracing(workdir, profile if first else None)
        stack.callback(tracing.stop)
        pending = Pending(experiment.batch_size)

        while step < experiment.steps:
            tracing.at(step)
            with pending.data():
                batch = next(batches)
            run = step_of.at(step)
            state, losses = run(state, to_devices(batch, mesh), experiment.seed)
            step += 1
            pending.add(step, losses)
            last = step == experiment.steps
            stop = stopping.agreed(step)
            if last or stop or step % experiment.report_every == 0:
                report = pending.report()
                reporter.scalars(step, report)
                bar.set_postfix(short(report), refresh=False)
            metrics = {}
            if validation and (last or step % experiment.validate_every == 0):
                metrics = {BEST: score(state, validation())}
                reporter.scalars(step, metrics)
            if first and step % experiment.image_every == 0:
                strip = picture(step_of.nets, state, batch)
                if strip is not None:
                    reporter.picture(step, "generated", strip)
            if last or stop or metrics or step % experiment.save_every == 0:
                pending.fetch()  # nothing that is not finite is ever saved
                checkpoints.save(step, state, batches.get_state(), metrics)
                reporter.publish()
            bar.update()
            if stop:
                bar.write(f"stopped by a signal; step {step} is saved, start again")
                break
    return state


def nothing_together(stack: contextlib.ExitStack):
    """To be pushed on stack: when another process is lost, what was entered before does
    not end properly, since that takes all processes.  Raises PeerLost."""

    def end(_, error: Exception | None, __) -> None:
        if error is not None and (lost := peer_lost(error)):
            stack.pop_all()
            raise lost from error

    return end


def start(
    experiment: Experiment,
    step_of: TrainStep,
    checkpoints: Checkpoints,
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
    restored = checkpoints.restore(shapes)
    if restored is None:
        state = step_of.init(experiment.seed)
        if experiment.init:
            state = begin_with(step_of.nets, state, load_bundle(experiment.init), mesh)
        return state, 0
    state, data = restored
    batches.set_state(data)
    return state, int(state.step)


def begin_with(nets: Nets, state: State, bundle: Bundle, mesh: Mesh) -> State:
    """A first state with the bundle's network in place of random values: fine-tuning.

    InputError: its network is of other sizes, or AT-net's of another PCA.
    """
    at = isinstance(nets, AtNets)
    name, net = ("at_net", nets.net) if at else ("vg_net", nets.generator)
    if other := differences(sizes(getattr(bundle, name)), sizes(net)):
        raise InputError(
            f"config.init: the bundle's {name} has {', '.join(other)}; take its sizes "
            "in the config, or another bundle"
        )
    if at and not all(map(np.allclose, bundle.pca, nets.pca)):
        raise InputError(
            "config.init: the bundle's coefficients are of another PCA than the data's;"
            " prepare the data it was trained on, or train AT-net from the start"
        )
    # By way of the host: the mesh may be of several processes' devices.
    on_host = jax.device_get(bundle.variables[name])
    variables = jax.device_put(on_host, replicated(mesh))
    if at:
        return state._replace(net=state.net._replace(**variables))
    gen = state.gen._replace(**variables)
    ema = jax.tree.map(jnp.copy, gen.params) if nets.ema else None
    return state._replace(gen=gen, ema=ema)


def save_pca(path: epath.Path, pca: Pca) -> None:
    """For export: the run's coefficients mean nothing without it."""
    partial = path.with_suffix(".partial.npz")
    try:
        with partial.open("wb") as file:
            np.savez(file, **pca._asdict())
        partial.replace(path)
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error}); make room") from error


class Pending:
    """Losses not yet fetched: steps go on while their numbers arrive."""

    def __init__(self, batch_size: int):
        self.batch_size, self.waiting = batch_size, []
        self._begin()

    def _begin(self) -> None:
        self.values, self.steps, self.data_seconds = {}, 0, 0.0
        self.since = time.perf_counter()

    @contextlib.contextmanager
    def data(self):
        """Times the wait for a batch, unless a step is under way until its end."""
        begin = time.perf_counter()
        yield
        newest = [loss for _, losses in self.waiting[-1:] for loss in losses.values()]
        if all(loss.is_ready() for loss in newest):
            self.data_seconds += time.perf_counter() - begin

    def add(self, step: int, losses: dict[str, jax.Array]) -> None:
        self.waiting.append((step, losses))
        if len(self.waiting) > IN_FLIGHT:
            jax.block_until_ready(self.waiting[-1 - IN_FLIGHT][1])

    def fetch(self) -> None:
        """InputError: a loss is not finite; names the first such step and term."""
        for step, losses in jax.device_get(self.waiting):
            self.steps += 1
            for name, value in losses.items():
                if not np.isfinite(value):
                    raise InputError(
                        f"{name} is {value} at step {step}; the last checkpoint is "
                        "good: lower the learning rate or clip gradients "
                        "(config.optimizer) and start again"
                    )
                self.values.setdefault(name, []).append(float(value))
        self.waiting.clear()

    def report(self) -> dict[str, float]:
        """Means since the last report, the pace, and the share of the time in which
        no step was under way, for want of a batch.  InputError: see fetch."""
        self.fetch()
        seconds = time.perf_counter() - self.since
        pace, waited = self.steps / seconds, self.data_seconds / seconds
        means = {name: float(np.mean(values)) for name, values in self.values.items()}
        self._begin()
        return means | {
            "pace/steps_per_second": pace,
            "pace/clips_per_second": pace * self.batch_size,
            "pace/waiting_for_data": waited,
        }


def short(report: dict[str, float]) -> dict[str, str]:
    """What fits beside the progress bar."""
    shown = [name for name in report if name.endswith("loss") or "pixel" in name]
    line = {name: f"{report[name]:.4g}" for name in shown}
    return line | {"clips/s": f"{report['pace/clips_per_second']:.3g}"}


class Stopping:
    """Whether the machine wants this run to end: SIGTERM, or a preemption notice."""

    def __enter__(self) -> "Stopping":
        self.asked, self.old = False, None
        if jax.process_count() == 1:
            # With several processes JAX's own service listens, so that all agree.
            self.old = signal.signal(signal.SIGTERM, self._ask)
        return self

    def _ask(self, *_) -> None:
        self.asked = True

    def agreed(self, step: int) -> bool:
        if jax.process_count() > 1:
            return multihost_utils.reached_preemption_sync_point(step)
        return self.asked

    def __exit__(self, *_) -> None:
        if self.old is not None:
            signal.signal(signal.SIGTERM, self.old)


class Tracing:
    """A profiler trace from one step to another."""

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


# --- looking at a state ---


def variables_of(state: State) -> dict[str, Any]:
    """What is evaluated and exported: the averaged generator where there is one."""
    if isinstance(state, AtState):
        return state.net.variables
    params = state.gen.params if state.ema is None else state.ema
    return {"params": params, "batch_stats": state.gen.batch_stats}


def validator(nets: Nets, mesh: Mesh) -> Callable[[State, Iterable], float]:
    """(state, pass over the split) -> the split's loss, every valid frame alike.

    AT-net: mean squared error of the coefficients, or the landmarks' distance, as it is
    trained.  VG-net: mean |v^ - v|.
    """

    def sums(variables, batch: EvaluationBatch):
        if isinstance(nets, AtNets):
            inputs = batch.at
            output = nets.net.apply(variables, inputs.example, inputs.audio)
            error = output.coefficients - inputs.coefficients
            if nets.loss.target == "landmarks":
                moved = error @ nets.pca.components.T
                error = landmark_distance(moved, nets.loss.mouth_weight)
            else:
                error = jnp.mean(error**2, -1)
        else:
            inputs = batch.vg
            output = nets.generator.apply(
                variables, inputs.image, inputs.landmarks, inputs.example
            )
            error = jnp.mean(jnp.abs(output.frames - inputs.frames), (2, 3, 4))
        valid = batch.frame_valid * batch.valid[:, None]
        return jnp.sum(jnp.where(valid > 0, error, 0.0)), jnp.sum(valid)

    whole = replicated(mesh)
    compiled = jax.jit(sums, in_shardings=(whole, split(mesh)), out_shardings=whole)

    def score(state: State, batches: Iterable) -> float:
        total = count = 0.0
        for batch in batches:
            error, valid = compiled(variables_of(state), to_devices(batch, mesh))
            total, count = total + float(error), count + float(valid)
        return total / count

    return score


def picture(nets: Nets, state: State, batch) -> np.ndarray | None:
    """u8: the batch's first clip, four of its frames a column: photo, target,
    generated, attention, colour, landmarks.  None for AT-net."""
    if not isinstance(state, GanState):
        return None
    variables = jax.device_get(variables_of(state))
    image, landmarks, example = (
        x[:1] for x in (batch.image, batch.landmarks, batch.example)
    )
    output = jax.jit(nets.generator.apply)(variables, image, landmarks, example)
    frames, attention, color = jax.device_get(output[:3])
    columns = []
    for t in np.linspace(0, frames.shape[1] - 1, 4).astype(int):
        face = np.repeat(2 * attention[0, t] - 1, 3, -1)
        points = 64 * (landmarks[0, t].reshape(-1, 2) + 1) - 0.5
        rows = [image[0], batch.frames[0, t], frames[0, t], face, color[0, t]]
        drawn = draw_points(points, frames.shape[2])
        columns.append(np.concatenate([*map(to_u8, rows), drawn]))
    return np.concatenate(columns, 1)
