"""Weights and inputs made by a formula, for parity tests that need no stored weights.

Every entry of the authors' state dicts is drawn from its own stream of numpy's legacy
`RandomState`, which numpy has promised never to change; the stream's seed is computed
from the entry's name.  Names, shapes and layouts are PyTorch's, and only numpy is
needed: the same weights can be loaded into the authors' code, which is how the outputs
in tests/data were computed.  docs/reference.md, section 6, has the formula in words.
"""

import concurrent.futures
import math
import zlib
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

SEED = 3
Shapes = Iterator[tuple[str, tuple[int, ...]]]


# --- names and shapes of the authors' state dicts ---


def layer(name: str, *shape: int, bias: int = 0) -> Shapes:
    """A weight, and a bias of so many elements unless 0."""
    yield f"{name}.weight", shape
    if bias:
        yield f"{name}.bias", (bias,)


def linear(name: str, inputs: int, outputs: int) -> Shapes:
    return layer(name, outputs, inputs, bias=outputs)


def norm(name: str, channels: int) -> Shapes:
    for part in ("weight", "bias", "running_mean", "running_var"):
        yield f"{name}.{part}", (channels,)
    yield f"{name}.num_batches_tracked", ()


def conv_norm(name: str, inputs: int, outputs: int, kernel: int = 3) -> Shapes:
    yield from layer(f"{name}.0", outputs, inputs, kernel, kernel)
    yield from norm(f"{name}.1", outputs)


def up_norm(
    prefix: str, number: int, inputs: int, outputs: int, bias: int = 0
) -> Shapes:
    """A transposed convolution, element `number` of a Sequential, and its norm."""
    yield from layer(f"{prefix}.{number}", inputs, outputs, 3, 3, bias=bias)
    yield from norm(f"{prefix}.{number + 1}", outputs)


def recurrent(name: str, weight_ih: tuple, weight_hh: tuple, number: int) -> Shapes:
    yield f"{name}.weight_ih_l{number}", weight_ih
    yield f"{name}.weight_hh_l{number}", weight_hh
    yield f"{name}.bias_ih_l{number}", weight_ih[:1]
    yield f"{name}.bias_hh_l{number}", weight_hh[:1]


def lstm(inputs: int) -> Shapes:
    for number, width in enumerate((inputs, 256, 256)):
        yield from recurrent("lstm", (1024, width), (1024, 256), number)


def at_net() -> Shapes:
    yield from linear("lmark_encoder.0", 6, 256)
    yield from linear("lmark_encoder.2", 256, 512)
    widths = (1, 64, 128, 256, 256, 512)
    for i, number in enumerate((0, 1, 3, 4, 5)):
        yield from conv_norm(f"audio_eocder.{number}", widths[i], widths[i + 1])
    yield from linear("audio_eocder_fc.0", 512 * 12 * 2, 2048)
    yield from linear("audio_eocder_fc.2", 2048, 256)
    yield from lstm(512 + 256)
    yield from linear("lstm_fc.0", 256, 6)


def vg_net() -> Shapes:
    yield from conv_norm("image_encoder1.1", 3, 64, kernel=7)
    yield from conv_norm("image_encoder1.2", 64, 64)
    yield from conv_norm("image_encoder1.3", 64, 128)
    yield from conv_norm("image_encoder2.0", 128, 256)
    yield from conv_norm("image_encoder2.1", 256, 512)
    yield from linear("landmark_encoder.0", 136, 64)
    yield from conv_norm("landmark_encoder_stage2.0", 1, 256)
    yield from up_norm("lmark_att", 0, 512, 256, bias=256)
    yield from up_norm("lmark_att", 3, 256, 128, bias=128)
    yield from layer("lmark_att.6.0", 1, 128, 3, 3, bias=1)
    yield from conv_norm("lmark_feature.0", 256, 512)
    for i in range(9):
        block = f"generator1.{i}.conv_block"
        yield from conv_norm(block, 512, 512)
        yield from layer(f"{block}.4", 512, 512, 3, 3)
        yield from norm(f"{block}.5", 512)
    yield from up_norm("generator1", 9, 512, 256)
    yield from up_norm("generator1", 12, 256, 128)
    yield from up_norm("base", 0, 128, 64)
    yield from up_norm("base", 3, 64, 32)
    yield from layer("generator_color.0", 3, 32, 7, 7, bias=3)
    yield from layer("generator_attention.0", 1, 32, 7, 7, bias=1)
    yield from conv_norm("bottle_neck.0", 1024, 128)
    yield from recurrent("convGRU", (1536, 128, 3, 3), (1536, 512, 3, 3), 0)


def discriminator() -> Shapes:
    yield from layer("image_encoder_dis.0.0", 64, 3, 3, 3, bias=64)
    for i, width in enumerate((64, 128, 256), 1):
        yield from conv_norm(f"image_encoder_dis.{i}", width, 2 * width)
    yield from linear("encoder.0", 136, 256)
    yield from linear("encoder.2", 256, 512)
    yield from linear("decoder.0", 1024, 512)  # never run, but in their state dict
    yield from linear("decoder.2", 512, 136)
    yield from linear("img_fc.0", 512 * 8 * 8, 512)
    yield from lstm(512 + 512)
    yield from linear("lstm_fc.0", 256, 136)
    yield from linear("decision.0", 256, 1)


NETWORKS = {"at_net": at_net, "vg_net": vg_net, "discriminator": discriminator}


# --- the formula ---


def state_dict(network: str, seed: int = SEED) -> dict[str, np.ndarray]:
    """name -> array, f32 (the counters i64), of all entries of "at_net", "vg_net" or
    "discriminator"."""
    shapes = dict(NETWORKS[network]())
    norms = {
        name.removesuffix(".running_mean") for name in shapes if "running_mean" in name
    }

    def draw(name: str) -> np.ndarray:
        owner, _, part = name.rpartition(".")
        shape = shapes[name]
        if part == "num_batches_tracked":
            return np.asarray(1234)
        random = np.random.RandomState(
            (zlib.crc32(name.encode()) + 7919 * seed) % 2**32
        )
        if owner in norms and part == "weight":
            value = random.uniform(0.6, 1.4, shape)
        elif part == "running_var":
            value = random.uniform(0.5, 1.5, shape)
        elif owner in norms:
            value = random.normal(0, 0.2, shape)
        elif part.startswith(("weight_", "bias_")):
            value = random.uniform(-0.06, 0.06, shape)
        elif part == "bias":
            value = random.normal(0, 0.1, shape)
        else:
            fan_in = math.prod(shape[1:])
            value = random.normal(0, math.sqrt(1.6 / fan_in), shape)
        return value.astype(np.float32)

    with concurrent.futures.ThreadPoolExecutor() as pool:  # numpy draws without the GIL
        return dict(zip(shapes, pool.map(draw, shapes), strict=True))


class Inputs(NamedTuple):
    """Of the three networks.  All f32; pictures in [-1,1], channels first."""

    at_example: np.ndarray  # [2,6]
    at_audio: np.ndarray  # [2,9,28,12]
    vg_image: np.ndarray  # [2,3,128,128]
    vg_landmarks: np.ndarray  # [2,5,136]
    vg_example: np.ndarray  # [2,136]
    disc_frames: np.ndarray  # [2,16,3,128,128]
    disc_example: np.ndarray  # [2,136]


def inputs(seed: int = SEED) -> Inputs:
    """All from one stream, in this order; a picture's values fill 8 x 8 pixels each."""
    random = np.random.RandomState(100 + seed)

    def pictures(count: int) -> np.ndarray:
        return np.kron(random.uniform(-1, 1, (count, 3, 16, 16)), np.ones((8, 8)))

    drawn = Inputs(
        at_example=random.normal(0, 1, (2, 6)),
        at_audio=random.normal(0, 8, (2, 9, 28, 12)),
        vg_image=pictures(2),
        vg_landmarks=random.normal(0, 0.4, (2, 5, 136)),
        vg_example=random.normal(0, 0.4, (2, 136)),
        disc_frames=pictures(32).reshape(2, 16, 3, 128, 128),
        disc_example=random.normal(0, 0.4, (2, 136)),
    )
    return Inputs(*(array.astype(np.float32) for array in drawn))


def gan_landmarks(seed: int = SEED) -> np.ndarray:
    """Target landmarks of the GAN iteration, f32[2,16,136]."""
    random = np.random.RandomState(200 + seed)
    return random.normal(0, 0.4, (2, 16, 136)).astype(np.float32)
