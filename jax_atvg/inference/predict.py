"""Both networks in one pure function: sound and a photo -> landmarks and frames."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float

from input_pipeline.clip import NUM_POINTS, Pca
from input_pipeline.faces import eyelids
from jax_atvg.arrays import (
    Array,
    Attention,
    Audio,
    Coefficients,
    Example,
    Image,
    Landmarks,
    Reference,
    Video,
)
from jax_atvg.models.at_net import ATNet
from jax_atvg.models.lstm import LstmState
from jax_atvg.models.vg_net import VGNet


class Weights(NamedTuple):
    """The arrays with which `predict` runs the networks.

    at_net, vg_net: variables, {"params", "batch_stats"}.  pca: of the landmarks.
    boost: f32[K], w.
    """

    at_net: Any
    vg_net: Any
    pca: Pca
    boost: Array


class Photo(NamedTuple):
    """What the networks are given of B photos.

    image: i_p, f32[B,S,S,3] in [-1,1].  coefficients: h_p, f32[B,K].  landmarks: p_p,
    f32[B,136].  own: f32[B,136], what is added to every frame's landmarks because the
    coefficients cannot express it (see Bundle.recognise); zeros in the paper.
    """

    image: Image
    coefficients: Example
    landmarks: Reference
    own: Reference


class State(NamedTuple):
    """The state of both recurrences, from which the next frames continue."""

    at_net: LstmState
    vg_net: Array


class Prediction(NamedTuple):
    """What the networks predict of T frames.

    frames, color: f32[B,T,S,S,3] in [-1,1].  attention: f32[B,T,S,S,1] in (0,1).
    landmarks: f32[B,T,136].  state: that after the last frame.
    """

    frames: Video
    attention: Attention
    color: Video
    landmarks: Landmarks
    state: State


def predict(
    at_net: ATNet,
    vg_net: VGNet,
    still: bool | Bool[Array, "B"],
    weights: Weights,
    photo: Photo,
    audio: Audio,
    state: State | None = None,
    expressiveness: float | Float[Array, "B"] = 1.0,
    lids: float | Float[Array, "B T"] = 0.0,
) -> Prediction:
    """Predicts landmarks p^_t and from them frames v^_t.  CVPR 2019, equations 1 to 5.

    (Networks runs its two halves as programs of their own, which on a CPU differ from
    this one by rounding.)

    audio: MFCC windows f32[B,T,28,12].  state: that after the preceding frames; None:
    there are none.  still: the face keeps the photo's landmarks, whatever the sound;
    of all clips or of each.  expressiveness: likewise, by which the movement away from
    the photo is multiplied.  lids: see with_lids.  at_net and vg_net are static under
    jit.
    """
    at_state, vg_state = state or (None, None)
    landmarks, at_state = speak(
        at_net, still, weights, photo, audio, at_state, expressiveness, lids
    )
    drawn = vg_net.apply(
        weights.vg_net, photo.image, landmarks, photo.landmarks, state=vg_state
    )
    return Prediction(
        drawn.frames,
        drawn.attention,
        drawn.color,
        landmarks,
        State(at_state, drawn.state),
    )


def speak(
    at_net: ATNet,
    still: bool | Bool[Array, "B"],
    weights: Weights,
    photo: Photo,
    audio: Audio,
    state: LstmState | None = None,
    expressiveness: float | Float[Array, "B"] = 1.0,
    lids: float | Float[Array, "B T"] = 0.0,
) -> tuple[Landmarks, LstmState]:
    """Predicts the landmarks alone, equations 1 and 2; also returns the next state.

    Arguments: see predict; VG-net's weights are not looked at.
    """
    spoken = at_net.apply(weights.at_net, photo.coefficients, audio, state=state)
    landmarks = spoken_landmarks(
        weights.pca, weights.boost, spoken.coefficients, photo, expressiveness
    )
    still = jnp.reshape(still, (-1, 1, 1))
    landmarks = jnp.where(still, photo.landmarks[:, None], landmarks)
    return with_lids(landmarks, lids), spoken.state


def with_lids(
    landmarks: Landmarks, lids: float | Float[Array, "B T"] = 0.0
) -> Landmarks:
    """The landmarks with their eyelids moved, as eyelids.closed does.

    lids: of all frames or of each: 0 leaves the eyes as they are, with 1 they are shut.
    """
    points = landmarks.reshape(*landmarks.shape[:2], NUM_POINTS, 2)
    gap = points[:, :, eyelids.LOWER] - points[:, :, eyelids.UPPER]
    down = jnp.expand_dims(jnp.asarray(lids, points.dtype), (-2, -1)) * gap
    points = points.at[:, :, eyelids.UPPER].add(eyelids.MEETING * down)
    points = points.at[:, :, eyelids.LOWER].add((eyelids.MEETING - 1) * down)
    return points.reshape(landmarks.shape)


def spoken_landmarks(
    pca: Pca,
    boost: Array,
    coefficients: Coefficients,
    photo: Photo,
    expressiveness: float | Float[Array, "B"] = 1.0,
) -> Landmarks:
    """The landmarks of the frames, p^_t = PCA_R(w h_t) + own: f32[B,T,136].

    expressiveness: e, of each clip or all; w h_t becomes h_p + e (w h_t - h_p).
    """
    spoken = boost * coefficients
    movement = spoken - photo.coefficients[:, None]
    # In this form e = 1 changes no bit.
    more = jnp.reshape(jnp.asarray(expressiveness, spoken.dtype) - 1, (-1, 1, 1))
    with jax.default_matmul_precision("highest"):  # landmarks are float32
        landmarks = pca.reconstruct(spoken + more * movement)
    return landmarks + photo.own[:, None]


def first_state(at_net: ATNet, vg_net: VGNet, batch_size: int = 1) -> State:
    """The zeros for which state=None stands, for `batch_size` clips: passed explicitly,
    they let one compiled program serve the first chunk and all others."""
    members = (at_net.members,) if at_net.members > 1 else ()
    shape = at_net.lstm_layers, batch_size, *members, at_net.lstm_width
    lstm = LstmState(np.zeros(shape, np.float32), np.zeros(shape, np.float32))
    side = vg_net.image_size // 16
    features = np.zeros((batch_size, side, side, 8 * vg_net.width), np.float32)
    return State(lstm, features)


def restarted(state: Any, fresh: Bool[Array, "B"], axis: int) -> Any:
    """The state of a recurrence in which the clips that are `fresh` have no preceding
    frames.  axis: that of the clips."""

    def choose(x: Array) -> Array:
        others = [i for i in range(x.ndim) if i != axis]
        return jnp.where(jnp.expand_dims(fresh, others), 0, x)

    return jax.tree.map(choose, state)
