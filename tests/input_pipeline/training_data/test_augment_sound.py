"""Augmentation of what AT-net hears: noise, another voice, another tempo."""

import dataclasses

import numpy as np
import pytest
from scipy.signal import lfilter

from input_pipeline.media import audio
from input_pipeline.training_data import augment, sampling, synthetic

OFF = augment.Strength()


def drawn(seed: int, **strength) -> augment.Augmentation:
    random = np.random.default_rng(seed)
    return augment.draw(random, dataclasses.replace(OFF, **strength))


def test_a_louder_sound_moves_only_the_column_that_windows_leave_out():
    """g times the waveform: log energy + 2 ln g, cepstra 1..12 as they were."""
    sound = np.random.default_rng(0).normal(size=16000).astype(np.float32)
    quiet, loud = audio.mfcc(sound), audio.mfcc(3 * sound)
    np.testing.assert_allclose(loud[:, 1:], quiet[:, 1:], atol=2e-3)
    np.testing.assert_allclose(loud[:, 0] - quiet[:, 0], 2 * np.log(3), atol=1e-3)


def test_noise_is_a_share_of_every_columns_spread():
    random = np.random.default_rng(0)
    mfcc = (random.normal(size=(4000, 13)) * np.arange(1, 14)).astype(np.float32)
    change = drawn(0)._replace(noise=0.1)
    added = augment.change_sound(change, mfcc) - mfcc
    np.testing.assert_allclose(added.std(0), 0.1 * mfcc.std(0), rtol=0.1)
    assert np.abs(added.mean(0) / added.std(0)).max() < 0.1


# --- another voice ---


def vowel(factor: float) -> np.ndarray:
    """A second of a buzz of 160 Hz through three resonances, `factor` times as high."""
    sound = 0.01 * np.random.default_rng(0).normal(size=16000)
    sound[::100] += 1
    for centre, width in ((500, 80), (1500, 120), (2500, 160)):
        radius = np.exp(-np.pi * width * factor / 16000)
        angle = 2 * np.pi * centre * factor / 16000
        sound = lfilter([1], [1, -2 * radius * np.cos(angle), radius**2], sound)
    return (sound / np.abs(sound).max()).astype(np.float32)


def timbre(sound: np.ndarray) -> np.ndarray:
    """Mean cepstra 1..12, without the ends."""
    return audio.mfcc(sound)[5:-5, 1:].mean(0)


@pytest.mark.parametrize("factor", [0.9, 1.1])
def test_another_voice_is_nearly_that_of_shifted_resonances(factor):
    plain, wanted = timbre(vowel(1.0)), timbre(vowel(factor))
    made = augment.other_voice(factor) @ plain
    apart = np.linalg.norm(made - wanted)
    assert apart < 0.5 * np.linalg.norm(plain - wanted)
    other_way = augment.other_voice(1 / factor) @ plain
    assert apart < np.linalg.norm(other_way - wanted) / 3


def test_the_same_voice_is_the_unit_matrix_and_energy_stays():
    np.testing.assert_allclose(augment.other_voice(1.0), np.eye(12), atol=1e-6)
    mfcc = np.random.default_rng(0).normal(size=(40, 13)).astype(np.float32)
    before = mfcc.copy()
    changed = augment.change_sound(drawn(0)._replace(voice=1.1), mfcc)
    np.testing.assert_array_equal(mfcc, before)
    np.testing.assert_array_equal(changed[:, 0], mfcc[:, 0])
    assert not np.allclose(changed[:, 1:], mfcc[:, 1:])


# --- another tempo ---


def ramp(frames: int) -> tuple[np.ndarray, np.ndarray]:
    """Landmarks that are the frame's time, MFCC rows that are theirs: frame t hears
    rows whose mean is t."""
    t = np.arange(frames, dtype=np.float32)
    landmarks = np.broadcast_to(t[:, None, None], (frames, 68, 2))
    rows = (np.arange(4 * (frames + 6), dtype=np.float32) - 13.5) / 4
    return landmarks, np.broadcast_to(rows[:, None], (len(rows), 13))


@pytest.mark.parametrize("tempo", [0.8, 1.0, 1.25])
def test_face_and_sound_keep_in_step_at_another_tempo(tempo):
    """Frame n shows time tempo n, and its window is centred there."""
    landmarks, mfcc = augment.change_tempo(tempo, *ramp(41))
    count = {0.8: 51, 1.0: 41, 1.25: 33}[tempo]
    assert landmarks.shape == (count, 68, 2) and mfcc.shape == (4 * (count + 6), 13)
    assert landmarks.dtype == mfcc.dtype == np.float32
    times = tempo * np.arange(count)
    np.testing.assert_allclose(landmarks[:, 5, 1], times, atol=1e-4)
    for n in range(4, count - 4):  # elsewhere the ends are repeated
        window = mfcc[4 * n : 4 * n + 28, 3]
        np.testing.assert_allclose(window.mean(), times[n], atol=1e-4)
        np.testing.assert_allclose(np.diff(window), tempo / 4, atol=1e-4)


def test_a_faster_clip_still_fills_the_window():
    """12 frames, and 11 wanted: no faster than 1.1."""
    clips = synthetic.SyntheticClips(1, 12)
    fast = augment.Strength(tempo=3.0)
    tempos = [sampling.augmentation((0, 0, i), fast).tempo for i in range(9)]
    assert max(tempos) > 2 and min(tempos) < 0.5
    for place in range(9):
        example = sampling.at_example(clips[0], clips.pca(3), (0, 0, place), 11, fast)
        assert example.audio.shape == (11, 28, 12)
        assert example.coefficients.shape == (11, 3)
