"""VG-net and its discriminator on LRW, the original's settings: 5 epochs.

    python main.py train --config=vg_lrw --workdir=runs/vg_lrw \\
        --data_dir=~/atvg_data/atvg_clips/lrw/1.0.0

Hardware: a TPU slice or several GPUs; batch_size must divide by the devices.
Score: not measured yet.
"""

from input_pipeline.preparation.corpora import LRW_TRAINING_CLIPS
from jax_atvg.training.config import Experiment


def get_config() -> Experiment:
    """The settings of vg_grid, for five epochs."""
    return Experiment(network="vg", batch_size=10, steps=5 * LRW_TRAINING_CLIPS // 10)
