"""The losses, one function per equation.  Each returns a scalar; the training steps
apply the weights.

Source: CVPR 2019, section 3, and the authors' trainers (docs/reference.md, section 2).
"""

from collections.abc import Sequence

import flax.linen as nn
import jax.numpy as jnp
from jax import lax
from jaxtyping import Float

from input_pipeline.clip import (
    CLOSED_LIPS,
    CROP_SIZE,
    LOWER_RIM,
    MOUTH,
    NUM_POINTS,
    UPPER_RIM,
)
from jax_atvg.arrays import Array, Attention, Coefficients, Landmarks, Scalar, Video


def at_landmark_loss(
    predicted: Landmarks,
    target: Landmarks,
    *,
    mouth_weight: float = 1.0,
    velocity_weight: float = 0.0,
    closed_weight: float = 0.0,
) -> Scalar:
    """mean C W |p^ - p| + velocity_weight mean W |d p^ - d p|, d from frame to frame;
    of a single frame there is no d.

    A mean over points, of their distances, as LMD is.  W: mouth_weight for the mouth's
    points, 1 elsewhere.  C: 1 + closed_weight where the lips of p are closed, 1
    elsewhere: of all that a sound may be, a network that is in doubt predicts the
    median, and lips are closed in few frames.  Not in the paper.
    """
    error = predicted - target
    closed = closed_weight * closed_lips(target)
    loss = jnp.mean((1 + closed) * landmark_distance(error, mouth_weight))
    if velocity_weight and error.shape[1] > 1:
        velocity = jnp.diff(error, axis=1)
        loss += velocity_weight * jnp.mean(landmark_distance(velocity, mouth_weight))
    return loss


def closed_lips(landmarks: Landmarks) -> Float[Array, "B T"]:
    """1 in the frames whose inner lips are less than CLOSED_LIPS apart, otherwise 0."""
    points = jnp.reshape(landmarks, (*landmarks.shape[:-1], NUM_POINTS, 2))
    y = points[..., 1]
    apart = y[..., jnp.array(LOWER_RIM)] - y[..., jnp.array(UPPER_RIM)]
    return (apart.mean(-1) < CLOSED_LIPS * 2 / CROP_SIZE).astype(landmarks.dtype)


def landmark_distance(
    error: Landmarks, mouth_weight: float = 1.0
) -> Float[Array, "B T"]:
    """mean over points of W (sqrt(x^2 + y^2 + s^2) - s): lengths, smooth at 0.

    s: a third of a crop pixel.  W: see at_landmark_loss.
    """
    smooth = 0.005
    weight = jnp.ones(NUM_POINTS).at[MOUTH].set(mouth_weight)
    x_y = error.reshape(*error.shape[:-1], NUM_POINTS, 2)
    length = jnp.sqrt(jnp.sum(x_y**2, -1) + smooth**2) - smooth
    return jnp.mean(weight * length, -1)


def coefficient_loss(predicted: Coefficients, target: Coefficients) -> Scalar:
    """mean |h^ - h|^2 over clips, frames and coefficients.  AT-net's loss."""
    return jnp.mean((predicted - target) ** 2)


def dynamic_pixel_loss(
    fake: Video,
    real: Video,
    attention: Attention,
    *,
    beta: float = 0.5,
    weight: Attention | float = 1.0,
) -> Scalar:
    """L_pix = mean(|fake - real| * (sg(attention) + beta)).  Dynamic pixel-wise loss.

    No gradient flows into the attention: else alpha -> 0 would be a trivial solution.
    weight: of each pixel, see pixels_around.
    """
    dynamic = lax.stop_gradient(attention) + beta
    return jnp.mean(weight * jnp.abs(fake - real) * dynamic)


def pixel_loss(fake: Video, real: Video, *, weight: Attention | float = 1.0) -> Scalar:
    """mean |fake - real|: the plain L1 that the dynamic loss is compared with."""
    return jnp.mean(weight * jnp.abs(fake - real))


def pixels_around(
    part: slice, landmarks: Landmarks, size: int, weight: float
) -> Attention:
    """`weight` in the box around the points of a part of the face, a quarter of its
    width larger on all sides; 1 elsewhere.  landmarks: crop coordinates in [-1,1].  Not
    in the paper.
    """
    points = landmarks.reshape(*landmarks.shape[:2], NUM_POINTS, 2)[..., part, :]
    low, high = points.min(2), points.max(2)  # [B,T,2]
    margin = 0.25 * (high - low)[..., :1]
    low, high = low - margin, high + margin
    centres = (jnp.arange(size) + 0.5) * (2 / size) - 1
    inside_x, inside_y = (
        (centres > low[..., i : i + 1]) & (centres < high[..., i : i + 1])
        for i in range(2)
    )
    inside = inside_y[..., :, None] & inside_x[..., None, :]
    return jnp.where(inside, weight, 1.0)[..., None]


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


def hinge_loss(on_real: Array, on_fake: Array) -> Scalar:
    """mean max(0, 1 - D(real)) + mean max(0, 1 + D(fake)): a discriminator's loss (Lim
    and Ye 2017).  Not in the paper."""
    return jnp.mean(nn.relu(1 - on_real)) + jnp.mean(nn.relu(1 + on_fake))


def feature_loss(of_fake: Sequence[Array], of_real: Sequence[Array]) -> Scalar:
    """Feature matching: mean over layers of mean |f(fake) - f(real)| (Wang et al.
    2018).  Not in the paper."""
    pairs = zip(of_fake, of_real, strict=True)
    return sum(jnp.mean(jnp.abs(a - b)) for a, b in pairs) / len(of_fake)


def landmark_loss(
    predicted: Landmarks, target: Landmarks, mask: Float[Array, "136"]
) -> Scalar:
    """mean (M_p (p^ - p))^2 over clips, frames and coordinates.  D_p's loss."""
    return jnp.mean((mask * (predicted - target)) ** 2)
