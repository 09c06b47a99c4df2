"""AT-net: audio to landmarks.  CVPR 2019, section 3.1; reference 1.1."""

from typing import NamedTuple

import flax.linen as nn
import jax.numpy as jnp

from jax_atvg.arrays import Audio, Coefficients, Example
from jax_atvg.models.layers import (
    BatchNorm,
    ConvNormRelu,
    Dense,
    Lstm,
    LstmState,
    Mlp,
    Norm,
    max_pool,
)
from jax_atvg.models.sizes import AtNetSizes


class AtOutput(NamedTuple):
    """coefficients: f32[B,T,K], landmarks as PCA coefficients (to be boosted by w)."""

    coefficients: Coefficients
    state: LstmState


class ATNet(AtNetSizes, nn.Module):
    """h_t = phi_lmark(LSTM(f_audio(a_t), f_lmark(h_p), c_{t-1})).

    An audio window is read as a one-channel picture of 28 MFCC rows x 12 cepstra; with
    audio_widths=() as numbers, normalised, without convolutions.  The variables of
    several members are stacked along the first axis.

    num_coefficients: K.  norm: what makes the normalisation layers.  All other fields:
    see AtNetSizes.
    """

    num_coefficients: int = 6
    norm: Norm = BatchNorm

    @nn.compact
    def __call__(
        self,
        example: Example,
        audio: Audio,
        *,
        state: LstmState | None = None,
        train: bool = False,
    ) -> AtOutput:
        """example: the photo's coefficients h_p, f32[B,K].  audio: MFCC windows
        f32[B,T,28,12].  state: of the preceding frames; None starts anew."""
        if self.members > 1:
            h, state = self.each_member(example, audio, state, train)
            return AtOutput(h.mean(0), state)
        batch, frames = audio.shape[:2]
        if self.audio_widths:
            encoder = AudioEncoder(self.audio_widths, self.norm, name="audio_encoder")
            x = encoder(audio[..., None], train)
        else:
            x = self.norm(name="audio_norm")(audio, train)
        sound = Mlp(self.fc_widths, name="audio_fc")(x.reshape(batch, frames, -1))
        identity = Mlp(self.example_widths, name="example_encoder")(example)
        identity = jnp.broadcast_to(
            identity[:, None], (batch, frames, identity.shape[-1])
        )
        x, state = Lstm(self.lstm_width, self.lstm_layers, name="lstm")(
            jnp.concatenate([identity, sound], -1), state
        )
        h = Dense(self.num_coefficients, name="head")(x)
        if self.relative:
            h += example[:, None]
        return AtOutput(h, state)

    def each_member(self, example, audio, state, train: bool):
        """Coefficients f32[members,B,T,K]; the state has its members after the batch,
        f32[layers,B,members,H], so that the batch is where one network has it."""
        return nn.vmap(
            lambda net, state: tuple(net(example, audio, state=state, train=train)),
            variable_axes={"params": 0, "batch_stats": 0},
            split_rngs={"params": True},
            in_axes=2,
            out_axes=(0, 2),
            axis_size=self.members,
        )(self.clone(parent=self, name="member", members=1), state)


class AudioEncoder(nn.Module):
    """[..., 28, 12, 1] -> [..., 12, 2, C]."""

    widths: tuple[int, ...]
    norm: Norm = BatchNorm

    @nn.compact
    def __call__(self, x, train: bool):
        for i, width in enumerate(self.widths):
            x = ConvNormRelu(width, norm=self.norm, name=f"conv_{i}")(x, train)
            if i == 1:
                x = max_pool(x, (1, 2))  # 26 x 5
        return max_pool(x, (2, 2))  # 12 x 2
