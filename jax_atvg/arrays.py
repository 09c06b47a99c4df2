"""Types, with shapes, of the arrays that networks, losses and training steps exchange.

Letters: B clips, T frames, H=W pixels, K PCA coefficients, L = 136 = 68 points (x, y).
"""

import jax
import numpy as np
from jaxtyping import Float

Array = jax.Array | np.ndarray  # the networks accept both

Scalar = Float[Array, ""]
Image = Float[Array, "B H W 3"]  # [-1, 1]
Video = Float[Array, "B T H W 3"]  # [-1, 1]
Attention = Float[Array, "B T H W 1"]  # (0, 1)
Audio = Float[Array, "B T 28 12"]  # one MFCC window per frame
Example = Float[Array, "B K"]  # the photo's landmarks as PCA coefficients
Coefficients = Float[Array, "B T K"]  # the frames' landmarks as PCA coefficients
Reference = Float[Array, "B L"]  # the photo's landmarks
Landmarks = Float[Array, "B T L"]  # the frames' landmarks
