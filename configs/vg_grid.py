"""VG-net and its discriminator on GRID, the original's sizes and settings.

    python main.py train --config=vg_grid --workdir=runs/vg \\
        --data_dir=~/atvg_data

Hardware: one GPU or TPU chip of 16 GB.  Score: not measured yet.
"""

from jax_atvg.training.config import Experiment


def get_config() -> Experiment:
    """batch 10, 16 frames, Adam 2e-4 (0.5, 0.999), lambda 10, beta 0.5."""
    return Experiment(network="vg", batch_size=10, steps=20_000)
