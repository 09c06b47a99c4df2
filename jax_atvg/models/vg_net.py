"""VG-net, the network that generates frames from a photo and landmarks.

CVPR 2019, section 3.2; docs/reference.md, section 1.3.  At the original's size S = 128
pixels and width = 64.
"""

from typing import NamedTuple

import flax.linen as nn
import jax.numpy as jnp

from jax_atvg.arrays import Array, Attention, Image, Landmarks, Reference, Video
from jax_atvg.models.conv_gru import ConvGru
from jax_atvg.models.layers import (
    BatchNorm,
    Conv,
    ConvHeads,
    ConvNormRelu,
    Mlp,
    Norm,
    ResidualBlock,
    UpNormRelu,
    reflect_pad,
    wide,
)
from jax_atvg.models.sizes import VgNetSizes


class VgOutput(NamedTuple):
    """What VG-net returns.

    frames, color: f32[B,T,S,S,3] in [-1,1].  attention: f32[B,T,S,S,1] in (0,1), the
    share of color in a pixel of the frame; the rest is the photo's.
    landmark_attention: f32[B,T,S/4,S/4,1] in (0,1), likewise for the features.  state:
    f32[B,S/16,S/16,8 width], the recurrence's after the last frame, for the next.
    """

    frames: Video
    attention: Attention
    color: Video
    landmark_attention: Attention
    state: Array


class VGNet(VgNetSizes, nn.Module):
    """Generates frames v^_t from the photo i_p and the landmarks p_t of every frame.

        v^_t = alpha_t * m_t + (1 - alpha_t) * i_p    (alpha: attention, m: color)

    image_size: S, pixels.  norm: makes the normalisation layers.  All other fields: see
    VgNetSizes.
    """

    image_size: int = 128
    norm: Norm = BatchNorm

    @nn.compact
    def __call__(
        self,
        image: Image | Video,
        landmarks: Landmarks,
        example: Reference | Landmarks,
        *,
        state: Array | None = None,
        train: bool = False,
    ) -> VgOutput:
        """image: the photo, f32[B,S,S,3] in [-1,1].  landmarks: f32[B,T,136].  example:
        the photo's landmarks, f32[B,136].  Both may have an axis T after B: then every
        frame has a photo of its own.  state: that after the preceding frames; None:
        there are none.  train: normalise with the statistics of the batch, update the
        running ones, and drop out features.

        Raises ValueError unless S is `image_size`, a multiple of 16.
        """
        size, width, frames = self.image_size, self.width, landmarks.shape[1]
        *_, rows, columns, _ = image.shape
        if size % 16 or (rows, columns) != (size, size):
            raise ValueError(
                f"image of {rows}x{columns} pixels: VGNet(image_size="
                f"{size}) needs {size}x{size}, a multiple of 16; resize the image or "
                "set image_size"
            )

        def over_time(x):
            return jnp.broadcast_to(x, (x.shape[0], frames, *x.shape[2:]))

        # One photo is [B, 1, S, S, 3].
        photo = image if image.ndim == 5 else image[:, None]
        example = example if example.ndim == 3 else example[:, None]
        detail = ImageEncoder1(width, self.norm, name="image_encoder1")(photo, train)
        identity = ImageEncoder2(width, self.norm, name="image_encoder2")(detail, train)

        # The photos' landmarks go first, through the same layers as the frames'.
        photos = example.shape[1]
        points = jnp.concatenate([example, landmarks], 1)
        points = LandmarkEncoder(width, size, self.norm, name="landmark_encoder")(
            points, train
        )
        shape = ConvNormRelu(8 * width, norm=self.norm, name="landmark_feature")(
            points, train
        )
        own = over_time(points[:, :photos])
        both = jnp.concatenate([points[:, photos:], own], -1)
        landmark_attention = LandmarkAttention(
            width, self.norm, name="landmark_attention"
        )(both, train)

        moved = shape[:, photos:] - shape[:, :photos]
        x = jnp.concatenate([over_time(identity), moved], -1)
        x = ConvNormRelu(2 * width, norm=self.norm, name="bottleneck")(x, train)
        x, state = ConvGru(8 * width, self.recurrence, name="conv_gru")(x, state)
        generator = Generator(
            width,
            self.num_blocks,
            self.dropout,
            self.remat,
            self.norm,
            name="generator",
        )
        x = generator(x, train)
        x = detail + landmark_attention * (x - detail)
        up = kept_or_again(UpNormRelu, self.remat)
        x = up(width, norm=self.norm, name="up_0")(x, train)
        x = up(width // 2, norm=self.norm, name="up_1")(x, train)
        features = {"color": 3, "attention": 1} if self.compose else {"color": 3}
        heads = ConvHeads(features, 7, name="heads")(x)
        heads = {name: x.astype(wide(x)) for name, x in heads.items()}
        color = jnp.tanh(heads["color"])
        if self.compose:
            attention = nn.sigmoid(heads["attention"])
        else:
            attention = jnp.ones((*color.shape[:-1], 1), color.dtype)
        output = attention * color + (1 - attention) * photo
        return VgOutput(output, attention, color, landmark_attention, state)


def kept_or_again(layer: type[nn.Module], remat: bool) -> type[nn.Module]:
    """The layer; with remat, one that the backward pass computes again."""
    return nn.remat(layer, static_argnums=(2,)) if remat else layer


class ImageEncoder1(nn.Module):
    """The photo [..., S, S, 3] -> its features i'_p [..., S/4, S/4, 2 width]."""

    width: int
    norm: Norm = BatchNorm

    @nn.compact
    def __call__(self, x, train: bool):
        x = reflect_pad(x, 3)
        for i, (features, kernel, strides, padding) in enumerate(
            [(1, 7, 1, 0), (1, 3, 2, 1), (2, 3, 2, 1)]
        ):
            x = ConvNormRelu(
                features * self.width,
                kernel,
                strides,
                padding,
                norm=self.norm,
                name=f"conv_{i}",
            )(x, train)
        return x


class ImageEncoder2(nn.Module):
    """Features i'_p [..., S/4, S/4, 2 width] -> i''_p [..., S/16, S/16, 8 width]."""

    width: int
    norm: Norm = BatchNorm

    @nn.compact
    def __call__(self, x, train: bool):
        for i, features in enumerate([4, 8]):
            x = ConvNormRelu(
                features * self.width, strides=2, norm=self.norm, name=f"conv_{i}"
            )(x, train)
        return x


class LandmarkEncoder(nn.Module):
    """f, features of landmarks: [..., 136] -> [..., S/16, S/16, 4 width]."""

    width: int
    image_size: int
    norm: Norm = BatchNorm

    @nn.compact
    def __call__(self, points, train: bool):
        side = self.image_size // 16
        x = Mlp((side * side,), name="fc")(points)
        x = x.reshape(*points.shape[:-1], side, side, 1)
        return ConvNormRelu(4 * self.width, norm=self.norm, name="conv")(x, train)


class LandmarkAttention(nn.Module):
    """Where the face changes, in (0,1), from the features of both landmarks.

    [f(p_t), f(p_p)] [..., S/16, S/16, 8 width] -> att_t [..., S/4, S/4, 1].
    """

    width: int
    norm: Norm = BatchNorm

    @nn.compact
    def __call__(self, x, train: bool):
        for i, features in enumerate([4, 2]):
            x = UpNormRelu(
                features * self.width, use_bias=True, norm=self.norm, name=f"up_{i}"
            )(x, train)
        return nn.sigmoid(Conv(1, name="conv")(x))


class Generator(nn.Module):
    """Residual blocks, then two enlargements.

    [..., S/16, S/16, 8 width] -> [..., S/4, S/4, 2 width].
    """

    width: int
    num_blocks: int
    dropout: float = 0.5
    remat: bool = False
    norm: Norm = BatchNorm

    @nn.compact
    def __call__(self, x, train: bool):
        block, up = (
            kept_or_again(layer, self.remat) for layer in (ResidualBlock, UpNormRelu)
        )
        for i in range(self.num_blocks):
            x = block(self.dropout, self.norm, name=f"block_{i}")(x, train)
        for i, features in enumerate([4, 2]):
            x = up(features * self.width, norm=self.norm, name=f"up_{i}")(x, train)
        return x
