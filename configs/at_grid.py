"""AT-net on GRID, the original's sizes and settings.

    python main.py train --config=at_grid --workdir=runs/at \\
        --data_dir=~/atvg_data

Hardware: one GPU or TPU chip.  Score: not measured yet.
"""

from jax_atvg.training.config import Experiment


def get_config() -> Experiment:
    """batch 16, Adam 2e-4 (0.5, 0.999), squared error of 6 coefficients."""
    return Experiment(network="at", batch_size=16, steps=20_000)
