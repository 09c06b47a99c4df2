"""The discriminator of mouths: what it sees, and how it judges."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from input_pipeline.clip import MOUTH
from jax_atvg.models.mouth_discriminator import MouthDiscriminator, mouth_crops

SIZE, SIDE = 64, 24


@pytest.mark.parametrize(
    ("middle", "corner"),
    [
        ((31.5, 40.2), (28, 20)),  # x, y in pixels; row, column of the square
        ((3.0, 62.0), (32 + 8, 0)),  # over the border: moved inside
    ],
)
def test_a_crop_is_the_square_around_the_mouth(middle, corner):
    frames = np.random.default_rng(0).uniform(-1, 1, (2, 3, SIZE, SIZE, 3))
    frames = frames.astype(np.float32)
    points = np.zeros((68, 2))
    points[MOUTH] = np.asarray(middle) + [[-6, -2], [6, 2]] * 10
    marks = (points / (SIZE / 2) - 1).reshape(-1).astype(np.float32)
    crops = mouth_crops(frames, np.broadcast_to(marks, (2, 3, 136)), SIDE)
    x, y = middle
    assert corner == tuple(
        int(np.clip(np.round(one - SIDE / 2), 0, SIZE - SIDE)) for one in (y, x)
    )
    row, column = corner
    want = frames[:, :, row : row + SIDE, column : column + SIDE]
    np.testing.assert_array_equal(crops, want.reshape(6, SIDE, SIDE, 3))


@pytest.fixture(scope="module")
def judged():
    """(the network, its variables after many steps of the power iteration, crops)."""
    net = MouthDiscriminator(width=8, side=SIDE)
    crops = jax.random.uniform(jax.random.key(1), (4, SIDE, SIDE, 3), minval=-1.0)
    variables = net.init(jax.random.key(0), crops)
    step = jax.jit(lambda v: net.apply(v, crops, train=True, mutable=["batch_stats"]))
    for _ in range(200):
        variables = {**variables, **step(variables)[1]}
    return net, variables, crops


def test_crops_do_not_influence_each_other(judged):
    net, variables, crops = judged
    together = net.apply(variables, crops).logits
    alone = net.apply(variables, crops[2:3]).logits
    np.testing.assert_allclose(together[2:3], alone, atol=1e-6)
    assert together.shape == (4, SIDE // 8, SIDE // 8)


def test_kernels_are_divided_by_their_spectral_norms(judged):
    """As matrices, all axes but the last one side, they have norm 1: compared with the
    layer's output, for the first layer, whose input is known."""
    net, variables, crops = judged
    kernel = np.asarray(variables["params"]["conv_0"]["kernel"], np.float64)
    norm = np.linalg.svd(kernel.reshape(-1, kernel.shape[-1]), compute_uv=False)[0]
    bias = variables["params"]["conv_0"]["bias"]
    y = jax.lax.conv_general_dilated(
        crops,
        jnp.asarray(kernel / norm, jnp.float32),
        (2, 2),
        ((1, 1), (1, 1)),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )
    first = net.apply(variables, crops).features[0]
    want = jax.nn.leaky_relu(y + bias, 0.2)
    np.testing.assert_allclose(first, want, atol=1e-4)
