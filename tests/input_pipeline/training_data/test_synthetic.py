"""Synthetic clips: shapes as in clip.py, seeds, and a sound that tells the mouth."""

import numpy as np
import pytest

from input_pipeline.clip import INNER_LIPS, MOUTH
from input_pipeline.faces import landmarks
from input_pipeline.training_data import sampling
from input_pipeline.training_data.synthetic import SyntheticClips


@pytest.fixture(scope="module")
def clips():
    return SyntheticClips(8, 50)


@pytest.mark.parametrize("length", [1, 16, 75])
def test_a_clip_has_the_shapes_of_the_contract(length):
    clip = SyntheticClips(1, length)[0]
    assert len(clip.frames) == length
    assert clip.landmarks.shape == (length, 68, 2)
    assert clip.mfcc.shape == (4 * length + 24, 13)
    assert clip.transforms.shape == (length, 2, 3)
    for part in (clip.landmarks, clip.mfcc, clip.transforms):
        assert part.dtype == np.float32 and np.isfinite(part).all()
    assert sampling.decode(clip, range(length)).shape == (length, 128, 128, 3)
    assert np.abs(clip.landmarks).max() < 1


def test_a_seed_is_a_dataset(clips):
    again, other = SyntheticClips(8, 50), SyntheticClips(8, 50, seed=1)
    assert again[3].frames == clips[3].frames
    np.testing.assert_array_equal(again[3].mfcc, clips[3].mfcc)
    assert other[3].frames != clips[3].frames
    assert clips[3] is clips[3]  # kept


def test_lengths_speakers_and_names_are_told_without_making_a_clip():
    clips = SyntheticClips(1_000_000, 75, num_speakers=3)
    assert len(clips) == len(clips.lengths) == len(clips.clip_ids) == 1_000_000
    assert set(clips.speakers) == {"cartoon0", "cartoon1", "cartoon2"}
    assert list(SyntheticClips(2, [20, 30]).lengths) == [20, 30]
    for i in (2, -3):
        with pytest.raises(IndexError):
            SyntheticClips(2, 20)[i]


def opening(shapes):
    return shapes[:, 66, 1] - shapes[:, 62, 1]


def test_the_mouth_can_be_heard_without_the_energy(clips):
    """By a linear map from audio windows to the mouth, fitted to other clips."""
    sound = [sampling.audio_windows(clips[i]).reshape(50, -1) for i in range(8)]
    mouths = [
        np.stack([opening(p), p[:, 54, 0] - p[:, 48, 0]], axis=1)
        for p in (clips[i].landmarks for i in range(8))
    ]
    x, y = np.concatenate(sound[:6]), np.concatenate(mouths[:6])
    centre, scale, level = x.mean(0), x.std(0) + 1e-6, y.mean(0)
    z = (x - centre) / scale
    weights = np.linalg.solve(z.T @ z + 30 * np.eye(z.shape[1]), z.T @ (y - level))
    heard = (np.concatenate(sound[6:]) - centre) / scale @ weights
    for j in range(2):
        assert np.corrcoef(heard[:, j], np.concatenate(mouths[6:])[:, j])[0, 1] > 0.95


def test_the_sound_is_loud_where_the_mouth_is_open(clips):
    clip = clips[0]
    energy = clip.mfcc[12 : 12 + 4 * 50 : 4, 0]  # rows at the frames' own times
    assert np.corrcoef(energy, opening(clip.landmarks))[0, 1] > 0.6


def test_the_picture_shows_the_landmarks(clips):
    """An open mouth is dark or teeth between the inner lips, never skin."""
    clip = clips[0]
    t = int(opening(clip.landmarks).argmax())
    (picture,) = sampling.decode(clip, [t])
    points = landmarks.to_pixels(clip.landmarks.reshape(-1, 136))[t]
    skin = picture[65, 63].astype(int)  # between nose and mouth
    x, y = points[INNER_LIPS].mean(axis=0).round().astype(int)
    assert np.abs(picture[y, x] - skin).max() > 60
    still = int(opening(clip.landmarks).argmin())
    (quiet,) = sampling.decode(clip, [still])
    changed = np.abs(picture.astype(int) - quiet).max(axis=-1) > 40
    rows = np.flatnonzero(changed.any(axis=1))
    assert rows.min() > points[MOUTH, 1].min() - 6  # only the lower face moves


def test_the_pca_of_a_set_reconstructs_it(clips):
    pca = clips.pca(8)
    flat = clips[2].landmarks.reshape(50, 136)
    error = pca.reconstruct(pca.project(flat)) - flat
    assert np.abs(error).max() * 64 < 0.5  # pixels
