"""The pictures of a batch, as the networks take them; computed on the device.

Batches bring bytes, a quarter of what floats would take on their way there.
"""

import jax.numpy as jnp
from jax import Array
from jaxtyping import Float, Float32, Num, UInt8

from input_pipeline.clip import Colour, VgBatch


def with_float_pictures(batch: VgBatch) -> VgBatch:
    """The batch with image and frames as f32 in [-1,1], in the light of its colour.

    Pictures that are floats already are in that range, and stay as they are.
    """
    image, frames = batch.image, batch.frames
    if batch.colour is not None and frames.dtype == jnp.uint8:
        image, frames = (recoloured(batch.colour, x) for x in (image, frames))
    return batch._replace(image=to_float(image), frames=to_float(frames), colour=None)


def to_float(pictures: Num[Array, "*any"]) -> Float[Array, "*any"]:
    """u8, 0..255 -> f32 in [-1,1], as input_pipeline.media.image.to_float does but for
    a rounding: XLA multiplies by 1/127.5.  Floats, which are in that range already,
    stay as they are."""
    if pictures.dtype != jnp.uint8:
        return pictures
    return pictures.astype(jnp.float32) / 127.5 - 1


def recoloured(
    colour: Colour, pictures: UInt8[Array, "B *any 3"]
) -> Float32[Array, "B *any 3"]:
    """Pictures in another light, in [-1,1]: see Colour; clipped to that range.

    A colour that changes nothing does so to the bit: roundings would.
    """
    gain, tint, offset, gamma, saturation = (
        x.reshape(len(x), *(1,) * (pictures.ndim - 2), -1) for x in colour
    )
    c = pictures.astype(jnp.float32) / 255
    lit = gain * tint * c**gamma + offset
    grey = lit.mean(-1, keepdims=True)
    changed = jnp.clip(grey + saturation * (lit - grey), 0, 1)
    idle = (gain == 1) & (tint == 1).all(-1, keepdims=True) & (offset == 0)
    idle &= (gamma == 1) & (saturation == 1)
    return jnp.where(idle, to_float(pictures), 2 * changed - 1)
