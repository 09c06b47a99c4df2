"""The whole path in seconds: drawn clips, tiny networks, no data folder.

    python main.py train --config=smoke:at --workdir=runs/smoke_at
    python main.py train --config=smoke:vg --workdir=runs/smoke_vg

Hardware: any CPU.  Score: none; it shows that everything runs.
"""

from input_pipeline.clip import InputError
from jax_atvg.training.config import (
    AtNetSizes,
    Data,
    DiscriminatorSizes,
    Experiment,
    VgNetSizes,
)


def get_config(network: str = "vg") -> Experiment:
    """network: "at" or "vg".  InputError: another."""
    if network not in ("at", "vg"):
        raise InputError(f"smoke:{network}: choose at or vg")
    return Experiment(
        network="at" if network == "at" else "vg",
        batch_size=2,
        steps=6,
        report_every=2,
        image_every=3,
        save_every=3,
        validate_every=6,
        at_net=AtNetSizes(
            example_widths=(16, 16),
            audio_widths=(4, 4, 8, 8, 8),
            fc_widths=(16, 16),
            lstm_width=16,
            lstm_layers=1,
        ),
        vg_net=VgNetSizes(width=4, num_blocks=1),
        discriminator=DiscriminatorSizes(
            width=4, fc_width=16, lstm_width=16, lstm_layers=1
        ),
        data=Data(num_frames=4, synthetic=6, num_workers=0),
    )
