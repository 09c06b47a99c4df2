"""What is compiled for a mesh of several devices."""

import math
import re

import jax
import pytest

from jax_atvg import gan_step, rng, sharding, train_step
from jax_atvg.config import Data, DiscriminatorSizes, Experiment, VgNetSizes
from jax_atvg.models import convolutions


def largest_of_dropout(program: str) -> int:
    """Elements of the largest array that a device holds for its dropout masks."""
    made = re.compile(r"= \(?\w+\[([\d,]*)\].*op_name=\"[^\"]*dropout", re.IGNORECASE)
    shapes = [found[1] for found in map(made.search, program.splitlines()) if found]
    return max(math.prod(map(int, filter(None, s.split(",")))) for s in shapes)


@pytest.mark.parametrize("key", ["ours", "rbg"])
def test_every_device_draws_its_own_part_of_the_dropout_mask(key, monkeypatch):
    """An `rbg` key would have every device draw the masks of all: the control."""
    devices, frames, width = 8, 2, 2
    if key == "rbg":
        monkeypatch.setattr(gan_step, "stream", lambda seed, *_: rng.init_key(seed))
    experiment = Experiment(
        batch_size=devices,
        vg_net=VgNetSizes(width=width, num_blocks=1),
        discriminator=DiscriminatorSizes(width=4, fc_width=4, lstm_width=4),
        data=Data(num_frames=frames),
    )
    step = train_step.build(experiment, sharding.data_mesh(jax.devices()[:devices]))
    state = jax.eval_shape(step.init, 0)
    with convolutions.form("native"):  # compiles sooner
        program = step.step.lower(state, step.shapes, 0).compile().as_text()
    mask = frames * 8 * 8 * 8 * width  # of one clip
    assert largest_of_dropout(program) == (mask if key == "ours" else devices * mask)
