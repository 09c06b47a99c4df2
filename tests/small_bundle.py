"""A bundle of reduced width with random weights, a photo and sounds: tests of animate.

The networks are right in every shape and meaningless in every value.
"""

import functools

import numpy as np

from input_pipeline.clip import CROP_SIZE, Pca
from input_pipeline.faces import align, detection, landmarks
from jax_atvg.inference.bundle import Bundle
from jax_atvg.models.at_net import ATNet
from jax_atvg.models.vg_net import VGNet
from tests.random_variables import random_variables

LANDMARK_TO_CROP = np.array([[64, 0, 63.5], [0, 64, 63.5]])  # undoes normalise
COEFFICIENTS = 4
GAIN, SEED = 1.7, 1


def small_bundle(
    image_size: int = 32, recurrence: str = "time", photo_landmarks=None
) -> Bundle:
    """Landmarks are those of the photo's kind, moved a few pixels by the sound."""
    at_net = ATNet(
        num_coefficients=COEFFICIENTS,
        example_widths=(16, 16),
        audio_widths=(4, 4, 8, 8, 8),
        fc_widths=(16, 16),
        lstm_width=16,
        lstm_layers=2,
    )
    vg_net = VGNet(recurrence, width=4, num_blocks=1, image_size=image_size)
    return random_bundle(at_net, vg_net, photo_landmarks)


def full_bundle() -> Bundle:
    """At the original's size, for benchmarks."""
    return random_bundle(ATNet(num_coefficients=COEFFICIENTS), VGNet())


def random_bundle(at_net: ATNet, vg_net: VGNet, photo_landmarks=None) -> Bundle:
    image = (1, vg_net.image_size, vg_net.image_size, 3)
    weights = {
        "at_net": variables(at_net, (1, COEFFICIENTS), (1, 1, 28, 12)),
        "vg_net": variables(vg_net, image, (1, 1, 136), (1, 136)),
    }
    directions = np.random.default_rng(2).normal(size=(136, COEFFICIENTS))
    components = np.linalg.qr(directions)[0].astype(np.float32)
    return Bundle(
        at_net,
        vg_net,
        weights,
        Pca(mean_face(), components),
        np.ones(COEFFICIENTS, np.float32),
        LANDMARK_TO_CROP,
        align.DEFAULT_TEMPLATE.points,
        align.DEFAULT_TEMPLATE.indices,
        photo_landmarks,
    )


def variables(module, *shapes: tuple[int, ...]):
    """Weights a little larger than keep the signal's size: the face must move."""
    import jax

    zeros = (np.zeros(shape, np.float32) for shape in shapes)
    tree = random_variables(module, *zeros, seed=SEED)
    return jax.tree.map(lambda x: x * GAIN if x.ndim > 1 else x, tree)


@functools.cache
def photo() -> np.ndarray:
    """u8[512,512,3]: the astronaut Eileen Collins (NASA, public domain)."""
    from skimage import data

    return data.astronaut()


@functools.cache
def photo_points() -> np.ndarray:
    """The 68 points of that photo, pixels."""
    return detection.photo_points(photo())


@functools.cache
def mean_face() -> np.ndarray:
    """Landmarks f32[136] like the photo's, but not the same."""
    matrix = align.align(photo_points(), align.DEFAULT_TEMPLATE)
    points = align.transform(align.invert(matrix), photo_points())
    centre = (CROP_SIZE - 1) / 2
    return landmarks.normalise(centre + 0.95 * (points - centre))


def speech(seconds: float, rate: int = 16000, seed: int = 0) -> np.ndarray:
    """f32[N] in [-1,1]: three gliding tones and hiss that swell four times a second."""
    random = np.random.default_rng(seed)
    t = np.arange(round(seconds * rate)) / rate
    tones = sum(np.sin(2 * np.pi * f * (t + 0.1 * t * t)) for f in (140, 700, 1900))
    hiss = random.normal(size=len(t))
    swell = 0.5 - 0.5 * np.cos(2 * np.pi * 4 * t)
    return (swell * (0.12 * tones + 0.03 * hiss)).astype(np.float32)
