"""VG-net of the default bundle: three eighths of the original's widths, four blocks.

    python main.py train --config=configs/vg_default.py --workdir=runs/vg_default \\
        --data_dir=~/atvg_data

Hardware: 2 CPU cores, 2 steps a second.  Score: not measured yet.
"""

from jax_atvg.config import (
    Data,
    DiscriminatorSizes,
    Experiment,
    GanLoss,
    Optimizer,
    VgNetSizes,
)


def get_config() -> Experiment:
    """Four clips of six frames a step: with one clip, BatchNorm's statistics are that
    face's own, and the running ones that stand in for them later serve nobody (mouth
    PSNR 29.0 dB after 3000 steps; with the clip's own, after 3500, 30.3).  The pixel
    loss alone at first."""
    return Experiment(
        network="gan",
        batch_size=4,
        steps=9000,
        ema=0.998,
        save_every=500,
        validate_every=2500,
        image_every=500,
        vg_net=VgNetSizes(width=24, num_blocks=4, dropout=0.1),
        discriminator=DiscriminatorSizes(
            width=16, fc_width=128, lstm_width=64, lstm_layers=1
        ),
        gan_loss=GanLoss(mouth_weight=4.0, pixel_steps=3500),
        optimizer=Optimizer(learning_rate=5e-4, schedule="cosine"),
        data=Data(num_frames=6, balance="speakers", augment=True, validation_clips=12),
    )
