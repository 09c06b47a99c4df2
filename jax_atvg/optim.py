"""The optimisers."""

import optax


def adam(learning_rate: float = 2e-4) -> optax.GradientTransformation:
    """Adam with the authors' betas (0.5, 0.999), eps 1e-8; no decay, no schedule."""
    return optax.adam(learning_rate, b1=0.5, b2=0.999, eps=1e-8)
