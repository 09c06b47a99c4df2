"""VG-net and its discriminator for one CPU: a quarter of the widths, three blocks.

    python main.py train --config=vg_small --workdir=runs/vg \\
        --data_dir=~/atvg_data

Hardware: 2 CPU cores, 1 to 1.5 seconds a step with the discriminator.  Score of 700
steps on pixels and 200 with the GAN terms, on true landmarks, 12 of GRID's validation
clips: mouth PSNR 27.8 dB, r of the opening .76: far from trained.
"""

from jax_atvg.training.config import (
    DiscriminatorSizes,
    Experiment,
    GanLoss,
    Optimizer,
    VgNetSizes,
)


def get_config() -> Experiment:
    """One clip of 16 frames a step; the pixel loss alone at first."""
    return Experiment(
        network="vg",
        batch_size=1,
        steps=4000,
        vg_net=VgNetSizes(width=16, num_blocks=3),
        discriminator=DiscriminatorSizes(width=16, fc_width=128, lstm_width=64),
        gan_loss=GanLoss(mouth_weight=4.0, pixel_steps=2000),
        optimizer=Optimizer(learning_rate=5e-4),
    )
