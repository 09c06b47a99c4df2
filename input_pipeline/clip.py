"""The contract between the data and the networks: rates, shapes, point groups.

Both towers import this file and nothing else of each other.  Letters used in shapes:
B clips, T frames at 25 fps, H=W 128 pixels, K PCA coefficients, M MFCC rows at 100 Hz,
L = 136 = 68 points x (x, y), N audio samples at 16 kHz.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

FRAME_RATE = 25  # video frames a second
SAMPLE_RATE = 16_000  # audio samples a second
MFCC_RATE = 100  # MFCC rows a second
MFCC_SIZE = 13  # cepstral coefficients a row; column 0 is the log energy

ROWS_PER_FRAME = MFCC_RATE // FRAME_RATE
CONTEXT_FRAMES = 3  # an audio window sees this many frames before and after its own
WINDOW_ROWS = (2 * CONTEXT_FRAMES + 1) * ROWS_PER_FRAME  # 28 rows = 280 ms
WINDOW_SIZE = MFCC_SIZE - 1  # columns 1..12: a window leaves the energy out

CROP_SIZE = 128  # pixels, both sides of the aligned face
NUM_POINTS = 68  # facial points in the 300-W order
NOSE = slice(27, 36)
MOUTH = slice(48, 68)
INNER_LIPS = slice(60, 68)
UPPER_RIM, LOWER_RIM = (61, 62, 63), (67, 66, 65)  # of the inner lips


class InputError(ValueError):
    """Bad input from outside: the message names the value, the rule and the remedy."""


class Pca(NamedTuple):
    """A linear model of landmarks: p = h U^T + M.  CVPR 2019, section 3.1.

    mean: f32[L], M.  components: f32[L,K], U, orthonormal columns.  Plain arithmetic,
    so that numpy and JAX arrays serve alike.
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
    """One face speaking: what `prepare` writes and the loader reads.

    frames: T aligned faces, each a 128x128 RGB picture as JPEG bytes, at 25 fps.
    landmarks: f32[T,68,2], the crop's coordinates in [-1,1] (landmarks.normalise).
    mfcc: f32[M,13] at 100 Hz, M = 4T + 24: frame t hears rows 4t .. 4t+27, from 0.12 s
    before its start to 0.16 s after it (columns 1..12).
    transforms: f32[T,2,3], similarities from crop pixels to the source's pixels.
    corpus, speaker, clip_id: names; (corpus, clip_id) is unique.
    words: (word, first, last second) of each word, where the corpus tells them.
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
    """What AT-net learns from: reference frame, sound, target frames.

    example: f32[B,K], the reference frame's coefficients.  audio: f32[B,T,28,12].
    coefficients: f32[B,T,K].
    """

    example: Any
    audio: Any
    coefficients: Any


class VgBatch(NamedTuple):
    """What VG-net learns from: reference frame and consecutive target frames.

    image: f32[B,H,W,3] in [-1,1].  example: f32[B,L], its landmarks.
    frames: f32[B,T,H,W,3] in [-1,1].  landmarks: f32[B,T,L].
    """

    image: Any
    example: Any
    frames: Any
    landmarks: Any


class EvaluationBatch(NamedTuple):
    """Whole clips, the photo their first frame, padded with zeros to one length T.

    index: i32[B], which clips of the split; -1 where `valid` is 0.
    valid: f32[B], 1 for a clip, 0 for a row that only fills the batch.
    frame_valid: f32[B,T], 1 for a clip's frames, the photo's own among them.
    at, vg: as in training; None where not asked for.
    """

    index: Any
    valid: Any
    frame_valid: Any
    at: AtBatch | None
    vg: VgBatch | None
