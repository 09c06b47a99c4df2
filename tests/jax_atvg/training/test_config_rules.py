"""What an experiment may not be, so that every run can be read again."""

import dataclasses
import json
import pathlib

import pytest

from input_pipeline.clip import InputError
from jax_atvg.models.at_net import ATNet
from jax_atvg.training.config import (
    Experiment,
    GanLoss,
    flatten,
    from_flat,
    validate,
)


def changed(name: str, value) -> Experiment:
    experiment = Experiment()
    *groups, last = name.split(".")
    group = experiment
    for one in groups:
        group = getattr(group, one)
    setattr(group, last, value)
    return experiment


@pytest.mark.parametrize(
    ("name", "value", "rule"),
    [
        ("init", None, "must be a text"),
        ("init", b"bundle", "must be a text"),
        ("at_net.relative", 1, "must be True or False"),
        ("vg_net.remat", 0, "must be True or False"),
        ("optimizer.shard", 1, "must be True or False"),
        ("deterministic", "true", "must be True or False"),
        ("at_net.fc_widths", 64, "must be whole numbers from 1 on, as"),
        ("at_net.fc_widths", None, "must be whole numbers from 1 on, as"),
        ("report_to", None, "choose among jsonl"),
        ("report_to", "jsonl", "choose among jsonl"),
        ("report_to", {"jsonl"}, "choose among jsonl"),
        ("report_to", (["jsonl"],), "choose among jsonl"),
        ("report_to", ("jsonl", "jsonl"), "choose among jsonl"),
        ("network", None, "choose one of at, vg"),
        ("optimizer", None, "must be of the class Optimizer"),
        ("optimizer", {"b1": 0.9}, "must be of the class Optimizer"),
        ("at_net", ATNet(), "must be of the class AtNetSizes"),
    ],
)
def test_a_value_of_another_type_is_named(name, value, rule):
    """It could be trained with, but config.json could not be read again."""
    with pytest.raises(InputError) as error:
        validate(changed(name, value))
    assert str(error.value).startswith(f"config.{name}={value!r}: {rule}")


def test_the_bundle_to_begin_with_may_be_a_path():
    experiment = changed("init", pathlib.Path("bundles") / "mine")
    validate(experiment)
    assert from_flat(json.loads(json.dumps(flatten(experiment)))) == experiment
    assert experiment.init == str(pathlib.Path("bundles") / "mine")


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("optimizer.learnig_rate", "; config.optimizer.learning_rate meant?"),
        ("data.augment.mirrow", "; config.data.augment.mirror meant?"),
        ("stepps", "; config.steps meant?"),
        ("qqqqqq", ""),
    ],
)
def test_a_misspelt_field_is_named_with_the_one_that_is_meant(name, meant):
    with pytest.raises(InputError) as error:
        validate(changed(name, 1))
    assert str(error.value) == (
        f"config.{name}: no such field{meant}; jax_atvg/training/config.py explains "
        "them"
    )


@pytest.mark.parametrize("term", ["mouth_score", "mouth_features"])
def test_the_discriminator_of_mouths_is_a_loss_of_its_own(term):
    nothing = GanLoss(pixel_weight=0.0, score=False, landmark=False)
    validate(Experiment(gan_loss=dataclasses.replace(nothing, **{term: 1.0})))
    with pytest.raises(InputError, match="every term is off"):
        validate(Experiment(gan_loss=nothing))
    validate(Experiment(network="at", gan_loss=nothing))


def test_first_steps_on_pixels_need_a_weight_of_the_pixels():
    loss = GanLoss(pixel_weight=0.0, pixel_steps=5)
    with pytest.raises(InputError, match=r"pixel_steps=5: must be 0 where pixel_wei"):
        validate(Experiment(gan_loss=loss))
    validate(Experiment(gan_loss=dataclasses.replace(loss, pixel_steps=0)))


def test_lists_are_as_good_as_tuples():
    experiment = changed("report_to", ["jsonl"])
    experiment.at_net.fc_widths = [8, 4]
    validate(experiment)
    assert from_flat(flatten(experiment)).at_net.fc_widths == (8, 4)
