"""One function per equation.  Each returns a scalar; weights are applied by the steps.

Source: CVPR 2019, section 3, and the authors' trainers (reference section 2).
"""

import jax.numpy as jnp
from jax import lax, nn
from jaxtyping import Float

from input_pipeline.clip import MOUTH, NUM_POINTS
from jax_atvg.arrays import Array, Attention, Coefficients, Landmarks, Scalar, Video


def coefficient_loss(predicted: Coefficients, target: Coefficients) -> Scalar:
    """mean |h^ - h|^2 over clips, frames and coefficients.  AT-net's loss."""
    return jnp.mean((predicted - target) ** 2)


def dynamic_pixel_loss(
    fake: Video, real: Video, attention: Attention, *, beta: float = 0.5
) -> Scalar:
    """L_pix = mean(|fake - real| * (sg(attention) + beta)).  Dynamic pixel-wise loss.

    No gradient flows into the attention: else alpha -> 0 would be a trivial solution.
    """
    return jnp.mean(jnp.abs(fake - real) * (lax.stop_gradient(attention) + beta))


def score_loss(logits: Float[Array, "B T"], *, real: bool) -> Scalar:
    """Cross entropy of the sequence score D_s = sigmoid(mean_t logits_t) against 1
    (real) or 0.

    Taken from the logits, so that a saturated score keeps its gradient; a clip's loss
    is capped at 100, as PyTorch caps it.
    """
    logit = logits.mean(1)
    return jnp.mean(jnp.minimum(nn.softplus(-logit if real else logit), 100.0))


def mouth_mask(weight: float = 100.0) -> Float[Array, "136"]:
    """M_p: `weight` at the y coordinates of the mouth's points, 1 elsewhere.

    The authors' mask; squared, the mouth's heights weigh 10^4.
    """
    return jnp.ones((NUM_POINTS, 2)).at[MOUTH, 1].set(weight).reshape(-1)


def landmark_loss(
    predicted: Landmarks, target: Landmarks, mask: Float[Array, "136"]
) -> Scalar:
    """mean (M_p (p^ - p))^2 over clips, frames and coordinates.  D_p's loss."""
    return jnp.mean((mask * (predicted - target)) ** 2)
