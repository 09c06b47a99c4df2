"""What each part is worth: the paper's switches of VG-net, and ours of AT-net.

    python main.py train --config=ablation:no_dynamic_loss \\
        --config.seed=1 --workdir=runs/no_dynamic_loss_1 --data_dir=~/atvg_data

benchmarks/ablation.py trains, scores and compares all of them.
Hardware: one CPU core, 1 to 15 minutes each (at_convolutions longer).  Scores:
docs/results.md.
"""

from collections.abc import Callable

from input_pipeline.clip import InputError
from jax_atvg.training.config import (
    Data,
    DiscriminatorSizes,
    Experiment,
    GanLoss,
    Mix,
    Optimizer,
    Strength,
    VgNetSizes,
)
from jax_atvg.training.config_files import load_config


def small_vg() -> Experiment:
    """VG-net small enough to be trained dozens of times.

    Several clips a step, or a recurrence over the batch would be none.
    """
    return Experiment(
        network="vg",
        batch_size=6,
        steps=600,
        vg_net=VgNetSizes(width=12, num_blocks=2, dropout=0.0),
        discriminator=DiscriminatorSizes(
            width=8, fc_width=64, lstm_width=32, lstm_layers=1
        ),
        gan_loss=GanLoss(mouth_weight=8.0, pixel_steps=600),
        optimizer=Optimizer(learning_rate=5e-4, schedule="wsd"),
        data=Data(num_frames=3, balance="sqrt"),
    )


def small_gan() -> Experiment:
    """The same with many faces, half of them portraits, and windows long enough for a
    discriminator and a recurrence to see something.  The pixel loss first: with other
    terms from the first step so small a network does not learn to move the lips in so
    few steps."""
    config = small_vg()
    config.gan_loss.pixel_steps = 450
    config.batch_size, config.data.num_frames = 3, 8
    config.data.mix = Mix(grid=2.0, folder=1.0, portraits=3.0)
    return config


def small_at() -> Experiment:
    """An AT-net half as wide as the default ones, as it was trained on GRID alone, with
    what makes it hear strangers left out."""
    config = load_config("at_default")
    config.steps = 2000
    config.at_net.fc_widths, config.at_net.lstm_width = (256, 128), 128
    config.at_net.members, config.at_net.from_rest = 1, False
    config.data.mix = Mix()
    config.data.augment = Strength(
        mirror=0.5, rotation=4.0, scale=0.04, shift=3.0, noise=0.3
    )
    return config


# --- VG-net, with discriminators for the last quarter of the steps ---


def gan(config: Experiment) -> None:
    """The paper's discriminator: both terms, D_s and D_p."""


def gan_without_landmark(config: Experiment) -> None:
    """Without D_p."""
    config.gan_loss.landmark = False


def gan_without_score(config: Experiment) -> None:
    """Without D_s."""
    config.gan_loss.score = False


def gan_landmark_on_generated(config: Experiment) -> None:
    """D_p learns on generated frames as well, as in the authors' code."""
    config.gan_loss.landmark_on_generated = True


def gan_none(config: Experiment) -> None:
    """The pixel loss alone, as before."""
    config.gan_loss.score = config.gan_loss.landmark = False


def gan_with_mouth(config: Experiment) -> None:
    """A discriminator of mouths beside the paper's."""
    config.gan_loss.mouth_score, config.gan_loss.mouth_features = 0.3, 20.0


def gan_mouth(config: Experiment) -> None:
    """A discriminator of mouths in place of the paper's."""
    gan_none(config)
    gan_with_mouth(config)


def gan_no_recurrence(config: Experiment) -> None:
    """Every frame for itself."""
    config.vg_net.recurrence = "none"


# --- VG-net, on pixels alone ---


def pixels(config: Experiment) -> None:
    """The pixel loss alone."""


def no_dynamic_loss(config: Experiment) -> None:
    """Plain L1."""
    config.gan_loss.dynamic = False


def no_attention(config: Experiment) -> None:
    """Every pixel is drawn anew."""
    config.vg_net.compose = False


def no_recurrence(config: Experiment) -> None:
    """Every frame for itself."""
    config.vg_net.recurrence = "none"


def recurrence_over_batch(config: Experiment) -> None:
    """The authors' code."""
    config.vg_net.recurrence = "batch"


# --- AT-net ---


def at_full(config: Experiment) -> None:
    """The others differ from it in one thing each."""


def at_coefficient_loss(config: Experiment) -> None:
    """Squared error of the coefficients, as the authors."""
    config.at_loss.target = "coefficients"


def at_six_coefficients(config: Experiment) -> None:
    """As the authors."""
    config.data.num_coefficients = 6


def at_absolute(config: Experiment) -> None:
    """Coefficients in place of the photo's, not added to them; as the authors."""
    config.at_net.relative = False


def at_convolutions(config: Experiment) -> None:
    """The authors' encoder of the sound, an eighth as wide."""
    config.at_net.audio_widths = (8, 16, 32, 32, 64)


def at_no_augmentation(config: Experiment) -> None:
    """Faces and sounds as they were recorded."""
    config.data.augment = Strength()


def at_by_clips(config: Experiment) -> None:
    """Every clip once an epoch, whoever speaks."""
    config.data.balance = "clips"


# --- VG-net on pixels, with larger batches; of docs/performance.md ---


def large_batch(config: Experiment) -> None:
    """Four times the clips a step, a quarter of the steps."""
    config.batch_size *= 4
    config.steps //= 4
    config.gan_loss.pixel_steps //= 4


def large_batch_sqrt(config: Experiment) -> None:
    """The same with a learning rate sqrt(4) times as large."""
    large_batch(config)
    config.optimizer.learning_rate *= 2


def large_batch_linear(config: Experiment) -> None:
    """The same with a learning rate 4 times as large."""
    large_batch(config)
    config.optimizer.learning_rate *= 4


Change = Callable[[Experiment], None]


def by_name(*changes: Change) -> dict[str, Change]:
    return {change.__name__: change for change in changes}


GAN_VARIANTS = by_name(
    gan,
    gan_without_landmark,
    gan_without_score,
    gan_landmark_on_generated,
    gan_none,
    gan_mouth,
    gan_with_mouth,
    gan_no_recurrence,
)
PIXEL_VARIANTS = by_name(
    pixels,
    no_dynamic_loss,
    no_attention,
    no_recurrence,
    recurrence_over_batch,
)
AT_VARIANTS = by_name(
    at_full,
    at_coefficient_loss,
    at_six_coefficients,
    at_absolute,
    at_convolutions,
    at_no_augmentation,
    at_by_clips,
)
BATCH_VARIANTS = by_name(large_batch, large_batch_sqrt, large_batch_linear)
IN_TABLES = GAN_VARIANTS | PIXEL_VARIANTS | AT_VARIANTS  # of docs/results.md
VARIANTS = IN_TABLES | BATCH_VARIANTS


def get_config(variant: str = "gan") -> Experiment:
    """InputError: no such variant."""
    if variant not in VARIANTS:
        raise InputError(f"ablation:{variant}: choose one of {', '.join(VARIANTS)}")
    if variant in GAN_VARIANTS:
        config = small_gan()
    else:
        config = small_at() if variant in AT_VARIANTS else small_vg()
    VARIANTS[variant](config)
    return config
