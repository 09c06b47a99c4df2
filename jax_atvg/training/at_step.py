"""One training step of AT-net.  docs/reference.md, section 2."""

import jax
from jax import Array

from input_pipeline.clip import AtBatch
from jax_atvg.training.losses import at_landmark_loss, coefficient_loss
from jax_atvg.training.state import AtNets, AtState, run


def at_step(
    nets: AtNets, state: AtState, batch: AtBatch, seed: int | Array = 0
) -> tuple[AtState, dict[str, Array]]:
    """Adam on the error of the coefficients, or of the landmarks they stand for.

    Pure; `nets` is static; nothing is random.  Returns the new state and
    {"at/loss": f32[]}.
    """
    (loss, batch_stats), gradients = jax.value_and_grad(at_loss, 1, has_aux=True)(
        nets, state.net.params, state.net.batch_stats, batch
    )
    net = state.net.apply_gradients(gradients, batch_stats, nets.optimizer)
    return AtState(state.step + 1, net), {"at/loss": loss}


def at_loss(nets: AtNets, params, batch_stats, batch: AtBatch):
    """(loss, new running statistics)."""
    output, batch_stats = run(
        nets.net,
        params,
        batch_stats,
        batch.example,
        batch.audio,
        compute=nets.compute,
    )
    if nets.loss.target == "coefficients":
        loss = coefficient_loss(output.coefficients, batch.coefficients)
    else:
        loss = at_landmark_loss(
            nets.pca.reconstruct(output.coefficients),
            nets.pca.reconstruct(batch.coefficients),
            mouth_weight=nets.loss.mouth_weight,
            velocity_weight=nets.loss.velocity_weight,
            closed_weight=nets.loss.closed_weight,
        )
    return loss, batch_stats
