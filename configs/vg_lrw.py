"""VG-net and its discriminator on LRW, the original's settings: 5 epochs.

    python main.py train --config=configs/vg_lrw.py --workdir=runs/vg_lrw \\
        --data_dir=~/atvg_data/atvg_clips/lrw/1.0.0

Hardware: a TPU slice or several GPUs; batch_size must divide by the devices.
Score: not measured yet.
"""

from configs import vg_grid
from configs.at_lrw import CLIPS
from jax_atvg.training.config import Experiment


def get_config() -> Experiment:
    config = vg_grid.get_config()
    config.steps = 5 * CLIPS // config.batch_size
    return config
