"""Augmentation of what AT-net hears: noise, another voice, another tempo."""

import dataclasses

import numpy as np
import pytest
import scipy.fft
from scipy.signal import lfilter

from input_pipeline.media import features
from input_pipeline.training_data import augment, augment_sound, sampling, synthetic

OFF = augment.Strength()


def drawn(seed: int, **strength) -> augment.Augmentation:
    random = np.random.default_rng(seed)
    return augment.draw(random, dataclasses.replace(OFF, **strength))


def test_a_louder_sound_moves_only_the_column_that_windows_leave_out():
    """g times the waveform: log energy + 2 ln g, cepstra 1..12 as they were."""
    sound = np.random.default_rng(0).normal(size=16000).astype(np.float32)
    quiet, loud = features.mfcc(sound), features.mfcc(3 * sound)
    np.testing.assert_allclose(loud[:, 1:], quiet[:, 1:], atol=2e-3)
    np.testing.assert_allclose(loud[:, 0] - quiet[:, 0], 2 * np.log(3), atol=1e-3)


def test_noise_is_a_share_of_every_columns_spread():
    random = np.random.default_rng(0)
    mfcc = (random.normal(size=(4000, 13)) * np.arange(1, 14)).astype(np.float32)
    change = drawn(0)._replace(noise=0.1)
    added = augment_sound.change_sound(change, mfcc) - mfcc
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
    return features.mfcc(sound)[5:-5, 1:].mean(0)


@pytest.mark.parametrize("factor", [0.9, 1.1])
def test_another_voice_is_nearly_that_of_shifted_resonances(factor):
    plain, wanted = timbre(vowel(1.0)), timbre(vowel(factor))
    made = augment_sound.other_voice(factor) @ plain
    apart = np.linalg.norm(made - wanted)
    assert apart < 0.5 * np.linalg.norm(plain - wanted)
    other_way = augment_sound.other_voice(1 / factor) @ plain
    assert apart < np.linalg.norm(other_way - wanted) / 3


def test_the_same_voice_is_the_unit_matrix_and_energy_stays():
    np.testing.assert_allclose(augment_sound.other_voice(1.0), np.eye(12), atol=1e-6)
    mfcc = np.random.default_rng(0).normal(size=(40, 13)).astype(np.float32)
    before = mfcc.copy()
    changed = augment_sound.change_sound(drawn(0)._replace(voice=1.1), mfcc)
    np.testing.assert_array_equal(mfcc, before)
    np.testing.assert_array_equal(changed[:, 0], mfcc[:, 0])
    assert not np.allclose(changed[:, 1:], mfcc[:, 1:])


# --- microphones, noise and rooms ---


def test_another_microphone_adds_the_same_to_every_row():
    """As a filter does: the bands' log energies change by a sum of cosines."""
    mfcc = features.mfcc(vowel(1.0))
    random = np.random.default_rng(3)
    made = augment_sound.other_microphone(mfcc, 0.4, random)
    added = made - mfcc
    np.testing.assert_allclose(added, np.tile(added[:1], (len(mfcc), 1)), atol=1e-4)
    assert not added[:, 0].any()
    before, after = (np.log(mfcc_shape(cepstra)) for cepstra in (mfcc, made))
    amplitudes = 0.4 * np.random.default_rng(3).standard_normal(12)
    bands = (np.arange(26) + 0.5) / 26
    wanted = sum(
        a / np.sqrt(n) * np.cos(np.pi * n * bands)
        for n, a in enumerate(amplitudes, start=1)
    )
    response = (after - before)[50]
    np.testing.assert_allclose(response - response.mean(), wanted, atol=1e-4)


def mfcc_shape(mfcc: np.ndarray) -> np.ndarray:
    """The bands' energies, relative to each other."""
    energies = augment_sound.band_energies(mfcc)
    return energies / energies.sum(1, keepdims=True)


def noisy(speech: np.ndarray, background: float) -> np.ndarray:
    """The speech with a noise, whose energy is `background` of the speech's where both
    are measured, after pre-emphasis: of a spectrum that is even then."""
    noise = np.random.default_rng(1).normal(size=len(speech))
    heard = lfilter([1, -0.97], [1], speech)
    noise = lfilter([1], [1, -0.97], noise) * heard.std() * background**0.5
    return (speech + noise).astype(np.float32)


def test_the_energies_of_the_bands_are_those_of_the_cepstra():
    """Their logarithms' cosine transform gives the cepstra, their sum column 0."""
    mfcc = features.mfcc(vowel(1.0))[5:-5]
    energies = augment_sound.band_energies(mfcc)
    np.testing.assert_allclose(np.log(energies.sum(1)), mfcc[:, 0], atol=1e-4)
    logs = scipy.fft.dct(np.log(energies), norm="ortho", axis=1)[:, 1:13]
    np.testing.assert_allclose(
        augment_sound.lifter()[1:] * logs, mfcc[:, 1:], atol=1e-4
    )


def test_a_background_is_like_noise_that_is_mixed_in(monkeypatch):
    """Nearer to the cepstra of speech and white noise than the speech's own are."""
    monkeypatch.setattr(augment_sound, "TILT", 0.0)
    speech = vowel(1.0)
    plain = features.mfcc(speech)
    wanted = timbre(noisy(speech, 0.1))
    random = np.random.default_rng(0)
    made = augment_sound.in_a_place(plain, 0.1, 0.0, random)[5:-5, 1:].mean(0)
    before = np.linalg.norm(timbre(speech) - wanted)
    assert np.linalg.norm(made - wanted) < 0.5 * before


def test_pauses_are_filled_and_speech_stays():
    """A noise of a hundredth of the speech's energy is all that is heard in a pause."""
    speech = np.concatenate([vowel(1.0), 1e-4 * vowel(1.0)])
    plain = features.mfcc(speech)
    made = augment_sound.in_a_place(plain, 0.01, 0.0, np.random.default_rng(0))
    assert np.abs(made[5:95, 0] - plain[5:95, 0]).max() < 0.2
    pause = made[105:-5, 0]
    np.testing.assert_allclose(pause - plain[5:95, 0].mean(), np.log(0.01), atol=0.5)


def test_a_room_keeps_sound_for_a_while():
    """After the sound ends its echoes fall by 60 dB in the room's time."""
    speech = np.concatenate([vowel(1.0), np.zeros(16000, np.float32)])
    plain = features.mfcc(speech)
    made = augment_sound.in_a_place(plain, 0.0, 0.5, np.random.default_rng(0))
    first, last = made[110, 0], made[135, 0]  # a quarter of a second: 30 dB
    assert first - last == pytest.approx(np.log(10**3), rel=0.05)
    energies = np.random.default_rng(0).random((3000, 26))
    gone = augment_sound.echoes(energies, 0.3)
    np.testing.assert_allclose(gone[200:].mean(0), energies.mean(0), rtol=0.05)


def test_no_noise_and_no_room_change_nothing():
    mfcc = features.mfcc(vowel(1.0))
    same = augment_sound.in_a_place(mfcc, 0.0, 0.0, np.random.default_rng(0))
    np.testing.assert_array_equal(same, mfcc)
    off = augment_sound.change_sound(drawn(0), mfcc)
    np.testing.assert_array_equal(off, mfcc)
    backgrounds = [drawn(seed, background=0.1, room=0.4) for seed in range(200)]
    assert 60 < sum(one.background > 0 for one in backgrounds) < 140
    assert 60 < sum(one.room > 0 for one in backgrounds) < 140
    assert max(one.background for one in backgrounds) <= 0.1
    assert max(one.room for one in backgrounds) <= 0.4


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
    count = {0.8: 51, 1.0: 41, 1.25: 33}[tempo]
    assert augment_sound.usable_tempo(tempo, 41, 5) == (tempo, count)
    landmarks, mfcc = augment_sound.change_tempo(tempo, count, *ramp(41))
    assert landmarks.shape == (count, 68, 2) and mfcc.shape == (4 * (count + 6), 13)
    assert landmarks.dtype == mfcc.dtype == np.float32
    times = tempo * np.arange(count)
    np.testing.assert_allclose(landmarks[:, 5, 1], times, atol=1e-4)
    for n in range(4, count - 4):  # elsewhere the ends are repeated
        window = mfcc[4 * n : 4 * n + 28, 3]
        np.testing.assert_allclose(window.mean(), times[n], atol=1e-4)
        np.testing.assert_allclose(np.diff(window), tempo / 4, atol=1e-4)


def test_the_tempo_at_which_just_the_window_is_left_is_never_a_frame_short():
    """However the quotient is rounded; the last frame is the clip's last one."""
    rounded_down = 0
    for length in range(1, 81):
        for least in range(1, length + 1):
            tempo, count = augment_sound.usable_tempo(99.0, length, least)
            assert count == (least if least > 1 else min(length, 2))
            assert tempo * (count - 1) == pytest.approx(length - 1)
            rounded_down += int((length - 1) / tempo) + 1 < count
            for slower in (0.5, 0.999, 1.0, tempo):
                tempo, count = augment_sound.usable_tempo(slower, length, least)
                assert tempo <= slower and least <= count
                assert tempo * (count - 1) < length - 1 + 1e-9 < tempo * count + 1e-8
    assert rounded_down  # 29 frames and 26, say


def test_a_clip_that_a_rounding_left_a_frame_short_still_fills_the_window():
    clips = synthetic.SyntheticClips(1, 29)
    fast = augment.Strength(tempo=3.0)
    keys = [(0, 0, place) for place in range(20)]
    fastest = max(keys, key=lambda key: sampling.augmentation(key, fast).tempo)
    assert sampling.augmentation(fastest, fast).tempo > 28 / 25
    example = sampling.at_example(clips[0], clips.pca(3), fastest, 26, fast)
    assert example.audio.shape == (26, 28, 12)


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
