"""The whole path in seconds: drawn clips, tiny networks, no data folder.

    python main.py train --config=configs/smoke.py:at --workdir=runs/smoke_at
    python main.py train --config=configs/smoke.py:vg --workdir=runs/smoke_vg

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
        network="at" if network == "at" else "gan",
        batch_size=2,
        steps=6,
        report_every=2,
        image_every=3,
        save_every=3,
        validate_every=6,
        at_net=AtNetSizes((16, 16), (4, 4, 8, 8, 8), (16, 16), 16, 1),
        vg_net=VgNetSizes(width=4, num_blocks=1),
        discriminator=DiscriminatorSizes(4, 16, 16, 1),
        data=Data(num_frames=4, synthetic=6),
    )
