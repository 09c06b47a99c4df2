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
from jax_atvg.inference.networks import Networks, as_networks
from jax_atvg.inference.options import Look, checked_expressiveness
from jax_atvg.inference.painting import Painter
from jax_atvg.inference.predict import Photo
from jax_atvg.models.lstm import LstmState
from jax_atvg.resources import DEFAULT_BUNDLE

# Windows of a call of AT-net that has the roundings of animate's calls: of fewer
# windows XLA computes some products by other kernels.  A call that is not full is made
# again with the windows that follow.
HEARD = 4


class Talker:
    """Makes frames of sound that comes piece by piece.

    photo, bundle, face, and full_frame to expressiveness: see animate; talkers can
    share Networks.  rate: samples a second of the sound; at 16000 there is no
    resampler, which is late by up to 40 ms at 44100 and 115 ms at 8000.  The talker's
    memory does not grow.
    On a CPU the frames are, bit for bit, those of animate, however the sound is
    divided; elsewhere, but for roundings.  (What cannot be known in advance: where a
    whole recording is silent animate lets the mouth rest, and of two channels of which
    one is the other inverted it takes the louder, a talker the mean.)
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
    ):
        self.networks, self.rate = as_networks(bundle), rate
        if self.networks.batch_size != 1:
            raise InputError(
                f"networks of batch_size={self.networks.batch_size}: a talker has one "
                "face; make Networks with batch_size=1"
            )
        self.subject = read_subject(photo, self.networks.bundle, face)
        look = Look(full_frame, label, blinks, head_movement, seed)
        closes_eyes = self.networks.bundle.vg_net.closes_eyes
        self.show = Painter(self.subject, look, closes_eyes)
        self.size = self.show.size
        self.expressiveness = checked_expressiveness(expressiveness)
        self._begin()

    def _begin(self) -> None:
        self.count = 0  # frames given
        self.sound = SoundStream(self.rate)
        # Before the first window of `heard`; before the next frame.
        self.spoken, self.drawn = self.networks.first_state()
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
            done, room = len(self.heard), HEARD - len(self.heard)
            self.heard = np.concatenate([self.heard, windows[:room]])
            windows = windows[room:]
            for landmarks in self._landmarks()[done:]:
                frame, self.drawn = draw(
                    self.networks, self.subject.photo, landmarks, self.drawn
                )
                made.append(self.show(np.asarray(frame), self.count))
                self.count += 1
        return np.stack(made) if made else np.zeros((0, *self.size, 3), np.uint8)

    def _landmarks(self) -> Float32[np.ndarray, "n 136"]:
        """Those of all windows of this call; the state is kept after a full one."""
        count = len(self.heard)
        full = count == HEARD
        # Every full call gave HEARD frames, so that this one begins at a multiple.
        lids = self.show.lids(HEARD, self.count - self.count % HEARD)
        # The program takes the state's memory for the next one.
        state = self.spoken if full else copied(self.spoken)
        windows = self.heard[np.minimum(np.arange(HEARD), count - 1)]
        landmarks, state = speak(
            self.networks, self.subject.photo, windows, state, self.expressiveness, lids
        )
        if full:
            self.spoken, self.heard = state, self.heard[:0]
        return np.asarray(landmarks)[:count]


@jax.jit
def copied(state: LstmState) -> LstmState:
    """The state in memory of its own."""
    return jax.tree.map(jnp.copy, state)


def speak(
    networks: Networks,
    photo: Photo,
    windows: Float32[np.ndarray, "n 28 12"],
    state: LstmState,
    expressiveness: float = 1.0,
    lids: Float32[np.ndarray, "n"] | None = None,
) -> tuple[Float32[jax.Array, "n 136"], LstmState]:
    """One face's landmarks, and the state after them; the given one is used up."""
    no, more = np.zeros(1, bool), np.full(1, expressiveness, np.float32)
    lids = np.zeros(len(windows), np.float32) if lids is None else lids
    program = networks.speak_program()
    landmarks, state = program(photo, no, more, no, lids[None], windows[None], state)
    return landmarks[0], state


def draw(
    networks: Networks,
    photo: Photo,
    landmarks: Float32[np.ndarray, "136"],
    state: jax.Array,
) -> tuple[UInt8[jax.Array, "S S 3"], jax.Array]:
    """One face's next frame, and the state after it; the given one is used up."""
    no, program = np.zeros(1, bool), networks.draw_program()
    marks = landmarks[None, None]
    made, state = program(photo.image, photo.landmarks, no, marks, state)
    return made["frames"][0, 0], state


def warm_up(networks: Networks, photo: Photo) -> None:
    """Compiles what a talker calls, so that the first frame does not wait for it."""
    windows = np.zeros((HEARD, WINDOW_ROWS, WINDOW_SIZE), np.float32)
    spoken, drawn = networks.first_state()
    landmarks, _ = speak(networks, photo, windows, copied(spoken))
    draw(networks, photo, np.asarray(landmarks)[0], drawn)[0].block_until_ready()
