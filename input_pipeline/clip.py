"""What the data pipeline and the networks agree on: rates, shapes, groups of points.

`input_pipeline` produces the tuples below and `jax_atvg` consumes them; neither numpy
nor JAX is imported here.  Letters used in shapes: B clips, T frames at 25 fps, H=W 128
pixels, K PCA coefficients, M MFCC rows at 100 Hz, L = 136 = 68 points x (x, y),
N audio samples at 16 kHz.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

FRAME_RATE = 25  # video frames a second
SAMPLE_RATE = 16_000  # audio samples a second
MFCC_RATE = 100  # MFCC rows a second
MFCC_SIZE = 13  # cepstral coefficients a row; column 0 is the log energy

ROWS_PER_FRAME = MFCC_RATE // FRAME_RATE
CONTEXT_FRAMES = 3  # frames that an audio window covers on each side of its own
WINDOW_ROWS = (2 * CONTEXT_FRAMES + 1) * ROWS_PER_FRAME  # 28 rows = 280 ms
WINDOW_SIZE = MFCC_SIZE - 1  # a window has columns 1..12, without the log energy

CROP_SIZE = 128  # pixels, both sides of the aligned face
NUM_POINTS = 68  # points of a face, in the order of 300-W
NOSE = slice(27, 36)
RIGHT_EYE, LEFT_EYE = slice(36, 42), slice(42, 48)  # of the person
MOUTH = slice(48, 68)
INNER_LIPS = slice(60, 68)
UPPER_RIM, LOWER_RIM = (61, 62, 63), (67, 66, 65)  # facing points of the inner lips
CLOSED_LIPS = 1.0  # crop pixels: inner lips that are less far apart are closed


class InputError(ValueError):
    """A file, flag or dataset from outside the program cannot be used.

    The message names the value, the rule and the remedy.
    """


def first_line(error: BaseException) -> str:
    """What an InputError quotes of another error: orbax and others write pages."""
    return (str(error).splitlines() or [""])[0][:200]


class Pca(NamedTuple):
    """A linear model of landmarks: p = h U^T + M.  CVPR 2019, section 3.1.

    mean: f32[L], M.  components: f32[L,K], U, orthonormal columns.  The methods work on
    numpy and on JAX arrays.
    """

    mean: Any
    components: Any

    def project(self, landmarks):
        """landmarks f32[...,L] -> coefficients h f32[...,K]."""
        return (landmarks - self.mean) @ self.components

    def reconstruct(self, coefficients):
        """coefficients h f32[...,K] -> landmarks f32[...,L]."""
        return coefficients @ self.components.T + self.mean


class Clip(NamedTuple):
    """A clip of one speaking face, as `prepare` writes it and the loader reads it.

    frames: T aligned faces, each a 128x128 RGB picture as JPEG bytes, at 25 fps.
    landmarks: f32[T,68,2], positions in the crop, [-1,1] (landmarks.normalise).
    mfcc: f32[M,13] at 100 Hz, M = 4T + 24.  The audio window of frame t is rows
    4t .. 4t+27, columns 1..12: from 0.12 s before the frame's start to 0.16 s after it.
    transforms: f32[T,2,3], similarities from crop pixels to the source's pixels.
    corpus, speaker, clip_id: names; (corpus, clip_id) is unique.
    words: (word, first second, last second) of each word, if the corpus has timings.
    """

    frames: Sequence[bytes]
    landmarks: Any
    mfcc: Any
    transforms: Any
    corpus: str
    speaker: str
    clip_id: str
    words: Sequence[tuple[str, float, float]] = ()


class AtBatch(NamedTuple):
    """A training batch of AT-net: reference landmarks, sound, and target landmarks.

    example: f32[B,K], PCA coefficients of the reference frame.  audio: f32[B,T,28,12],
    the audio window of each target frame.  coefficients: f32[B,T,K], of the targets.
    """

    example: Any
    audio: Any
    coefficients: Any


class Colour(NamedTuple):
    """Another light for pictures, the same for all those of an example.

    A colour c in [0,1] becomes gain tint c^gamma + offset; its distance to grey, the
    mean of its channels, is then multiplied by saturation.  gain, offset, gamma,
    saturation: f32[B].  tint: f32[B,3].
    """

    gain: Any
    tint: Any
    offset: Any
    gamma: Any
    saturation: Any


class VgBatch(NamedTuple):
    """A training batch of VG-net: a reference frame and consecutive target frames.

    image: u8[B,H,W,3], RGB, the reference.  example: f32[B,L], its landmarks.
    frames: u8[B,T,H,W,3], the targets.  landmarks: f32[B,T,L], theirs.
    colour: how the light of image and frames is to change; None: it stays.
    A training step makes the pictures f32 in [-1,1], and takes those that already are.
    """

    image: Any
    example: Any
    frames: Any
    landmarks: Any
    colour: Colour | None = None


class EvaluationBatch(NamedTuple):
    """A batch of whole clips for evaluation; the first frame of each is the photo.

    Clips are padded with zeros to one length T.
    index: i32[B], which clips of the split these are; -1 where `valid` is 0.
    valid: f32[B], 1 for a clip, 0 for a row that only fills the batch.
    frame_valid: f32[B,T], 1 for a clip's frames (the photo among them), 0 for padding.
    at, vg: as in training; None if not requested.
    """

    index: Any
    valid: Any
    frame_valid: Any
    at: AtBatch | None
    vg: VgBatch | None
