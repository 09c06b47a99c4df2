"""Runs both networks, on one or several devices, over recordings of any length.

Frames are processed in chunks of one fixed length, each beginning with the recurrences'
state after the one before: memory on the devices does not grow with the recording, and
one compiled program of each network serves every length.  What crosses from the devices
are bytes, and only the pictures that were asked for.

Letters: B clips, T frames, K coefficients, S the networks' picture size.
"""

import dataclasses
import functools
import pathlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Float32, UInt8

from input_pipeline.clip import InputError
from input_pipeline.media.image import to_u8
from jax_atvg.inference.bundle import Bundle, load_bundle
from jax_atvg.inference.predict import (
    Photo,
    State,
    Weights,
    first_state,
    restarted,
    speak,
)
from jax_atvg.inference.rows import Part, assign
from jax_atvg.models.lstm import LstmState
from jax_atvg.models.precision import cast_variables, traced
from jax_atvg.sharding import data_mesh, replicated, split

CHUNK = 16  # frames per call of the networks


@dataclasses.dataclass(eq=False)
class Clip:
    """What the networks are given of one clip.

    photo: with B = 1.  windows: MFCC, f32[T,28,12].  still: the face keeps the photo's
    landmarks, whatever the sound.  expressiveness: by which its movement is multiplied.
    lids: how far the eyelids are down in each frame, f32[T], 0 to 1; None: nowhere.
    given_up: may be set at any time; no further frames are computed.
    """

    photo: Photo
    windows: np.ndarray
    still: bool = False
    expressiveness: float = 1.0
    lids: np.ndarray | None = None
    given_up: bool = False


class Rendered(NamedTuple):
    """What is made of T frames of a clip, in numpy.

    frames: u8[T,S,S,3].  landmarks: f32[T,136].  attention: u8[T,S,S], 255 where the
    frame is all colour.  color: u8[T,S,S,3].  The last two are None unless asked for.
    """

    frames: Any
    landmarks: Any
    attention: Any = None
    color: Any = None


class ToDraw(NamedTuple):
    """A frame that is to be drawn from a photo of its own.

    image: u8[S,S,3].  example: f32[136], the photo's landmarks.  landmarks: f32[136].
    """

    image: np.ndarray
    example: np.ndarray
    landmarks: np.ndarray


class Networks:
    """A bundle's networks with their weights on the devices of a mesh.

    bundle: the given one without its variables, so that their memory is freed as soon
    as the caller drops it.  batch_size: B, clips per call, raised to a multiple of the
    mesh's devices.  mesh: this process's first device unless given.  precision: see
    models/precision.py.  A recurrence over the batch, as in the authors' code, would
    mix clips: then B is 1, on one device.
    """

    def __init__(
        self,
        bundle: Bundle,
        batch_size: int = 1,
        mesh: Mesh | None = None,
        precision: str = "default",
    ):
        mesh = mesh or data_mesh(jax.local_devices()[:1])
        if bundle.vg_net.recurrence == "batch":
            mesh, batch_size = data_mesh(mesh.devices.ravel()[:1]), 1
        self.mesh, self.precision = mesh, precision
        self.batch_size = -(-max(batch_size, 1) // mesh.size) * mesh.size
        self.bundle = dataclasses.replace(bundle, variables={})
        cast = jax.jit(cast_all, static_argnames="precision")
        if precision != "bfloat16":  # it changes nothing: no program is needed
            cast = cast_all
        variables = cast(bundle.variables, precision=precision)
        weights = Weights(**variables, pca=bundle.pca, boost=bundle.boost)
        self.weights = jax.device_put(weights, replicated(mesh))

    def predict(
        self, clips: Iterable[Clip | None], maps: bool = False
    ) -> Iterator[list[tuple[Part, Rendered]]]:
        """Runs both networks over clips of any lengths, `batch_size` of them at a time.

        Yields what one call of the networks made: for each clip that took part, which
        frames, and these.  The devices compute the next call meanwhile.  clips: see
        rows.assign; of each the results are those that it has alone, to rounding.
        maps: with attention and colour.
        """
        shown = ("attention", "color") if maps else ()
        speak, draw = self.speak_program(), self.draw_program(shown)

        def calls() -> Iterator[tuple[Any, list[Part]]]:
            (spoken, drawn), held, rows = self.first_state(), [], None
            idle = np.zeros((CHUNK, 28, 12), np.float32)
            eyes_open = np.zeros(CHUNK, np.float32)
            parts_of_calls = assign(clips, frames_left, self.batch_size, CHUNK)
            for parts in parts_of_calls:
                if not parts:
                    yield None, []
                    continue
                fresh = np.zeros(self.batch_size, bool)
                windows = [idle] * self.batch_size
                lids = [eyes_open] * self.batch_size
                for row, clip, start, _, _ in parts:
                    fresh[row] = start == 0
                    frames = chunk_at(start, len(clip.windows))
                    windows[row] = clip.windows[frames]
                    if clip.lids is not None:
                        lids[row] = clip.lids[frames]
                    # A row in which nothing plays yet computes the first clip's photo.
                    held = held or [clip] * self.batch_size
                    held[row] = clip
                if fresh.any():
                    photos = [clip.photo for clip in held]
                    photo = jax.tree.map(lambda *x: np.concatenate(x), *photos)
                    still = np.array([clip.still for clip in held])
                    more = np.array([c.expressiveness for c in held], np.float32)
                    rows = jax.device_put((photo, still, more), split(self.mesh))
                photo = rows[0]
                sequences = np.stack(lids), np.stack(windows)
                landmarks, spoken = speak(*rows, fresh, *sequences, spoken)
                images, drawn = draw(
                    photo.image, photo.landmarks, fresh, landmarks, drawn
                )
                yield Rendered(landmarks=landmarks, **images), parts

        for made, parts in one_call_later(calls()):
            yield [
                (part, jax.tree.map(lambda x, p=part: x[p.row, : p.count], made))
                for part in parts
            ]

    def speak(
        self, photo: Photo, windows: Float32[np.ndarray, "B T 28 12"]
    ) -> Float32[np.ndarray, "B T 136"]:
        """Runs AT-net alone; returns the landmarks of every frame.  windows: MFCC."""
        no, as_trained = self._no(), np.ones(self.batch_size, np.float32)
        lids = np.zeros((self.batch_size, CHUNK), np.float32)
        run = functools.partial(self.speak_program(), photo, no, as_trained, no, lids)
        parts = in_chunks(run, windows, self.first_state().at_net)
        return np.concatenate(list(parts), axis=1)

    def draw(
        self,
        image: Float32[np.ndarray, "B S S 3"],
        example: Float32[np.ndarray, "B 136"],
        landmarks: Float32[np.ndarray, "B T 136"],
    ) -> tuple[UInt8[np.ndarray, "B T S S 3"], UInt8[np.ndarray, "B T S S"]]:
        """Runs VG-net alone; returns (frames, attention), 0..255.

        image: the photo, in [-1,1].  example: the photo's landmarks.
        """
        run = functools.partial(
            self.draw_program(("attention",)), image, example, self._no()
        )
        parts = list(in_chunks(run, landmarks, self.first_state().vg_net))
        names = "frames", "attention"
        frames, attention = (np.concatenate([x[n] for x in parts], 1) for n in names)
        return frames, attention

    def redraw(
        self, batches: Iterable[tuple[bool, list[ToDraw]]], most: int = CHUNK
    ) -> Iterator[UInt8[np.ndarray, "n S S 3"] | None]:
        """Runs VG-net with a photo of its own for every frame; yields the frames of
        each batch while the devices compute those of the next.

        batches: (whether no frame precedes, consecutive frames).  Of no frames, None is
        yielded.  There are `most` at most; fewer do not hand the recurrence's state on.
        InputError: batch_size is not 1.
        """
        if self.batch_size != 1:
            raise InputError(
                f"networks of batch_size={self.batch_size}: one video has its frames "
                "drawn in turn; make Networks with batch_size=1"
            )
        step = compiled_redraw(self.bundle.vg_net, self.mesh, self.precision)

        def calls() -> Iterator[tuple[Any, int]]:
            state = None
            for fresh, frames in batches:
                if not frames:
                    yield None, 0
                    continue
                if fresh or state is None:
                    state = self.first_state().vg_net
                rows = np.minimum(np.arange(most), len(frames) - 1)
                arrays = (np.stack(x)[rows][None] for x in zip(*frames, strict=True))
                made, state = step(self.weights.vg_net, *arrays, state)
                if len(frames) < most:  # the state is that after repeated frames
                    state = None
                yield made, len(frames)

        for made, count in one_call_later(calls()):
            yield made[0, :count] if count else None

    def speak_program(self) -> Callable[..., tuple[Any, LstmState]]:
        """AT-net's program, see compiled_speak, with the weights."""
        step = compiled_speak(self.bundle.at_net, self.mesh, self.precision)
        return functools.partial(step, self.weights._replace(vg_net=None))

    def draw_program(
        self, maps: tuple[str, ...] = ()
    ) -> Callable[..., tuple[Any, Any]]:
        """VG-net's program, see compiled_draw, with the weights."""
        step = compiled_draw(self.bundle.vg_net, self.mesh, self.precision, maps)
        return functools.partial(step, self.weights.vg_net)

    def _no(self) -> np.ndarray:
        return np.zeros(self.batch_size, bool)

    def first_state(self) -> State:
        """The state before the first frame."""
        zeros = first_state(self.bundle.at_net, self.bundle.vg_net, self.batch_size)
        return jax.device_put(zeros, state_sharding(self.mesh))


def cast_all(variables: dict[str, Any], precision: str) -> dict[str, Any]:
    """cast_variables of each network, {name: variables}; to be compiled, because run by
    itself it is a program for every shape that a weight has."""
    return {name: cast_variables(x, precision) for name, x in variables.items()}


def as_networks(bundle: Bundle | Networks | str | pathlib.Path) -> Networks:
    """The Networks of a bundle or of its folder; Networks are returned as they are."""
    if isinstance(bundle, (str, pathlib.Path)):
        bundle = load_bundle(bundle)
    return bundle if isinstance(bundle, Networks) else Networks(bundle)


def in_chunks(
    step: Callable[[Any, Any], tuple[Any, Any]],
    sequence: Float32[np.ndarray, "B T *rest"],
    state: Any,
) -> Iterator[Any]:
    """Applies `step` to a sequence chunk by chunk; yields its arrays, on the host.

    step(CHUNK frames of the sequence, state) -> (arrays [B,CHUNK,...], next state).
    The surplus results of the last chunk are cut off.  The devices compute a chunk
    while the caller works on the one before.
    """
    total = sequence.shape[1]

    def calls() -> Iterator[tuple[Any, int]]:
        now = state
        for start in range(0, total, CHUNK):
            arrays, now = step(sequence[:, chunk_at(start, total)], now)
            yield arrays, min(CHUNK, total - start)

    for arrays, count in one_call_later(calls()):
        yield jax.tree.map(lambda x, n=count: x[:, :n], arrays)


def chunk_at(start: int, total: int) -> np.ndarray:
    """The frames of a chunk: after the last of `total` frames it is repeated."""
    return np.minimum(np.arange(start, start + CHUNK), total - 1)


def frames_left(clip: Clip) -> int:
    """The clip's length, as far as somebody wants its frames."""
    return 0 if clip.given_up else len(clip.windows)


def one_call_later(calls: Iterable[tuple[Any, Any]]) -> Iterator[tuple[Any, Any]]:
    """(arrays on the devices, a note) -> (the same on the host, the note), each when
    the call after it has been started."""
    under_way = None
    for arrays, note in calls:
        for x in jax.tree.leaves(arrays):
            x.copy_to_host_async()  # as soon as they are computed
        if under_way is not None:
            yield jax.device_get(under_way[0]), under_way[1]
        under_way = arrays, note
    if under_way is not None:
        yield jax.device_get(under_way[0]), under_way[1]


# --- the compiled programs ---


def state_sharding(mesh: Mesh) -> State:
    """The recurrences' state: the axis of the clips is split over all devices."""
    second_axis = NamedSharding(mesh, PartitionSpec(None, "data"))
    return State(LstmState(second_axis, second_axis), split(mesh))


def compiler_options(mesh: Mesh) -> dict[str, str] | None:
    """On a CPU, the schedule that transforms each kernel (models/cpu/winograd.py) just
    before it is used.  XLA's default schedule transforms all of them first and holds
    the results: 290 MB at the original's width."""
    if mesh.devices.flat[0].platform != "cpu":
        return None
    return {"xla_cpu_scheduler_type": "CPU_SCHEDULER_TYPE_MEMORY_OPTIMIZED"}


@functools.cache
def compiled_speak(at_net, mesh: Mesh, precision: str):
    """(weights, photo, still, expressiveness, fresh, lids, windows, state) ->
    (landmarks, state), compiled at the first call.  fresh: bool[B], the clips that
    begin."""
    whole, rows, state = replicated(mesh), split(mesh), state_sharding(mesh).at_net

    def sound_to_landmarks(
        weights: Weights, photo: Photo, still, more, fresh, lids, windows, state
    ):
        state = restarted(state, fresh, axis=1)
        return speak(at_net, still, weights, photo, windows, state, more, lids)

    return jax.jit(
        traced(mesh, precision, sound_to_landmarks),
        in_shardings=(whole, rows, rows, rows, rows, rows, rows, state),
        out_shardings=(rows, state),
        donate_argnames="state",
        compiler_options=compiler_options(mesh),
    )


@functools.cache
def compiled_draw(vg_net, mesh: Mesh, precision: str, maps: tuple[str, ...]):
    """(variables, image, example, fresh, landmarks, state) -> (pictures, state).

    It is a program of its own, and AT-net's another, because XLA rounds otherwise in a
    program of both: so a talker, whose programs are of other numbers of frames, makes
    the same frames.  maps: names of Rendered's that pictures has beside "frames".
    """
    whole, rows = replicated(mesh), split(mesh)

    def landmarks_to_frames(variables, image, example, fresh, landmarks, state):
        state = restarted(state, fresh, axis=0)
        drawn = vg_net.apply(variables, image, landmarks, example, state=state)
        attention = 2 * drawn.attention[..., 0] - 1  # (0,1) -> (-1,1)
        shown = drawn._replace(attention=attention)._asdict()
        return {name: to_u8(shown[name]) for name in ("frames", *maps)}, drawn.state

    return jax.jit(
        traced(mesh, precision, landmarks_to_frames),
        in_shardings=(whole, rows, rows, rows, rows, rows),
        out_shardings=(rows, rows),
        donate_argnames="state",
        compiler_options=compiler_options(mesh),
    )


@functools.cache
def compiled_redraw(vg_net, mesh: Mesh, precision: str):
    """(variables, images, examples, landmarks, state) -> (frames, state): as
    compiled_draw, with a photo of every frame, u8[B,T,S,S,3]."""
    whole, rows = replicated(mesh), split(mesh)

    def redraw(variables, images, examples, landmarks, state):
        images = images.astype(np.float32) / 127.5 - 1
        drawn = vg_net.apply(variables, images, landmarks, examples, state=state)
        return to_u8(drawn.frames), drawn.state

    return jax.jit(
        traced(mesh, precision, redraw),
        in_shardings=(whole, rows, rows, rows, rows),
        out_shardings=(rows, rows),
        donate_argnames="state",
        compiler_options=compiler_options(mesh),
    )
