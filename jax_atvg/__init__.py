"""One face photo and a speech recording become a talking-face video, in JAX.

    import jax_atvg

    frames = jax_atvg.animate("face.jpg", "speech.wav")      # u8[T,128,128,3], 25 fps

Names are imported when they are first used: importing this package imports neither jax
nor anything else that is heavy.
"""

import importlib
from typing import TYPE_CHECKING

__version__ = "0.2.0"

if TYPE_CHECKING:
    from input_pipeline.clip import InputError
    from jax_atvg.evaluation.evaluate import evaluate
    from jax_atvg.inference.animate import animate, animate_file
    from jax_atvg.inference.bundle import Bundle, load_bundle
    from jax_atvg.inference.dub import dub_file
    from jax_atvg.inference.live import Talker
    from jax_atvg.inference.networks import Networks
    from jax_atvg.models.at_net import ATNet
    from jax_atvg.models.discriminator import Discriminator
    from jax_atvg.models.vg_net import VGNet
    from jax_atvg.training.config import Experiment
    from jax_atvg.training.config_files import load_config
    from jax_atvg.training.export import export
    from jax_atvg.training.train import train

HOMES = {
    "InputError": "input_pipeline.clip",
    "evaluate": "jax_atvg.evaluation.evaluate",
    "animate": "jax_atvg.inference.animate",
    "animate_file": "jax_atvg.inference.animate",
    "Bundle": "jax_atvg.inference.bundle",
    "load_bundle": "jax_atvg.inference.bundle",
    "dub_file": "jax_atvg.inference.dub",
    "Networks": "jax_atvg.inference.networks",
    "Talker": "jax_atvg.inference.live",
    "ATNet": "jax_atvg.models.at_net",
    "Discriminator": "jax_atvg.models.discriminator",
    "VGNet": "jax_atvg.models.vg_net",
    "Experiment": "jax_atvg.training.config",
    "load_config": "jax_atvg.training.config_files",
    "export": "jax_atvg.training.export",
    "train": "jax_atvg.training.train",
}

__all__ = [
    "ATNet",
    "Bundle",
    "Discriminator",
    "Experiment",
    "InputError",
    "Networks",
    "Talker",
    "VGNet",
    "__version__",
    "animate",
    "animate_file",
    "dub_file",
    "evaluate",
    "export",
    "load_bundle",
    "load_config",
    "train",
]


def __getattr__(name: str):
    if name not in HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(HOMES[name]), name)


def __dir__() -> list[str]:
    return __all__
