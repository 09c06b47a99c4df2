"""The regression-based discriminator, against which VG-net is trained.

CVPR 2019, section 3.3; docs/reference.md, section 1.5.
"""

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
    Mlp,
    Norm,
    SpectralNorm,
    wide,
)
from jax_atvg.models.lstm import Lstm, LstmState
from jax_atvg.models.sizes import DiscriminatorSizes


class DiscriminatorOutput(NamedTuple):
    """What the discriminator returns.

    score: f32[B] in (0,1), the probability that a clip is real: the sigmoid of the mean
    of its logits.  landmarks: f32[B,T,136], estimated from the frames.  logits:
    f32[B,T], one per frame.  state: the LSTM's after the last frame, for the next.
    """

    score: Float[Array, "B"]
    landmarks: Landmarks
    logits: Float[Array, "B T"]
    state: LstmState


class Discriminator(DiscriminatorSizes, nn.Module):
    """Estimates whether a clip is real, and the landmarks of its frames.

    D_p regresses the landmarks as a residual on the photo's; D_s scores the sequence.
    The number of frames is free: the logits of all are averaged (the authors' code
    averages the first 16).  Initial values are PyTorch's defaults, as in the authors'
    code.

    norm: makes the normalisation layers.  All other fields: see DiscriminatorSizes.
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
        f32[B,136].  state: that after the preceding frames; None: there are none.
        train: normalise with the statistics of the batch, and update the running ones.
        """
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
        logits = logits.astype(wide(logits))
        return DiscriminatorOutput(
            nn.sigmoid(logits.mean(1)), example[:, None] + moved, logits, state
        )


class FrameEncoder(nn.Module):
    """Convolutions over frames: [..., S, S, 3] -> [..., S/16, S/16, 8 width]."""

    width: int
    spectral_norm: bool = False
    norm: Norm = BatchNorm

    @nn.compact
    def __call__(self, x, train: bool):
        def run(layer: nn.Module, *inputs):
            """Applies a layer, its kernel divided by its spectral norm if asked to."""
            if not self.spectral_norm:
                return layer(*inputs)
            return SpectralNorm(layer)(*inputs, update_stats=train)

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
