"""AT-net on LRW, the original's sizes and settings: 10 epochs of 488,766 clips.

    python main.py train --config=configs/at_lrw.py --workdir=runs/at_lrw \\
        --data_dir=~/atvg_data/atvg_clips/lrw/1.0.0

Hardware: one GPU or TPU chip.  Score: not measured yet.
"""

from configs import at_grid
from jax_atvg.training.config import Experiment

CLIPS = 488_766


def get_config() -> Experiment:
    config = at_grid.get_config()
    config.steps = 10 * CLIPS // config.batch_size
    return config
