"""One training step of AT-net.  docs/reference.md, section 2."""

import jax
from jax import Array

from input_pipeline.clip import AtBatch
from jax_atvg.arrays import Coefficients, Scalar
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
        precision=nets.precision,
    )
    if output.by_member is None:
        return error(nets, output.coefficients, batch.coefficients), batch_stats
    # Each member by itself: as a mean is better the less their errors agree, they must
    # not learn to make up for each other's.
    losses = jax.vmap(lambda h: error(nets, h, batch.coefficients))(output.by_member)
    return losses.mean(), batch_stats


def error(nets: AtNets, predicted: Coefficients, target: Coefficients) -> Scalar:
    """The loss of coefficients, or of the landmarks they stand for."""
    if nets.loss.target == "coefficients":
        return coefficient_loss(predicted, target)
    with jax.default_matmul_precision("highest"):  # as losses are
        landmarks = nets.pca.reconstruct(predicted), nets.pca.reconstruct(target)
    return at_landmark_loss(
        *landmarks,
        mouth_weight=nets.loss.mouth_weight,
        velocity_weight=nets.loss.velocity_weight,
        closed_weight=nets.loss.closed_weight,
    )
