"""The scores of one clip, and their means: formulas and limiting cases."""

import subprocess
import sys

import numpy as np
import pytest

from input_pipeline.clip import CLOSED_LIPS
from input_pipeline.faces import detection, landmarks, recognition
from input_pipeline.training_data import sampling
from input_pipeline.training_data.synthetic import SyntheticClips
from jax_atvg.evaluation import confidence, metrics, scores
from tests.conftest import ROOT

CLIPS = SyntheticClips(1, 9)
POINTS = landmarks.to_pixels(CLIPS.landmarks(0).reshape(9, 136))


@pytest.mark.parametrize("lag", confidence.LAGS)
def test_lagged_correlation_peaks_where_the_signal_was_shifted_to(lag):
    real = np.random.default_rng(0).normal(size=40)
    fake = np.roll(real, lag)  # fake[t + lag] = real[t]
    found = {k: scores.lagged_correlation(real, fake, k) for k in confidence.LAGS}
    assert found[lag] == pytest.approx(1)
    assert max(found, key=found.get) == lag


def test_correlation_is_pearsons_and_not_defined_for_what_rests_or_is_too_short():
    a, b = np.random.default_rng(1).normal(size=(2, 30))
    assert scores.correlation(a, b) == pytest.approx(np.corrcoef(a, b)[0, 1])
    assert np.isnan(scores.correlation(a, np.ones(30)))
    assert np.isnan(scores.lagged_correlation(a[:6], b[:6], 4))


def test_opening_is_the_height_between_the_inner_lips():
    points = np.zeros((2, 68, 2))
    points[1, [65, 66, 67], 1] = 3, 4, 5
    np.testing.assert_allclose(scores.opening(points), [0, 4])


def test_velocity_error_and_jitter_of_known_motion():
    t = np.arange(9.0)[:, None, None]
    still, moving = np.zeros((9, 68, 2)), np.array([3, 4]) * t * np.ones((1, 68, 1))
    assert scores.velocity_error(still, moving) == pytest.approx(5)
    assert scores.jitter(moving) == pytest.approx(0)
    assert scores.jitter(np.where(t % 2, moving * 0 + [3, 4], 0)) == pytest.approx(10)


def test_closing_is_how_far_open_lips_stay_where_the_true_ones_are_closed():
    truth, fake = np.zeros((2, 4, 68, 2))
    truth[2:, [65, 66, 67], 1] = 0.5 * CLOSED_LIPS, 3 * CLOSED_LIPS, 6
    fake[:, [65, 66, 67], 1] = np.array([[1.0], [3.0], [9.0], [9.0]])
    found = truth + 0.0
    found[:2, [65, 66, 67], 1] = 0.5  # the detector's own error is taken off
    assert scores.closing(found, fake, truth) == pytest.approx((0.5 + 2.5) / 2)
    assert scores.point_scores(truth, fake)["closing"] == pytest.approx(2)
    assert scores.point_scores(found, fake, truth)["closing"] == pytest.approx(1.5)
    assert np.isnan(scores.closing(truth, fake, truth + fake + 9 * fake))


def test_a_checkerboard_is_what_alternates_both_ways():
    rows, columns = np.mgrid[:12, :12]
    stripes, board = 20 * (rows % 2), 20 * ((rows + columns) % 2)

    def of(gray):
        return scores.checkerboard(np.repeat(gray[None, ..., None], 3, -1).astype("u1"))

    assert of(stripes) == of(stripes.T) == of(7 * rows) == 0
    assert of(board) == pytest.approx(40)  # 20 - 0 - 0 + 20


def test_flicker_is_what_changes_otherwise_than_steadily():
    t = np.arange(9)[:, None, None, None]

    def of(levels):
        return scores.flicker((levels + np.zeros((1, 4, 4, 3))).astype("u1"))

    assert of(10 + 5 * t) == pytest.approx(0, abs=1e-9)
    assert of(100 + 30 * (t % 2)) == pytest.approx(60)


def test_blur_lowers_sharpness_and_contrast_scales_it():
    frame = np.random.default_rng(2).integers(0, 100, (1, 16, 16, 1), np.uint8)
    gray = frame.repeat(3, -1)
    assert scores.sharpness(2 * gray) == pytest.approx(4 * scores.sharpness(gray))
    assert scores.sharpness(np.full_like(gray, 7)) == 0


def test_the_mouths_box_holds_its_points_and_stays_in_the_crop():
    rows, columns = scores.mouth_box(POINTS)
    mouth = POINTS[:, 48:68]
    assert rows.start <= mouth[..., 1].min() and mouth[..., 1].max() < rows.stop
    assert columns.start <= mouth[..., 0].min() and mouth[..., 0].max() < columns.stop
    for place in (-500, 500):
        for side in scores.mouth_box(np.full((2, 68, 2), place, np.float32)):
            assert 0 <= side.start < side.stop - 7 and side.stop <= 128


def case(count: int = 9) -> scores.Case:
    frames = sampling.decode(CLIPS[0], range(count))
    fakes = {"fake": frames[::-1][:-1]}
    return scores.Case(frames[0], frames[1:], POINTS[1:count], {}, fakes)


def test_cpbd_and_faces_are_those_of_every_fifth_frame():
    one = case()
    table, chips = scores.host_scores(one)
    for name, frames in (("real", one.real), ("fake", one.fakes["fake"])):
        assert table[name]["cpbd"] == metrics.cpbd(frames[::5]).mean()
        assert chips[name].shape == (2, 150, 150, 3)
    box = detection.box_of(one.truth.mean(axis=0))
    points = detection.find_points(one.real[5], box)
    np.testing.assert_array_equal(
        chips["real"][1], recognition.face_chip(one.real[5], points)
    )


def test_the_repeated_photo_scores_as_if_every_frame_were_looked_at():
    one = case()
    static = np.broadcast_to(one.photo, one.real.shape)
    table, chips = scores.host_scores(one._replace(fakes={"looked_at": static}))
    np.testing.assert_equal(table["static"], table["looked_at"])
    np.testing.assert_array_equal(chips["static"], chips["photo"])
    np.testing.assert_array_equal(chips["looked_at"][1:], chips["photo"])


def test_a_process_that_computes_these_scores_needs_no_jax():
    program = (
        "import sys, jax_atvg.evaluation.scores\n"
        "assert not {'jax', 'flax'} & sys.modules.keys()"
    )
    subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=True)


# --- statistics ---


def test_bootstrap_of_constant_data_has_no_width_and_repeats_itself():
    (same,) = confidence.bootstrap(np.full((5, 1), 0.1))
    assert same["mean"] == same["low"] == same["high"] == pytest.approx(0.1)
    values = np.random.default_rng(3).normal(size=(9, 2))
    assert confidence.bootstrap(values) == confidence.bootstrap(values)


def test_bootstrap_covers_the_true_mean_nineteen_times_of_twenty():
    values = np.random.default_rng(4).normal(2, 3, size=(40, 400))
    found = confidence.bootstrap(values)
    covered = np.mean([x["low"] <= 2 <= x["high"] for x in found])
    assert 0.88 < covered < 0.98
    width = np.mean([x["high"] - x["low"] for x in found])
    assert width == pytest.approx(2 * 1.96 * 3 / 40**0.5, rel=0.1)


def test_scores_that_are_missing_move_no_mean():
    values = np.random.default_rng(5).normal(size=(6, 1))
    with_gaps = np.concatenate([values, np.full((4, 1), np.nan)])
    (a,), (b,) = confidence.bootstrap(values), confidence.bootstrap(with_gaps)
    assert (a["mean"], a["clips"]) == (pytest.approx(b["mean"]), b["clips"])
    (nothing,) = confidence.bootstrap(np.full((3, 1), np.nan))
    assert np.isnan(nothing["mean"]) and nothing["clips"] == 0
