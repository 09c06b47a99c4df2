"""One training step of AT-net.  Reference section 2."""

import jax
from jax import Array

from input_pipeline.clip import AtBatch
from jax_atvg.losses import coefficient_loss
from jax_atvg.state import AtNets, AtState


def at_step(
    nets: AtNets, state: AtState, batch: AtBatch
) -> tuple[AtState, dict[str, Array]]:
    """Adam on the squared error of the coefficients.  Pure; `nets` is static.

    Returns the new state and {"at/loss": f32[]}.
    """
    (loss, batch_stats), gradients = jax.value_and_grad(at_loss, 1, has_aux=True)(
        nets, state.net.params, state.net.batch_stats, batch
    )
    net = state.net.apply_gradients(gradients, batch_stats, nets.optimizer)
    return AtState(state.step + 1, net), {"at/loss": loss}


def at_loss(nets: AtNets, params, batch_stats, batch: AtBatch):
    """(loss, new running statistics)."""
    output, moved = nets.net.apply(
        {"params": params, "batch_stats": batch_stats},
        batch.example,
        batch.audio,
        train=True,
        mutable=["batch_stats"],
    )
    loss = coefficient_loss(output.coefficients, batch.coefficients)
    return loss, moved["batch_stats"]
