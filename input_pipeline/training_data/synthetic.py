"""Synthetic clips: cartoon faces that move their mouths and have a matching voice.

They serve tests and trial runs, where no data are at hand.  The voice is a sum of
harmonics with two formants: opening the mouth makes it louder and raises the first
formant, widening the mouth raises the second.  The mouth's shape can therefore be told
from the cepstra, even without the energy.
"""

import functools
import json
import pathlib
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from input_pipeline.clip import (
    FRAME_RATE,
    NUM_POINTS,
    SAMPLE_RATE,
    Clip,
    Pca,
)
from input_pipeline.faces import align, landmarks
from input_pipeline.media import features
from input_pipeline.training_data import dataset, records
from input_pipeline.training_data.cartoon import (
    Speaker,
    draw_face,
    encode,
    face_points,
    make_speaker,
)


class SyntheticClips(Sequence):
    """The interface of dataset.Clips: len, [i] -> Clip, lengths, speakers, clip_ids,
    corpora.

    num_frames: of every clip, or one number for each.  A clip is made when it is first
    indexed, and then kept in memory.
    """

    def __init__(
        self,
        num_clips: int,
        num_frames: int | Sequence[int] = 75,
        seed: int = 0,
        num_speakers: int = 4,
    ):
        self.seed = seed
        self.lengths = np.broadcast_to(np.asarray(num_frames), (num_clips,)).copy()
        self.speakers = [f"cartoon{i % num_speakers}" for i in range(num_clips)]
        self.clip_ids = [f"{who}/{i:04d}" for i, who in enumerate(self.speakers)]
        self.corpora = ["synthetic"] * num_clips
        self._who = [i % num_speakers for i in range(num_clips)]
        self._kept = {}

    def __len__(self) -> int:
        return len(self.lengths)

    def __getitem__(self, i: int) -> Clip:
        if not 0 <= i < len(self):
            raise IndexError(i)
        if i not in self._kept:
            self._kept[i] = self._make(i)
        return self._kept[i]

    def landmarks(self, i: int) -> Float[np.ndarray, "T 68 2"]:
        """The clip's landmarks, without drawing it."""
        opening, width = self._mouth(i)(frame_times(int(self.lengths[i])))
        points = face_points(self._speaker(i), opening, width)
        return landmarks.normalise(points).reshape(-1, NUM_POINTS, 2)

    def pca(self, num_coefficients: int) -> Pca:
        """The PCA model of all clips' landmarks.  InputError: see landmarks.fit_pca."""
        return landmarks.fit_pca(self._shapes(), num_coefficients)[0]

    def _shapes(self):
        return (self.landmarks(i).reshape(-1, 136) for i in range(len(self)))

    def _speaker(self, i: int) -> Speaker:
        return make_speaker(self.seed, self._who[i])

    def _mouth(self, i: int):
        return functools.partial(mouth, self.seed, i)

    def _make(self, i: int) -> Clip:
        length, speaker = int(self.lengths[i]), self._speaker(i)
        points = landmarks.to_pixels(self.landmarks(i).reshape(length, 136))
        sound = voice(self._mouth(i), speaker.pitch, length)
        return Clip(
            frames=[encode(draw_face(speaker, face)) for face in points],
            landmarks=self.landmarks(i),
            mfcc=features.mfcc(sound),
            transforms=np.tile(np.eye(2, 3, dtype=np.float32), (length, 1, 1)),
            corpus="synthetic",
            speaker=self.speakers[i],
            clip_id=self.clip_ids[i],
        )


# --- sound ---


def frame_times(num_frames: int) -> Float[np.ndarray, "T"]:
    """The middles of the frames, in seconds."""
    return (np.arange(num_frames) + 0.5) / FRAME_RATE


def mouth(
    seed: int, clip: int, seconds: Float[np.ndarray, "n"]
) -> tuple[Float[np.ndarray, "n"], Float[np.ndarray, "n"]]:
    """The mouth's (opening in [0,1], width in [-1,1]) at times, which may be negative.

    Syllables take 0.2 to 0.4 s; within one, the opening follows sin^2.
    """
    random = np.random.default_rng([seed, 2, clip])
    opening, width, start = np.zeros(len(seconds)), np.zeros(len(seconds)), -0.4
    while start < seconds[-1]:
        length, height, breadth = random.uniform((0.2, 0.3, -1), (0.4, 1, 1))
        inside = (seconds - start) / length
        bump = np.where((inside > 0) & (inside < 1), np.sin(np.pi * inside) ** 2, 0)
        opening += height * bump
        width += breadth * bump
        start += length + random.choice([0, 0.05, 0.25])
    return opening, width


def voice(mouth_at, pitch: float, num_frames: int) -> Float[np.ndarray, "N"]:
    """The sound of a moving mouth at 16 kHz, from 0.12 s before the first frame.

    mouth_at: seconds -> (opening, width).  N is enough for 4T+24 MFCC rows.
    """
    hop = SAMPLE_RATE // FRAME_RATE
    count = (num_frames + 6) * hop + features.ROW_SAMPLES - features.HOP
    times = (np.arange(count) - features.PADDING) / SAMPLE_RATE
    opening, width = mouth_at(times)
    first, second = 300 + 500 * opening, 1500 + 700 * width  # formants, Hz
    sound = 0.003 * np.random.default_rng(0).standard_normal(count)
    for k in range(1, int(3500 / pitch)):
        shape = np.exp(-(((k * pitch - first) / 150) ** 2))
        shape += 0.6 * np.exp(-(((k * pitch - second) / 250) ** 2))
        sound += 0.2 * opening * shape * np.sin(2 * np.pi * k * pitch * times)
    return sound


# --- on disk ---


def write_dataset(data_dir: str | pathlib.Path, **splits: SyntheticClips) -> None:
    """Writes a dataset of synthetic clips, with all that training and evaluation read.

    splits: the clips of each split, as train=clips.  The PCA model has 20 components,
    or as many as the frames of `train`, to which it is fitted, allow.
    """
    shards = {name: [lambda c=clips: iter(c)] for name, clips in splits.items()}
    folder = records.write_shards(pathlib.Path(data_dir), "folder", shards)
    train = splits["train"]
    dataset.write_pca(folder / "pca.npz", train._shapes(), 20)
    index = {
        f"{name}/{field}": np.array(getattr(clips, field))
        for name, clips in splits.items()
        for field in ("lengths", "speakers", "clip_ids")
    }
    np.savez(folder / "index.npz", **index)
    points, indices = align.DEFAULT_TEMPLATE  # which cartoons follow only roughly
    template = {"points": points.tolist(), "indices": list(indices)}
    options = json.dumps({"options": {"template": template}})
    (folder / "options.json").write_text(options)
