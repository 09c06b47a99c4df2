"""A discriminator of mouths, which sees single crops around them.  Not in the paper.

The paper's discriminator judges whole frames in sequence; this one judges whether every
part of a mouth has the texture of a real one.
"""

from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Float

from input_pipeline.clip import MOUTH, NUM_POINTS
from jax_atvg.arrays import Array, Landmarks, Video
from jax_atvg.models.layers import Conv, SpectralNorm
from jax_atvg.models.sizes import MouthDiscriminatorSizes

STRIDES = (2, 2, 2, 1)


class Judgement(NamedTuple):
    """logits: f32[N,S/8,S/8], of overlapping parts of N crops, above 0 where they look
    real.  features: of every layer, f32[N,H,W,C] each."""

    logits: Float[Array, "N _h _w"]
    features: tuple[Array, ...]


class MouthDiscriminator(MouthDiscriminatorSizes, nn.Module):
    """Strided convolutions over crops, their kernels divided by their spectral norms
    (Miyato et al. 2018); no norms, so that crops do not influence each other.

    All fields: see MouthDiscriminatorSizes.
    """

    @nn.compact
    def __call__(
        self, crops: Float[Array, "N S S 3"], *, train: bool = False
    ) -> Judgement:
        """crops: in [-1,1], see mouth_crops.  train: take a step of the power iteration
        towards the spectral norms."""
        x, features = crops, []
        for i, stride in enumerate(STRIDES):
            channels, name = self.width * 2 ** min(i, 2), f"conv_{i}"
            layer = Conv(channels, strides=stride, torch_init=True, name=name)
            x = nn.leaky_relu(SpectralNorm(layer)(x, update_stats=train), 0.2)
            features.append(x)
        head = Conv(1, torch_init=True, name="score_head")
        logits = SpectralNorm(head)(x, update_stats=train)[..., 0]
        return Judgement(logits, tuple(features))


def mouth_crops(
    frames: Video, landmarks: Landmarks, side: int
) -> Float[Array, "N S S 3"]:
    """The square around each frame's mouth, N = B T; whole pixels, so that no texture
    is lost to interpolation.

    frames: f32[B,T,H,W,3].  landmarks: f32[B,T,136], crop coordinates in [-1,1].
    side: of the square; one that would reach over the picture's border is moved inside.
    """
    size = frames.shape[2]
    points = landmarks.reshape(-1, NUM_POINTS, 2)[:, MOUTH]
    middle = (points.min(1) + points.max(1)) / 2  # [N,2], x and y
    corner = jnp.round((middle + 1) * (size / 2) - side / 2)
    corner = jnp.clip(corner, 0, size - side).astype(jnp.int32)

    def cut(frame: Array, corner: Array) -> Array:
        at = (corner[1], corner[0], 0)
        return jax.lax.dynamic_slice(frame, at, (side, side, frame.shape[-1]))

    return jax.vmap(cut)(frames.reshape(-1, *frames.shape[2:]), corner)
