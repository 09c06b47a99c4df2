"""PSNR and SSIM on a device, against those of metrics.py and skimage."""

import numpy as np
import pytest

from jax_atvg.evaluation import metrics, pixels

RNG = np.random.default_rng(0)
REAL = RNG.integers(0, 256, (18, 128, 128, 3), np.uint8)  # two calls, one part empty


def moved(by: int) -> np.ndarray:
    noise = RNG.integers(-by, by + 1, REAL.shape)
    return np.clip(REAL.astype(int) + noise, 0, 255).astype(np.uint8)


def flat_frames(level: int) -> np.ndarray:
    """Nearly without contrast, where a variance from float32 sums would be noise."""
    return (level + RNG.integers(0, 2, REAL.shape)).astype(np.uint8)


FAKES = {"near": moved(3), "far": moved(90), "black": 0 * REAL, "other": ~REAL}
# The least box that a mouth may have, in a corner, and others.
BOXES = [
    (slice(116, 128), slice(0, 12)),
    (slice(70, 111), slice(30, 93)),
    (slice(0, 7), slice(121, 128)),
    pixels.WHOLE,
]


def scored(real, fakes, box=BOXES[1]):
    return pixels.finish(pixels.begin(real, fakes, box))


def expected(real, fake, box):
    """By the functions in numpy."""
    sides = {"": (real, fake), "mouth_": (real[:, *box], fake[:, *box])}
    functions = {"psnr": metrics.psnr, "ssim": metrics.ssim}
    return {
        f"{prefix}{name}": f(*pair).mean()
        for prefix, pair in sides.items()
        for name, f in functions.items()
    }


def assert_equal(found, real, fake, box):
    """PSNR to the bit: its sums are of whole numbers.  SSIM: the five roundings of a
    quotient move it by 3e-7 at most, and the sum over 366 of them in a row rounds too:
    1e-6 leaves room for any order of summation (1e-8 was measured)."""
    for name, value in expected(real, fake, box).items():
        tolerance = 1e-6 if name.endswith("ssim") else 0
        assert found[name] == pytest.approx(value, rel=0, abs=tolerance), name


@pytest.mark.parametrize("box", BOXES, ids=str)
def test_scores_are_those_in_numpy_in_any_box(box):
    found = scored(REAL, FAKES, box)
    assert list(found) == list(FAKES)
    for mode, fake in FAKES.items():
        assert_equal(found[mode], REAL, fake, box)


@pytest.mark.parametrize("level", [0, 254])
def test_no_digits_cancel_where_there_is_hardly_any_contrast(level):
    real, fake = flat_frames(level), flat_frames(level)
    found = scored(real, {"a": fake})["a"]
    assert_equal(found, real, fake, BOXES[1])


def test_the_largest_error_that_there_is_does_not_overflow():
    black = np.zeros((1, 128, 128, 3), np.uint8)
    found = scored(black, {"white": ~black})["white"]
    assert found["psnr"] == found["mouth_psnr"] == 0


def test_identical_frames_score_100_db_and_1():
    found = scored(REAL, {"same": REAL})["same"]
    assert found["psnr"] == found["mouth_psnr"] == metrics.IDENTICAL_DB
    assert found["ssim"] == pytest.approx(1, abs=1e-6)


def test_what_lies_outside_of_the_mouths_box_does_not_move_its_scores():
    box = BOXES[1]
    fake = ~REAL
    fake[:, *box] = FAKES["near"][:, *box]
    near, other = scored(REAL, {"near": FAKES["near"], "other": fake}, box).values()
    assert near["mouth_psnr"] == other["mouth_psnr"]
    assert near["mouth_ssim"] == other["mouth_ssim"]
    assert near["ssim"] > other["ssim"] + 0.5


@pytest.mark.parametrize("count", [1, 15, 16, 17])
def test_the_length_and_the_box_of_a_clip_compile_nothing(count):
    scored(REAL, FAKES)
    compiled = pixels.sums._cache_size()
    fakes = {mode: frames[:count] for mode, frames in FAKES.items()}
    box = (slice(60, 60 + 20 + count), slice(count, 90))
    found = scored(REAL[:count], fakes, box)
    assert pixels.sums._cache_size() == compiled
    assert_equal(found["near"], REAL[:count], fakes["near"], box)
