"""Metrics against the authors' numbers, independent formulas, and brute force."""

import inspect

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from input_pipeline.clip import INNER_LIPS, MOUTH, InputError
from jax_atvg.evaluation import metrics


@pytest.fixture(scope="module")
def cases(reference):
    """{case: {key: array}}, images turned to RGB and given a time axis."""
    z = reference("metrics.npz")
    cases = {}
    for key in z.files:
        case, name = key.split("/")
        cases.setdefault(case, {})[name] = z[key]
    synthetic = cases.pop("lmd_synthetic")
    for case in cases.values():
        for side in ("real", "fake"):
            case[side] = case[f"{side}_bgr"][None, ..., ::-1]
            case[f"points_{side}"] = case[f"shape68_{side}"][None].astype(np.float64)
    return {"synthetic": synthetic, **cases}


@pytest.fixture(params=range(14), ids=lambda n: f"case{n:02d}")
def case(cases, request):
    """One pair of pictures and its scores by the authors' evaluator."""
    return cases[sorted(cases)[request.param]]


def test_the_reference_has_fourteen_pairs_of_pictures(cases):
    assert len(cases) == 15 and "synthetic" in cases


# --- against the authors' evaluator ---


def test_ssim_equals_the_reference(case):
    real, fake = case["real"], case["fake"]
    assert metrics.ssim(real, fake)[0] == pytest.approx(
        case["ssim_128_no_resize"], abs=1e-6
    )
    assert metrics.compat_ssim(real, fake)[0] == pytest.approx(case["ssim"], abs=1e-6)


def test_psnr_equals_the_reference(case):
    real, fake = case["real"], case["fake"]
    for ours, theirs in [
        (metrics.psnr, "psnr_rgb_128"),
        (metrics.compat_psnr, "psnr_original_uint8_wrap"),
        (metrics.compat_psnr_gray, "psnr"),
    ]:
        assert ours(real, fake)[0] == pytest.approx(case[theirs], abs=1e-6)


def test_lmd_equals_the_reference(case):
    points = case["points_real"], case["points_fake"]
    mean, total = case["lmd_mean_per_point"], case["lmd_sum_original"]
    assert metrics.lmd(*points)[0] == pytest.approx(mean, abs=1e-9)
    assert metrics.compat_lmd(*points)[0] == pytest.approx(total, abs=1e-9)


def test_summed_lmd_equals_the_reference_over_several_frames(cases):
    synthetic = cases["synthetic"]
    points = np.zeros((2, 6, 68, 2))
    points[:, :, MOUTH] = synthetic["real"], synthetic["fake"]
    per_frame = metrics.compat_lmd(*points)
    np.testing.assert_allclose(per_frame, synthetic["per_frame_sum"], atol=1e-9)
    assert per_frame.mean() == pytest.approx(synthetic["average"], abs=1e-9)


@pytest.mark.parametrize("side", ["real", "fake"])
def test_cpbd_equals_the_reference(case, side):
    from scipy import ndimage

    y = case[f"luma_{side}"]
    np.testing.assert_array_equal(metrics.luma(case[side][0]), y)

    widths = metrics.edge_widths(y)
    np.testing.assert_array_equal(widths, case[f"edge_width_{side}"])
    sobel = np.abs(ndimage.sobel(y.astype(int), axis=1)) > 16
    np.testing.assert_array_equal(sobel, case[f"edges_sobel_{side}"])
    assert not widths[~sobel].any()

    given_canny = metrics.cpbd_of_luma(y, case[f"edges_canny_{side}"])
    assert given_canny == pytest.approx(case[f"cpbd_{side}"], abs=1e-6)
    own_canny = metrics.cpbd(case[side])[0]
    assert own_canny == pytest.approx(case[f"cpbd_{side}"], abs=1e-3)


def test_two_unrelated_faces_score_28_db_when_uint8_wraps(cases):
    case = cases["06_test1_other_person_test4"]
    assert metrics.compat_psnr(case["real"], case["fake"])[0] > 27.8
    assert metrics.compat_psnr_gray(case["real"], case["fake"])[0] < 10.1


# --- formulas, limits, invariances: pixels ---

FRAMES = np.random.default_rng(0).integers(0, 256, (2, 4, 16, 20, 3), dtype=np.uint8)


def test_psnr_is_ten_log_of_peak_over_mean_squared_error():
    real, fake = FRAMES
    mse = ((real / 255 - fake / 255) ** 2).mean(axis=(1, 2, 3))
    np.testing.assert_allclose(metrics.psnr(real, fake), -10 * np.log10(mse))


def test_psnr_agrees_with_skimage():
    from skimage.metrics import peak_signal_noise_ratio

    expected = [peak_signal_noise_ratio(r, f) for r, f in zip(*FRAMES, strict=True)]
    np.testing.assert_allclose(metrics.psnr(*FRAMES), expected)


@pytest.mark.parametrize("offset", [1, 5, 20])
def test_psnr_of_a_constant_offset_is_its_level(offset):
    real = FRAMES[0] // 2
    expected = 20 * np.log10(255 / offset)
    np.testing.assert_allclose(metrics.psnr(real, real + np.uint8(offset)), expected)


@pytest.mark.parametrize("score", [metrics.compat_psnr, metrics.psnr])
def test_an_offset_of_sixteen_is_no_error_when_uint8_wraps(score):
    """16^2 = 256 = 0 (mod 256)."""
    real = np.full((1, 16, 16, 3), 100, np.uint8)
    expected = 20 * np.log10(255 / 16) if score is metrics.psnr else 100
    assert score(real, real + np.uint8(16))[0] == pytest.approx(expected)


def test_identical_frames_score_best():
    real = FRAMES[0]
    for score in (metrics.psnr, metrics.compat_psnr, metrics.compat_psnr_gray):
        np.testing.assert_array_equal(score(real, real), 100)
    for score in (metrics.ssim, metrics.compat_ssim):
        np.testing.assert_allclose(score(real, real), 1)


def test_psnr_and_ssim_are_symmetric():
    real, fake = FRAMES
    for protocol in metrics.PROTOCOLS.values():
        for name, score in protocol.frames.items():
            forth, back = score(real, fake), score(fake, real)
            np.testing.assert_allclose(forth, back, err_msg=name)


def test_ssim_is_the_formula_over_seven_by_seven_windows():
    """mean of (2 m_x m_y + C1)(2 s_xy + C2) / ((m_x^2 + m_y^2 + C1)(s_x + s_y + C2))"""
    real, fake = FRAMES.astype(np.float64)

    def windows(frames):
        view = np.lib.stride_tricks.sliding_window_view(frames, (7, 7), axis=(1, 2))
        return view.reshape(*view.shape[:-2], 49)

    x, y = windows(real), windows(fake)
    mx, my = x.mean(-1), y.mean(-1)
    cov = ((x - mx[..., None]) * (y - my[..., None])).sum(-1) / 48
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    similarity = (2 * mx * my + c1) * (2 * cov + c2)
    similarity /= (mx**2 + my**2 + c1) * (x.var(-1, ddof=1) + y.var(-1, ddof=1) + c2)
    expected = similarity.mean(axis=(1, 2, 3))
    np.testing.assert_allclose(metrics.ssim(*FRAMES), expected, atol=1e-9)


def test_every_frame_is_scored_by_itself():
    real, fake = FRAMES
    for protocol in metrics.PROTOCOLS.values():
        for name, score in protocol.frames.items():
            alone = [score(real[t : t + 1], fake[t : t + 1])[0] for t in range(4)]
            np.testing.assert_array_equal(score(real, fake), alone, err_msg=name)


# --- formulas, limits, invariances: points ---

POINTS = np.random.default_rng(1).normal(64, 20, (2, 5, 68, 2))


@pytest.mark.parametrize("region", [MOUTH, INNER_LIPS, slice(None)])
def test_lmd_is_the_mean_distance_of_centred_points(region):
    real, fake = POINTS
    expected = np.empty(5)
    for t in range(5):
        p, q = real[t, region], fake[t, region]
        dx = (p[:, 0] - p[:, 0].mean()) - (q[:, 0] - q[:, 0].mean())
        dy = (p[:, 1] - p[:, 1].mean()) - (q[:, 1] - q[:, 1].mean())
        expected[t] = np.hypot(dx, dy).mean()
    np.testing.assert_allclose(metrics.lmd(real, fake, region), expected)


def test_f_lmd_is_lmd_over_all_points_and_the_mouth_is_lmds_default():
    f_lmd = metrics.lmd(*POINTS, region=slice(0, 68))
    np.testing.assert_array_equal(metrics.f_lmd(*POINTS), f_lmd)
    mouth = metrics.lmd(*POINTS, region=slice(48, 68))
    np.testing.assert_array_equal(metrics.lmd(*POINTS), mouth)
    np.testing.assert_allclose(metrics.compat_lmd(*POINTS), 20 * mouth)


@pytest.mark.parametrize("distance", [metrics.lmd, metrics.f_lmd, metrics.compat_lmd])
def test_lmd_ignores_where_the_face_is(distance):
    real, fake = POINTS
    moved = fake + np.random.default_rng(2).normal(0, 50, (5, 1, 2))
    np.testing.assert_allclose(distance(real, moved), distance(real, fake))
    np.testing.assert_allclose(distance(real, real + 7), 0, atol=1e-12)


def test_lmd_scales_with_the_face():
    np.testing.assert_allclose(metrics.lmd(*(3 * POINTS)), 3 * metrics.lmd(*POINTS))


def test_lmd_is_nan_exactly_where_a_face_is_missing():
    real, fake = POINTS.copy()
    real[1], fake[3] = np.nan, np.nan
    expected = metrics.lmd(*POINTS)
    expected[[1, 3]] = np.nan
    np.testing.assert_array_equal(metrics.lmd(real, fake), expected)


# --- brute force, limits: CPBD ---


def edge_widths_by_scanning(y):
    """Pixel by pixel, in the 1-based indices of the original; float32 as there."""
    from scipy import ndimage

    y = y.astype(np.float32)
    kernel = np.array([[1, 0, -1], [2, 0, -2], [1, 0, -1]]) / 8
    edges = ndimage.correlate(y, kernel, mode="reflect") ** 2 > 4
    down, right = np.gradient(y)
    height, width = y.shape

    def at(row, column):
        return y[row - 1, column - 1]

    def left(m, n, stops):
        for k in range(101):
            if n - 2 - k <= 0 or stops(at(m, n - 2 - k), at(m, n - 1 - k)):
                break
        return k + 1

    def right_(m, n, stops):
        for k in range(101):
            if n + 2 + k > width or stops(at(m, n + 2 + k), at(m, n + 1 + k)):
                break
        return k + 1

    widths = np.zeros(y.shape, int)
    for m in range(2, height):
        for n in range(2, width):
            gx, gy = right[m - 1, n - 1], down[m - 1, n - 1]
            angle = 0 if gx == 0 else 45 * round(np.degrees(np.arctan2(gy, gx)) / 45)
            if not edges[m - 1, n - 1]:
                continue
            if abs(angle) == 180:
                total = left(m, n, lambda new, old: new - old <= 0)
                total += right_(m, n, lambda new, old: new > old)
            elif angle == 0:
                total = right_(m, n, lambda new, old: new <= old)
                total += left(m, n, lambda new, old: new >= old)
            else:
                total = 0
            widths[m - 1, n - 1] = total
    return widths


def step_edge(width, columns=240):
    """A falling edge, then level ground for longer than any scan may be."""
    y = np.zeros((5, columns), np.uint8)
    y[:, : columns // 2] = np.linspace(255, 80, columns // 2)
    y[:, 20 : 20 + width] = np.linspace(79, 0, width)
    y[:, 20 + width :] = 0
    return y


PICTURES = arrays(
    np.uint8,
    st.tuples(st.integers(2, 8), st.integers(2, 24)),
    elements=st.sampled_from([0, 1, 9, 10, 11, 60, 128, 200, 255]),
)


@given(PICTURES)
@example(step_edge(6))
@example(step_edge(6)[:, ::-1].copy())
@example(255 - step_edge(6))
@settings(deadline=None, max_examples=200)
def test_edge_widths_equal_the_scan_of_every_pixel(y):
    np.testing.assert_array_equal(metrics.edge_widths(y), edge_widths_by_scanning(y))


def test_a_scan_ends_after_101_steps():
    assert metrics.edge_widths(step_edge(6)).max() > 101  # both sides together
    assert metrics._width_right(np.ones((1, 300), bool)).max() == 101


def cpbd_by_histogram(y, canny, widths):
    """Block by block and pixel by pixel into the histogram of the original."""
    histogram = np.zeros(101)
    for top in range(0, y.shape[0] - 63, 64):
        for left in range(0, y.shape[1] - 63, 64):
            block = np.s_[top : top + 64, left : left + 64]
            if canny[block].sum() <= 0.002 * 64 * 64:
                continue
            contrast = int(y[block].max()) - int(y[block].min())
            jnb = 5 if contrast <= 50 else 3
            for w in widths[block].ravel():
                if w:
                    probability = 1 - np.exp(-((w / jnb) ** 3.6))
                    histogram[round(100 * probability)] += 1
    return histogram[:63].sum() / histogram.sum() if histogram.sum() else 0


@pytest.mark.parametrize("shape", [(128, 128), (150, 200), (64, 64), (63, 200)])
@pytest.mark.parametrize("seed", range(3))
def test_cpbd_equals_the_histogram_of_every_edge(shape, seed):
    from scipy import ndimage

    rng = np.random.default_rng(seed)
    # Blocks of low and of high contrast, with few Canny pixels and with many.
    contrast = np.kron(rng.choice([20, 50, 200], (3, 4)), np.ones((64, 64)))
    contrast = contrast[: shape[0], : shape[1]]
    y = ndimage.gaussian_filter(rng.random(shape), 0.7) * contrast
    y = y.astype(np.uint8)
    share = np.kron(rng.choice([0.0005, 0.002, 0.01], (3, 4)), np.ones((64, 64)))
    canny = rng.random(shape) < share[: shape[0], : shape[1]]

    expected = cpbd_by_histogram(y, canny, edge_widths_by_scanning(y))
    assert metrics.cpbd_of_luma(y, canny) == pytest.approx(expected, abs=1e-12)


def test_blur_lowers_cpbd():
    from scipy import ndimage

    rng = np.random.default_rng(0)
    sharp = np.kron(rng.integers(0, 256, (16, 16)), np.ones((8, 8)))
    scores = []
    for sigma in (0, 1, 2, 4):
        blurred = ndimage.gaussian_filter(sharp, sigma) if sigma else sharp
        frame = np.repeat(blurred.astype(np.uint8)[None, ..., None], 3, axis=3)
        scores.append(metrics.cpbd(frame)[0])
    # Not 1: falling edges end on level ground, which counts as wide.
    assert scores[0] > 0.4 and scores[-1] < 0.1
    assert scores == sorted(scores, reverse=True)


@pytest.mark.parametrize("size", [64, 63])
def test_cpbd_is_zero_without_edges_and_without_whole_blocks(size):
    rng = np.random.default_rng(0)
    flat = np.full((1, 128, 128, 3), 90, np.uint8)
    np.testing.assert_array_equal(metrics.cpbd(flat), [0])
    noise = rng.integers(0, 256, (2, size, size, 3), dtype=np.uint8)
    assert (metrics.cpbd(noise) > 0).all() == (size == 64)


@given(arrays(np.uint8, (3, 4, 3)))
def test_luma_equals_pils(frame):
    from PIL import Image

    expected = np.asarray(Image.fromarray(frame).convert("L"))
    np.testing.assert_array_equal(metrics.luma(frame), expected)


# --- protocols ---


def test_the_protocols_name_their_metrics():
    true = metrics.find_protocol("true")
    assert set(true.frames) == {"psnr", "ssim"} and set(true.points) == {"lmd", "f_lmd"}
    assert true.frames["psnr"] is metrics.psnr
    compat = metrics.find_protocol("atvg-compat")
    assert compat.frames["psnr"] is metrics.compat_psnr
    assert compat.points["lmd"] is metrics.compat_lmd


def test_an_unknown_protocol_is_refused_with_the_choices():
    with pytest.raises(InputError, match=r"'atvg'.*true, atvg-compat"):
        metrics.find_protocol("atvg")


def test_videos_of_different_length_are_refused():
    real, fake = FRAMES
    for score in (metrics.psnr, metrics.ssim, metrics.compat_psnr):
        unchecked = inspect.unwrap(score)  # as outside of the tests
        with pytest.raises(ValueError, match="zip"):
            unchecked(real, fake[:3])
        with pytest.raises(ValueError, match="zip"):
            unchecked(real, fake[:1])
