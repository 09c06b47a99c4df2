"""One training step of VG-net and its discriminator.  CVPR 2019, section 3.3.

    L_D = BCE(D_s(real), 1) + BCE(D_s(fake), 0) + L_p(real)
    L_G = lambda L_pix + BCE(D_s(fake), 1) + L_p(fake)

with L_p the squared, mouth-weighted error of the landmarks that D_p reads off the
frames.  D is updated first, and VG-net (G) is judged by the updated D, as in the
authors' code.  That code adds L_p(fake) to L_D, against the paper: VG-net then learns
to write landmarks into the frames that only D_p can read.  VG-net runs forward once;
the authors run it twice, with new dropout masks.

Not in the paper: plain L1, and a discriminator of mouths, see
config.GanLoss.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from input_pipeline.clip import LEFT_EYE, MOUTH, RIGHT_EYE, VgBatch
from jax_atvg.arrays import Array, Attention, Video
from jax_atvg.models.mouth_discriminator import mouth_crops
from jax_atvg.training.losses import (
    dynamic_pixel_loss,
    feature_loss,
    hinge_loss,
    landmark_loss,
    mouth_mask,
    pixel_loss,
    pixels_around,
    score_loss,
)
from jax_atvg.training.pictures import with_float_pictures
from jax_atvg.training.rng import stream
from jax_atvg.training.state import NetState, VgNets, VgState, run


class Fake(NamedTuple):
    """The part of VG-net's output that the losses read."""

    frames: Video
    attention: Attention


def gan_step(
    nets: VgNets, state: VgState, batch: VgBatch, seed: int | Array
) -> tuple[VgState, dict[str, Array]]:
    """Discriminators, then generator.  Pure; `nets` is static.

    Returns the new state and the losses, f32[] each, named "disc/..." and "vg/...".
    """
    batch = with_float_pictures(batch)
    fake, pull_back, batch_stats = generate(nets, state, batch, seed)
    disc, d = discriminator_update(nets, state.disc, fake, batch)
    mouth, m = mouth_update(nets, state.mouth, fake, batch)
    state = state._replace(disc=disc, mouth=mouth)
    (_, g), cotangent = jax.value_and_grad(vg_loss, 2, has_aux=True)(
        nets, state, fake, batch
    )
    (gradients,) = pull_back(cotangent)
    return moved(nets, state, gradients, batch_stats), d | m | g


def pixel_step(
    nets: VgNets, state: VgState, batch: VgBatch, seed: int | Array
) -> tuple[VgState, dict[str, Array]]:
    """A step of VG-net alone, on the pixel loss, without discriminators: a run
    may begin with such steps (not in the paper)."""
    batch = with_float_pictures(batch)
    fake, pull_back, batch_stats = generate(nets, state, batch, seed)
    (_, terms), cotangent = jax.value_and_grad(weighted_pixel_loss, 1, has_aux=True)(
        nets, fake, batch
    )
    (gradients,) = pull_back(cotangent)
    terms |= {"vg/attention": fake.attention.mean()}
    return moved(nets, state, gradients, batch_stats), terms


def generate(nets: VgNets, state: VgState, batch: VgBatch, seed: int | Array):
    """VG-net's forward pass: (Fake, its pull-back to VG-net's parameters, new running
    statistics)."""

    def forward(params):
        output, batch_stats = run(
            nets.vg_net,
            params,
            state.vg.batch_stats,
            batch.image,
            batch.landmarks,
            batch.example,
            precision=nets.precision,
            # The stream's name is older than the field's: a resumed run needs its
            # noise.
            dropout=stream(seed, "gen/dropout", state.step),
        )
        return Fake(output.frames, output.attention), batch_stats

    return jax.vjp(forward, state.vg.params, has_aux=True)


def discriminator_update(
    nets: VgNets, disc: NetState, fake: Fake, batch: VgBatch
) -> tuple[NetState, dict[str, Array]]:
    """D's update: (the discriminator after its step, its losses)."""
    if not (nets.loss.score or nets.loss.landmark):
        return disc, {}
    (_, (batch_stats, terms)), gradients = jax.value_and_grad(
        discriminator_loss, 1, has_aux=True
    )(nets, disc.params, disc.batch_stats, fake.frames, batch)
    return disc.apply_gradients(gradients, batch_stats, nets.disc_optimizer), terms


def mouth_update(
    nets: VgNets, mouth: NetState | None, fake: Fake, batch: VgBatch
) -> tuple[NetState | None, dict[str, Array]]:
    """The update of the discriminator of mouths, if there is one: (it, its losses)."""
    if mouth is None:
        return None, {}
    (loss, batch_stats), gradients = jax.value_and_grad(mouth_loss, 1, has_aux=True)(
        nets, mouth.params, mouth.batch_stats, fake.frames, batch
    )
    mouth = mouth.apply_gradients(gradients, batch_stats, nets.disc_optimizer)
    return mouth, {"disc/mouth": loss}


def moved(nets: VgNets, state: VgState, gradients, batch_stats) -> VgState:
    """The state after VG-net's update."""
    vg = state.vg.apply_gradients(gradients, batch_stats, nets.vg_optimizer)
    return state._replace(step=state.step + 1, vg=vg)


def discriminator_loss(nets: VgNets, params, batch_stats, fake: Video, batch: VgBatch):
    """(L_D, (new running statistics, its terms)).  Real and generated frames go through
    D in one pass, each with BatchNorm statistics of its own; the real ones update the
    running statistics first."""
    both = nets.discriminator.clone(
        norm=functools.partial(nets.discriminator.norm, interleaved=2)
    )
    output, batch_stats = run(
        both,
        params,
        batch_stats,
        interleave(batch.frames, fake),
        interleave(batch.example, batch.example),
        precision=nets.precision,
    )
    on_real, on_fake = apart(output._replace(state=None))
    terms, mask = {}, mouth_mask()
    if nets.loss.score:
        terms |= {
            "disc/score_real": score_loss(on_real.logits, real=True),
            "disc/score_fake": score_loss(on_fake.logits, real=False),
        }
    if nets.loss.landmark:
        truth = batch.landmarks
        terms["disc/landmark_real"] = landmark_loss(on_real.landmarks, truth, mask)
        if nets.loss.landmark_on_generated:
            terms["disc/landmark_fake"] = landmark_loss(on_fake.landmarks, truth, mask)
    loss = sum(terms.values())
    return loss, (batch_stats, terms | {"disc/loss": loss})


def mouth_loss(nets: VgNets, params, batch_stats, fake: Video, batch: VgBatch):
    """(the hinge loss of the discriminator of mouths, its new running statistics)."""
    judged, batch_stats = judge_mouths(nets, params, batch_stats, fake, batch)
    real, fake = judged
    return hinge_loss(real.logits, fake.logits), batch_stats


def judge_mouths(nets: VgNets, params, batch_stats, fake: Video, batch: VgBatch):
    """((Judgement of the real mouths, of the generated ones), running statistics): one
    pass, because in this discriminator crops do not influence each other."""
    crops = [
        mouth_crops(frames, batch.landmarks, nets.mouth_discriminator.side)
        for frames in (batch.frames, fake)
    ]
    net, both = nets.mouth_discriminator, interleave(*crops)
    judged, batch_stats = run(net, params, batch_stats, both, precision=nets.precision)
    return apart(judged), batch_stats


def interleave(real: Array, fake: Array) -> Array:
    """f[N,...] twice -> f[2N,...], each in turn, so that every device of a mesh keeps
    its own examples."""
    both = jnp.stack([real, fake], 1)
    return both.reshape(-1, *real.shape[1:])


def apart(both: Any) -> tuple[Any, Any]:
    """The inverse of interleave, on every array of a tree."""

    def part(which: int):
        return jax.tree.map(lambda x: x[which::2], both)

    return part(0), part(1)


def vg_loss(nets: VgNets, state: VgState, fake: Fake, batch: VgBatch):
    """(L_G, its terms), L_G as VG-net is judged.  The discriminators are frozen:
    neither their parameters nor their running statistics change."""
    loss, terms = weighted_pixel_loss(nets, fake, batch)
    disc, mouth = state.disc, state.mouth
    if nets.loss.score or nets.loss.landmark:
        judged, _ = run(
            nets.discriminator,
            disc.params,
            disc.batch_stats,
            fake.frames,
            batch.example,
            precision=nets.precision,
        )
    if nets.loss.score:
        terms["vg/score"] = score_loss(judged.logits, real=True)
        loss += terms["vg/score"]
    if nets.loss.landmark:
        terms["vg/landmark"] = landmark_loss(
            judged.landmarks, batch.landmarks, mouth_mask()
        )
        loss += terms["vg/landmark"]
    if mouth is not None:
        (on_real, on_fake), _ = judge_mouths(
            nets, mouth.params, mouth.batch_stats, fake.frames, batch
        )
        score = -on_fake.logits.mean()
        match = feature_loss(on_fake.features, on_real.features)
        terms |= {"vg/mouth_score": score, "vg/mouth_features": match}
        loss += nets.loss.mouth_score * score + nets.loss.mouth_features * match
    return loss, terms | {"vg/attention": fake.attention.mean(), "vg/loss": loss}


def weighted_pixel_loss(nets: VgNets, fake: Fake, batch: VgBatch):
    """(the weighted loss of pictures, its terms unweighted); L_pix is dynamic or plain
    L1."""
    weight, size = 1.0, fake.frames.shape[2]
    for part, share in (
        (MOUTH, nets.loss.mouth_weight),
        (RIGHT_EYE, nets.loss.eyes_weight),
        (LEFT_EYE, nets.loss.eyes_weight),
    ):
        if share != 1.0:
            weight *= pixels_around(part, batch.landmarks, size, share)
    pictures = fake.frames, batch.frames
    if nets.loss.dynamic:
        pixel = dynamic_pixel_loss(
            *pictures, fake.attention, beta=nets.loss.beta, weight=weight
        )
    else:
        pixel = pixel_loss(*pictures, weight=weight)
    return nets.loss.pixel_weight * pixel, {"vg/pixel": pixel}
