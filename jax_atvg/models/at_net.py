"""AT-net, the network that predicts landmarks from audio.

CVPR 2019, section 3.1; docs/reference.md, section 1.1.
"""

from typing import NamedTuple

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Float

from jax_atvg.arrays import Array, Audio, Coefficients, Example
from jax_atvg.models.layers import (
    BatchNorm,
    ConvNormRelu,
    Dense,
    Mlp,
    Norm,
    max_pool,
    wide,
)
from jax_atvg.models.lstm import Lstm, LstmState
from jax_atvg.models.sizes import AtNetSizes


class AtOutput(NamedTuple):
    """What AT-net returns.

    coefficients: f32[B,T,K], the frames' landmarks as PCA coefficients, not yet
    multiplied by the boost w.  state: the LSTM's after the last frame, for the next.
    by_member: f32[members,B,T,K], what each predicts, of which coefficients is the
    mean, but see without_doubt; None where there is one.
    """

    coefficients: Coefficients
    state: LstmState
    by_member: Float[Array, "members B T K"] | None = None


class ATNet(AtNetSizes, nn.Module):
    """Predicts the landmarks of every frame from the sound and the photo's landmarks.

        h_t = phi_lmark(LSTM(f_audio(a_t), f_lmark(h_p), c_{t-1}))

    Convolutions read an audio window as a one-channel picture of 28 MFCC rows x 12
    cepstral coefficients; with audio_widths=() it is normalised and goes straight to
    the linear layers.  With several members their variables are stacked along the
    first axis.

    num_coefficients: K.  norm: makes the normalisation layers.  All other fields: see
    AtNetSizes.
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
        f32[B,T,28,12].  state: that after the preceding frames; None: there are none.
        train: normalise with the statistics of the batch, and update the running ones.
        """
        if self.members > 1:
            h, state = self.each_member(example, audio, state, train)
            mean = without_doubt(h, example, self.doubt) if self.doubt else h.mean(0)
            return AtOutput(mean, state, h)
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
        h = h.astype(wide(h))
        if self.relative:
            h += example[:, None]
        return AtOutput(h, state)

    def each_member(self, example, audio, state, train: bool):
        """Runs the members side by side: coefficients f32[members,B,T,K] and the state.

        In the state the members come after the batch, f32[layers,B,members,H], so that
        the batch is the same axis as in the state of a single network.
        """

        def one(net: ATNet, state: LstmState | None):
            output = net(example, audio, state=state, train=train)
            return output.coefficients, output.state

        return nn.vmap(
            one,
            variable_axes={"params": 0, "batch_stats": 0},
            split_rngs={"params": True},
            in_axes=2,
            out_axes=(0, 2),
            axis_size=self.members,
        )(self.clone(parent=self, name="member", members=1), state)


def without_doubt(
    by_member: Float[Array, "members B T K"], example: Example, doubt: float
) -> Coefficients:
    """The members' mean, drawn back to the photo's coefficients where they disagree.

        h_p + d |d|^2 / (|d|^2 + doubt s^2),   d = mean - h_p

    s^2: the sum over coefficients of the members' variance, frame by frame.  The factor
    is a Wiener filter's, if doubt s^2 is the squared error of d; members that have
    learnt from the same clips err together, so that doubt is above 1.  Not in the
    paper.
    """
    movement = by_member.mean(0) - example[:, None]
    energy = jnp.sum(movement**2, -1, keepdims=True)
    spread = jnp.sum(jnp.var(by_member, 0, ddof=1), -1, keepdims=True)
    share = energy / (energy + doubt * spread + 1e-12)
    return example[:, None] + share * movement


class AudioEncoder(nn.Module):
    """Convolutions over audio windows: [..., 28, 12, 1] -> [..., 12, 2, C]."""

    widths: tuple[int, ...]
    norm: Norm = BatchNorm

    @nn.compact
    def __call__(self, x, train: bool):
        for i, width in enumerate(self.widths):
            x = ConvNormRelu(width, norm=self.norm, name=f"conv_{i}")(x, train)
            if i == 1:
                x = max_pool(x, (1, 2))  # 26 x 5
        return max_pool(x, (2, 2))  # 12 x 2
