"""A photo that speaks while the sound is still being recorded.

    talker = Talker("face.jpg", rate=48000)
    for samples in microphone:
        show(talker.push(samples))      # u8[n,128,128,3], the frames that are ready
    show(talker.flush())

The frames are those that animate makes of the whole recording, but it need not wait for
it: a frame is made as soon as the sound is there that its audio window covers, 135 ms
beyond the frame's own 40 ms.
"""

import pathlib

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float32, UInt8

from input_pipeline.clip import SAMPLE_RATE, WINDOW_ROWS, WINDOW_SIZE, InputError
from input_pipeline.media.audio import IntegerSound, Sound
from input_pipeline.media.streaming import SoundStream
from jax_atvg.inference.animate import Picture, read_subject
from jax_atvg.inference.bundle import Bundle
from jax_atvg.inference.networks import Networks, as_networks, compiled_predict
from jax_atvg.inference.options import Look, checked_expressiveness
from jax_atvg.inference.painting import Painter
from jax_atvg.inference.predict import Photo, State, first_state
from jax_atvg.resources import DEFAULT_BUNDLE

# Frames of a call of the networks that has the roundings of animate's calls: of fewer
# frames XLA computes some products by other kernels.  A call that is not full is made
# again with the frames that follow.
CHUNK = 4


class Talker:
    """Makes frames of sound that comes piece by piece.

    photo, bundle, face, and full_frame to expressiveness: see animate; talkers can
    share Networks.  rate: samples a second of the sound; at 16000 there is no
    resampler, which is late by up to 40 ms at 44100 and 115 ms at 8000.  The talker's
    memory does not grow.
    exact: on a CPU the frames are, bit for bit, those of animate, however the sound is
    divided.  Otherwise each is computed alone, three times as fast; of a million values
    ten differ, by 1.  (Where a whole recording is silent animate lets the mouth rest,
    which cannot be known in advance.)
    InputError: the photo, the bundle or the rate cannot be used.
    """

    def __init__(
        self,
        photo: str | pathlib.Path | Picture,
        bundle: Bundle | Networks | str | pathlib.Path = DEFAULT_BUNDLE,
        *,
        rate: int = SAMPLE_RATE,
        face: str = "largest",
        full_frame: bool = False,
        label: bool = False,
        blinks: bool = True,
        head_movement: bool = False,
        seed: int = 0,
        expressiveness: float = 1.0,
        exact: bool = True,
    ):
        self.networks, self.rate = as_networks(bundle), rate
        if self.networks.batch_size != 1:
            raise InputError(
                f"networks of batch_size={self.networks.batch_size}: a talker has one "
                "face; make Networks with batch_size=1"
            )
        self.subject = read_subject(photo, self.networks.bundle, face)
        self.chunk = CHUNK if exact else 1
        look = Look(full_frame, label, blinks, head_movement, seed)
        self.show = Painter(self.subject, look)
        self.size = self.show.size
        self.expressiveness = checked_expressiveness(expressiveness)
        self._begin()

    def _begin(self) -> None:
        self.count = 0  # frames given
        self.sound = SoundStream(self.rate)
        self.state = beginning(self.networks)
        self.heard = np.zeros((0, WINDOW_ROWS, WINDOW_SIZE), np.float32)

    def push(
        self, samples: Sound | IntegerSound
    ) -> UInt8[np.ndarray, "n height width 3"]:
        """Takes the next samples; returns the frames that follow the last ones given,
        as far as their sound is there.

        samples: f[N] or [N,C] in [-1,1], or integers.
        InputError: a sample is not finite or far too loud; none of these is taken.
        """
        return self._frames(self.sound.push(samples))

    def flush(self) -> UInt8[np.ndarray, "n height width 3"]:
        """The rest of the frames: no sound will follow.  What is pushed afterwards is a
        new recording.  InputError: it was shorter than 280 ms in all."""
        try:
            return self._frames(self.sound.close())
        finally:
            self._begin()

    def _frames(self, windows: Float32[np.ndarray, "n 28 12"]) -> np.ndarray:
        made = []
        while len(windows):
            done, room = len(self.heard), self.chunk - len(self.heard)
            self.heard = np.concatenate([self.heard, windows[:room]])
            windows = windows[room:]
            for frame in self._call()[done:]:
                made.append(self.show(frame, self.count))
                self.count += 1
        return np.stack(made) if made else np.zeros((0, *self.size, 3), np.uint8)

    def _call(self) -> UInt8[np.ndarray, "n S S 3"]:
        """The frames of all windows of this call; the state after a full one."""
        count = len(self.heard)
        full = count == self.chunk
        # The program takes the state's memory for the next one.
        state = self.state if full else jax.tree.map(jnp.copy, self.state)
        windows = self.heard[np.minimum(np.arange(self.chunk), count - 1)]
        frames, state = call(
            self.networks, self.subject.photo, windows, state, self.expressiveness
        )
        if full:
            self.state, self.heard = state, self.heard[:0]
        return np.asarray(frames)[:count]


def call(
    networks: Networks,
    photo: Photo,
    windows: Float32[np.ndarray, "n 28 12"],
    state: State,
    expressiveness: float = 1.0,
) -> tuple[UInt8[jax.Array, "n S S 3"], State]:
    """The frames of one photo, and the state after them; the given one is used up."""
    step = compiled_predict(*networks.sizes, networks.mesh, networks.precision, False)
    no, more = np.zeros(1, bool), np.full(1, expressiveness, np.float32)
    made, state = step(networks.weights, photo, no, more, no, windows[None], state)
    return made.frames[0], state


def beginning(networks: Networks) -> State:
    """The state before the first frame."""
    return jax.tree.map(jnp.asarray, first_state(*networks.sizes))


def warm_up(networks: Networks, photo: Photo) -> None:
    """Compiles what a talker that is not exact calls, so that the first frame does not
    wait for it."""
    windows = np.zeros((1, WINDOW_ROWS, WINDOW_SIZE), np.float32)
    jax.block_until_ready(call(networks, photo, windows, beginning(networks)))
