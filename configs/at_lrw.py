"""AT-net on LRW, the original's sizes and settings: 10 epochs of 488,766 clips.

    python main.py train --config=at_lrw --workdir=runs/at_lrw \\
        --data_dir=~/atvg_data/atvg_clips/lrw/1.0.0

Hardware: one GPU or TPU chip.  Score: not measured yet.
"""

from input_pipeline.preparation.corpora import LRW_TRAINING_CLIPS
from jax_atvg.training.config import Experiment


def get_config() -> Experiment:
    """The settings of at_grid, for ten epochs."""
    return Experiment(network="at", batch_size=16, steps=10 * LRW_TRAINING_CLIPS // 16)
