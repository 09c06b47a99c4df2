"""The paper's ablations, at the size of vg_small.

    python main.py train --config=configs/ablation.py:no_dynamic_loss \\
        --workdir=runs/no_dynamic_loss --data_dir=~/atvg_data

Hardware: 2 CPU cores.  Scores: not measured yet.
"""

from collections.abc import Callable

from configs import vg_small
from input_pipeline.clip import InputError
from jax_atvg.config import Experiment


def full(config: Experiment) -> None:
    """Everything on, from the first step."""


def no_dynamic_loss(config: Experiment) -> None:
    """Plain L1."""
    config.gan_loss.dynamic = False


def no_landmark_discriminator(config: Experiment) -> None:
    """Without D_p."""
    config.gan_loss.landmark = False


def no_score_discriminator(config: Experiment) -> None:
    """Without D_s."""
    config.gan_loss.score = False


def no_attention(config: Experiment) -> None:
    """Every pixel is drawn anew."""
    config.vg_net.compose = False


def no_recurrence(config: Experiment) -> None:
    """Every frame for itself."""
    config.vg_net.recurrence = "none"


def recurrence_over_batch(config: Experiment) -> None:
    """The authors' code: with one clip a batch, no recurrence at all."""
    config.vg_net.recurrence = "batch"


VARIANTS: dict[str, Callable[[Experiment], None]] = {
    variant.__name__: variant
    for variant in (
        full,
        no_dynamic_loss,
        no_landmark_discriminator,
        no_score_discriminator,
        no_attention,
        no_recurrence,
        recurrence_over_batch,
    )
}


def get_config(variant: str = "full") -> Experiment:
    """InputError: no such variant."""
    if variant not in VARIANTS:
        raise InputError(f"ablation:{variant}: choose one of {', '.join(VARIANTS)}")
    config = vg_small.get_config()
    config.gan_loss.mouth_weight = 1.0
    config.gan_loss.pixel_steps = 0
    VARIANTS[variant](config)
    return config
