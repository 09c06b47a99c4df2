"""In which precision networks multiply: the factors and what stays in float32."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from input_pipeline.clip import InputError, Pca
from jax_atvg.inference.predict import Photo, spoken_landmarks
from jax_atvg.models.precision import cast, traced
from jax_atvg.models.sizes import PRECISIONS
from jax_atvg.models.vg_net import VGNet
from jax_atvg.sharding import data_mesh
from jax_atvg.training import at_step
from jax_atvg.training.config import AtLoss
from jax_atvg.training.state import AtNets
from tests.random_variables import random_variables


def test_an_unknown_precision_is_an_error_that_names_the_choices():
    with pytest.raises(InputError, match="choose one of highest, default, bfloat16"):
        cast({}, "float16")


@pytest.mark.parametrize("precision", PRECISIONS)
def test_only_highest_asks_the_platform_for_exact_products(precision):
    """Said in the program for a GPU, which would round the factors to TF32."""
    mesh = data_mesh(jax.devices()[:1])
    product = traced(mesh, precision, lambda a, b: a @ b)
    with jax.default_matmul_precision(None):  # as for users, unlike for tests
        text = jax.jit(product).trace(*2 * [np.eye(4, dtype="f4")])
    text = text.lower(lowering_platforms=("cuda",)).as_text()
    assert ("precision = [HIGHEST, HIGHEST]" in text) == (precision == "highest")


def test_landmarks_are_exact_in_every_precision():
    """Coefficients become them, in AT-net's loss and for VG-net, by float32."""
    mesh, h = data_mesh(jax.devices()[:1]), np.zeros((1, 2, 4), "f4")
    pca = Pca(np.zeros(136, "f4"), np.zeros((136, 4), "f4"))
    image, points = np.zeros((1, 32, 32, 3), "f4"), np.zeros((1, 136), "f4")
    photo = Photo(image, h[:, 0], points, points)

    def landmarks(h):
        return spoken_landmarks(pca, np.ones(4, "f4"), h, photo)

    def loss(h):
        return at_step.error(AtNets(loss=AtLoss("landmarks"), pca=pca), h, h)

    for function in (landmarks, loss):
        with jax.default_matmul_precision(None):  # as for users, unlike for tests
            text = jax.jit(traced(mesh, "bfloat16", function)).trace(h)
        text = text.lower(lowering_platforms=("cuda",)).as_text()
        products = re.findall(r"stablehlo\.dot_general.*", text)
        assert products and all("[HIGHEST, HIGHEST]" in one for one in products)


def test_frames_are_composed_in_float32():
    """Where attention is 0 they are the photo, to the last bit; in bfloat16 they would
    be rounded to 8 bits."""
    random = np.random.default_rng(0)
    image = random.uniform(-1, 1, (1, 32, 32, 3)).astype(np.float32)
    landmarks = random.uniform(-1, 1, (1, 2, 136)).astype(np.float32)
    net = VGNet(width=4, num_blocks=1, image_size=32)
    variables = random_variables(net, image, landmarks, landmarks[:, 0])
    params = cast(variables["params"], "bfloat16")
    params["heads"]["attention_kernel"] *= 0
    params["heads"]["attention_bias"] = jnp.full(1, -200, jnp.bfloat16)
    output = net.apply(
        variables | {"params": params}, image, landmarks, landmarks[:, 0]
    )
    np.testing.assert_array_equal(output.frames[:, 0], image)
    assert output.frames.dtype == output.color.dtype == np.float32
