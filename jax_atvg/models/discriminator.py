"""The regression-based discriminator.  CVPR 2019, section 3.3; reference 1.5."""

from typing import NamedTuple

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Float

from jax_atvg.arrays import Array, Landmarks, Reference, Video
from jax_atvg.models.layers import (
    BatchNorm,
    Conv,
    ConvNormRelu,
    Dense,
    Lstm,
    LstmState,
    Mlp,
    Norm,
)
from jax_atvg.models.sizes import DiscriminatorSizes


class DiscriminatorOutput(NamedTuple):
    """score: f32[B] in (0,1), sigmoid of the mean of logits f32[B,T]: is the clip real?
    landmarks: f32[B,T,136], read off the frames."""

    score: Float[Array, "B"]
    landmarks: Landmarks
    logits: Float[Array, "B T"]
    state: LstmState


class Discriminator(DiscriminatorSizes, nn.Module):
    """D_p regresses the frames' landmarks as a residual on the photo's; D_s scores the
    sequence.  Any number of frames: all logits are averaged (the authors' code averages
    the first 16).  Initial values are PyTorch's, as in the authors' code.

    norm: what makes the normalisation layers.  All other fields: see
    DiscriminatorSizes.
    """

    norm: Norm = BatchNorm

    @nn.compact
    def __call__(
        self,
        frames: Video,
        example: Reference,
        *,
        state: LstmState | None = None,
        train: bool = False,
    ) -> DiscriminatorOutput:
        """frames: f32[B,T,H,W,3] in [-1,1].  example: the photo's landmarks,
        f32[B,136]."""
        batch, length = frames.shape[:2]
        encoder = FrameEncoder(
            self.width, self.spectral_norm, self.norm, name="frame_encoder"
        )
        x = encoder(frames, train)
        seen = Mlp((self.fc_width,), torch_init=True, name="frame_fc")(
            x.reshape(batch, length, -1)
        )
        identity = Mlp(self.example_widths, torch_init=True, name="example_encoder")(
            example
        )
        identity = jnp.broadcast_to(
            identity[:, None], (batch, length, identity.shape[-1])
        )
        x, state = Lstm(self.lstm_width, self.lstm_layers, name="lstm")(
            jnp.concatenate([identity, seen], -1), state
        )
        moved = jnp.tanh(Dense(example.shape[-1], True, name="landmark_head")(x))
        logits = Dense(1, True, name="score_head")(x)[..., 0]
        return DiscriminatorOutput(
            nn.sigmoid(logits.mean(1)), example[:, None] + moved, logits, state
        )


class FrameEncoder(nn.Module):
    """[..., S, S, 3] -> [..., S/16, S/16, 8 width]."""

    width: int
    spectral_norm: bool = False
    norm: Norm = BatchNorm

    @nn.compact
    def __call__(self, x, train: bool):
        def run(layer: nn.Module, *inputs):
            """The layer, its kernels divided by their largest singular value."""
            if not self.spectral_norm:
                return layer(*inputs)
            bounded = nn.SpectralNorm(layer, collection_name="batch_stats")
            return bounded(*inputs, update_stats=train)

        first = Conv(self.width, strides=2, torch_init=True, name="conv_0")
        x = nn.relu(run(first, x))
        for i, features in enumerate([2, 4, 8], 1):
            layer = ConvNormRelu(
                features * self.width,
                strides=2,
                norm=self.norm,
                torch_init=True,
                name=f"conv_{i}",
            )
            x = run(layer, x, train)
        return x
