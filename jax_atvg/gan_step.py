"""One training step of VG-net and its discriminator.  CVPR 2019, section 3.3.

    L_D = BCE(D_s(real), 1) + BCE(D_s(fake), 0) + L_p(real) + L_p(fake)
    L_G = lambda L_pix + BCE(D_s(fake), 1) + L_p(fake)

with L_p the squared, mouth-weighted error of the landmarks that D_p reads off the
frames.  D is updated first and G is judged by the updated D, as in the authors' code.
The generator runs forward once; the authors run it twice, with new dropout.
"""

from typing import NamedTuple

import jax
from jax import Array

from input_pipeline.clip import VgBatch
from jax_atvg.arrays import Attention, Video
from jax_atvg.losses import dynamic_pixel_loss, landmark_loss, mouth_mask, score_loss
from jax_atvg.rng import stream
from jax_atvg.state import GanNets, GanState, NetState


class Fake(NamedTuple):
    """What the losses see of the generator's output."""

    frames: Video
    attention: Attention


def gan_step(
    nets: GanNets, state: GanState, batch: VgBatch, seed: int | Array
) -> tuple[GanState, dict[str, Array]]:
    """Discriminator, then generator.  Pure; `nets` is static.

    Returns the new state and the losses, f32[] each, named "disc/..." and "gen/...".
    """
    key = stream(seed, "gen/dropout", state.step)
    fake, pull_back, batch_stats = generate(nets, state.gen, batch, key)

    (_, (disc_stats, d)), gradients = jax.value_and_grad(
        discriminator_loss, 1, has_aux=True
    )(nets, state.disc.params, state.disc.batch_stats, fake.frames, batch)
    disc = state.disc.apply_gradients(gradients, disc_stats, nets.disc_optimizer)

    (_, g), cotangent = jax.value_and_grad(generator_loss, 2, has_aux=True)(
        nets, disc, fake, batch
    )
    (gradients,) = pull_back(cotangent)
    gen = state.gen.apply_gradients(gradients, batch_stats, nets.gen_optimizer)
    return GanState(state.step + 1, gen, disc), d | g


def generate(nets: GanNets, gen: NetState, batch: VgBatch, key: Array):
    """(Fake, its pull-back to the generator's parameters, new running statistics)."""

    def forward(params):
        output, moved = nets.generator.apply(
            {"params": params, "batch_stats": gen.batch_stats},
            batch.image,
            batch.landmarks,
            batch.example,
            train=True,
            mutable=["batch_stats"],
            rngs={"dropout": key},
        )
        return Fake(output.frames, output.attention), moved["batch_stats"]

    return jax.vjp(forward, gen.params, has_aux=True)


def discriminator_loss(nets: GanNets, params, batch_stats, fake: Video, batch: VgBatch):
    """(L_D, (new running statistics, its terms)).  Real and generated frames are
    normalised apart; the real ones move the running statistics first."""
    read = []
    for frames in (batch.frames, fake):
        output, moved = nets.discriminator.apply(
            {"params": params, "batch_stats": batch_stats},
            frames,
            batch.example,
            train=True,
            mutable=["batch_stats"],
        )
        batch_stats = moved["batch_stats"]
        read.append(output)
    on_real, on_fake = read
    mask = mouth_mask()
    terms = {
        "disc/score_real": score_loss(on_real.logits, real=True),
        "disc/score_fake": score_loss(on_fake.logits, real=False),
        "disc/landmark_real": landmark_loss(on_real.landmarks, batch.landmarks, mask),
        "disc/landmark_fake": landmark_loss(on_fake.landmarks, batch.landmarks, mask),
    }
    loss = sum(terms.values())
    return loss, (batch_stats, terms | {"disc/loss": loss})


def generator_loss(nets: GanNets, disc: NetState, fake: Fake, batch: VgBatch):
    """(L_G, its terms).  The discriminator is frozen: neither its parameters nor its
    running statistics move."""
    judged, _ = nets.discriminator.apply(
        disc.variables, fake.frames, batch.example, train=True, mutable=["batch_stats"]
    )
    pixel = dynamic_pixel_loss(
        fake.frames, batch.frames, fake.attention, beta=nets.beta
    )
    score = score_loss(judged.logits, real=True)
    landmark = landmark_loss(judged.landmarks, batch.landmarks, mouth_mask())
    loss = nets.pixel_weight * pixel + score + landmark
    return loss, {
        "gen/pixel": pixel,
        "gen/score": score,
        "gen/landmark": landmark,
        "gen/attention": fake.attention.mean(),
        "gen/loss": loss,
    }
