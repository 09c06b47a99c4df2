"""Names for the arrays that travel between the networks, the losses and the steps.

Letters: B clips, T frames, H=W pixels, K PCA coefficients, L = 136 = 68 points (x, y).
"""

import jax
import numpy as np
from jaxtyping import Float

Array = jax.Array | np.ndarray  # the networks take either

Scalar = Float[Array, ""]
Image = Float[Array, "B H W 3"]  # [-1, 1]
Video = Float[Array, "B T H W 3"]  # [-1, 1]
Attention = Float[Array, "B T H W 1"]  # (0, 1)
Audio = Float[Array, "B T 28 12"]  # MFCC windows, one a frame
Example = Float[Array, "B K"]  # the photo's landmarks as PCA coefficients
Coefficients = Float[Array, "B T K"]
Reference = Float[Array, "B L"]  # the photo's landmarks
Landmarks = Float[Array, "B T L"]
