"""dlib's face embedding, computed with JAX: who is seen in a picture.

The network is dlib's own (dnn_face_recognition_ex: a ResNet of 29 convolutions, trained
by Davis King, in the public domain), read from the file that dlib reads.  dlib computes
it without a library for matrix products, at a seventh of the speed, and picture by
picture; here it runs in batches on the device that evaluates.  The embeddings are the
same but for rounding (a test compares them with dlib's).

Letters: N pictures of faces, each a chip: cut out, turned upright and scaled by
dlib.get_face_chip.
"""

import functools
import pathlib
import re
from collections.abc import Iterator
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float32, UInt8

from input_pipeline.clip import InputError
from input_pipeline.faces import detection, recognition

CHIPS = 16  # a call of the compiled program
MEAN_COLOR = (122.782, 117.001, 104.298)
# The residual blocks: channels, and the stride of the first of their two convolutions.
BLOCKS = (
    *[(32, 1)] * 3,
    *[(64, 2), (64, 1), (64, 1), (64, 1)],
    *[(128, 2), (128, 1), (128, 1)],
    *[(256, 2), (256, 1), (256, 1)],
    (256, 2),
)


class Conv(NamedTuple):
    """A convolution with the scales and shifts of its channels multiplied in."""

    kernel: Float32[Array, "k k C D"]
    bias: Float32[Array, "D"]


class Weights(NamedTuple):
    """The network's.  blocks: their two convolutions each."""

    first: Conv
    blocks: list[tuple[Conv, Conv]]
    last: Float32[Array, "256 128"]


def likeness(weights: Weights, faces: dict[str, np.ndarray]) -> dict[str, float]:
    """CSIM-dlib of every mode but "photo": the mean cosine between the embedding of the
    photo and those of the mode's chips.

    faces: {mode: chips u8[N,150,150,3]}, of which "photo" has one.  dlib's embeddings
    of different people are far from orthogonal: only differences between such scores
    mean something.
    """
    found = embeddings(weights, np.concatenate(list(faces.values())))
    found /= np.linalg.norm(found, axis=-1, keepdims=True)
    ends = np.cumsum([len(chips) for chips in faces.values()])[:-1]
    of = dict(zip(faces, np.split(found, ends), strict=True))
    (photo,) = of.pop("photo")
    return {mode: float((units @ photo).mean()) for mode, units in of.items()}


def embeddings(weights: Weights, chips: UInt8[np.ndarray, "N 150 150 3"]) -> np.ndarray:
    """f64[N,128]: CHIPS at a time, so that one compiled program serves any number."""
    parts = []
    for start in range(0, len(chips), CHIPS):
        rows = np.minimum(np.arange(start, start + CHIPS), len(chips) - 1)
        parts.append(embed(weights, chips[rows]))
    found = np.concatenate(jax.device_get(parts))
    return found[: len(chips)].astype(np.float64)


@jax.jit
def embed(
    weights: Weights, chips: UInt8[Array, "N 150 150 3"]
) -> Float32[Array, "N 128"]:
    """The network."""
    x = (chips.astype(jnp.float32) - jnp.array(MEAN_COLOR)) / 256
    x = jax.nn.relu(conv(x, weights.first, stride=2))
    x = lax.reduce_window(x, -np.inf, lax.max, (1, 3, 3, 1), (1, 2, 2, 1), "VALID")
    for (one, two), (_, stride) in zip(weights.blocks, BLOCKS, strict=True):
        y = jax.nn.relu(conv(x, one, stride))
        y = conv(y, two)
        if stride == 2:
            x = halved(x)
        x = jax.nn.relu(sum_of_unequal(x, y))
    return jnp.dot(x.mean((1, 2)), weights.last, precision="highest")


def conv(
    x: Float32[Array, "N H W C"], layer: Conv, stride: int = 1
) -> Float32[Array, "N H2 W2 D"]:
    """dlib pads a convolution of stride 1 with zeros to keep its size, and no other."""
    y = lax.conv_general_dilated(
        *(x, layer.kernel, (stride, stride), "SAME" if stride == 1 else "VALID"),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        precision="highest",
    )
    return y + layer.bias


def halved(x: Float32[Array, "N H W C"]) -> Float32[Array, "N H//2 W//2 C"]:
    """Means over 2x2 pixels."""
    x = x[:, : x.shape[1] // 2 * 2, : x.shape[2] // 2 * 2]
    return (x[:, ::2, ::2] + x[:, 1::2, ::2] + x[:, ::2, 1::2] + x[:, 1::2, 1::2]) / 4


def sum_of_unequal(x: Array, y: Array) -> Array:
    """The sum of arrays that are filled up with zeros to the larger of every axis."""
    shape = np.maximum(x.shape, y.shape)
    x, y = (jnp.pad(a, [(0, n) for n in shape - a.shape]) for a in (x, y))
    return x + y


# --- the file ---


def model_path() -> pathlib.Path:
    """The file of dlib's embedding network.

    InputError: the package face_recognition_models is not installed.
    """
    return pathlib.Path(detection.model_file(recognition.MODEL))


@functools.cache
def read_weights(path: pathlib.Path) -> Weights:
    """Reads dlib's file.  InputError: it is not that of this network, or is damaged."""
    layers = list(tensors(path.read_bytes()))
    convolutions = [(7, 3, 32)]
    for (width, _), (before, _) in zip(BLOCKS, ((32, 1), *BLOCKS), strict=False):
        convolutions += [(3, before, width), (3, width, width)]
    sizes = []
    for side, before, width in convolutions:
        sizes += [(side * side * before + 1) * width, 2 * width]
    if [len(values) for values in layers] != [*sizes, 256 * 128]:
        raise InputError(
            f"{path}: is not dlib's face embedding; install face-recognition-models "
            "anew"
        )
    *pairs, last = layers
    found = [
        fused(*both, *shape)
        for *both, shape in zip(pairs[::2], pairs[1::2], convolutions, strict=True)
    ]
    blocks = list(zip(found[1::2], found[2::2], strict=True))
    return Weights(found[0], blocks, last.reshape(256, 128))


def tensors(data: bytes) -> Iterator[Float32[np.ndarray, "n"]]:
    """The parameters of the convolutions, scales and the last product, in the order of
    the network.

    dlib writes a layer as the length of its name, the name, for the last product two
    numbers, and the tensor: a version, four sizes, and little-endian float32.  A whole
    number is written as the count of its bytes and these bytes.
    """
    for layer in re.finditer(rb"\x05con_4|\x07affine_|\x04fc_2", data):
        at, numbers = layer.end(), []
        for _ in range(7 if layer.group() == b"\x04fc_2" else 5):
            count = data[at] if at < len(data) else 0
            numbers.append(int.from_bytes(data[at + 1 : at + 1 + count], "little"))
            at += 1 + count
        values = data[at : at + 4 * int(np.prod(numbers[-4:]))]
        yield np.frombuffer(values[: len(values) // 4 * 4], "<f4")


def fused(
    convolution: np.ndarray, affine: np.ndarray, side: int, before: int, width: int
) -> Conv:
    """A Conv of dlib's parameters: kernels [D,C,k,k] and biases; scales and shifts."""
    kernel, bias = np.split(convolution, [-width])
    kernel = kernel.reshape(width, before, side, side).transpose(2, 3, 1, 0)
    scale, shift = np.split(affine, 2)
    return Conv(kernel * scale, bias * scale + shift)
