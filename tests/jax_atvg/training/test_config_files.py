"""Experiments as files: packaged and own configs, and those of earlier versions."""

import json
import warnings

import pytest
from etils import epath

from input_pipeline.clip import InputError
from jax_atvg.resources import packaged
from jax_atvg.training import config_files, workdir
from jax_atvg.training.config import (
    Experiment,
    Optimizer,
    beside_defaults,
    flatten,
    from_flat,
    validate,
)
from jax_atvg.training.config_files import (
    AS_BEFORE,
    REMOVED,
    config_names,
    load_config,
    read_config,
    upgraded,
)
from jax_atvg.training.optim import fixed_until, schedule
from tests.conftest import ROOT

# Written by the last version without a schema number; it stays as it is for ever.
SCHEMA_1 = ROOT / "tests" / "data" / "config_schema_1.json"


# --- configs/ ---


@pytest.mark.parametrize("name", config_names())
def test_every_packaged_config_is_found_by_name_and_by_path_and_is_valid(name):
    by_path = load_config(str(packaged("configs") / f"{name}.py"))
    assert load_config(name) == by_path
    validate(by_path)


def test_what_follows_a_colon_is_given_to_get_config():
    assert load_config("smoke:at").network == "at"
    assert load_config("smoke:vg").network == "vg"


def test_ones_own_config_is_a_path_and_may_start_from_a_packaged_one(
    tmp_path, monkeypatch
):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "mine.py").write_text(
        "from jax_atvg import load_config\n"
        "def get_config(steps='7'):\n"
        "    config = load_config('at_small')\n"
        "    config.steps = int(steps)\n"
        "    return config\n"
    )
    assert load_config(str(tmp_path / "mine.py")).steps == 7
    assert load_config("~/mine.py:9").steps == 9


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("def get_config():\n    return 3", r"returned int, must be an Experiment"),
        ("x = 1\n\ny = z", r"NameError: name 'z' .*mine.py, line 3\)"),
        ("x = 1", r"AttributeError: .*get_config"),
        ("def get_config(:", r"SyntaxError"),
        ("def get_config(a): pass", r"TypeError: .*argument"),
    ],
)
def test_a_config_that_fails_is_told_with_its_line(text, complaint, tmp_path):
    (tmp_path / "mine.py").write_text(text)
    with pytest.raises(InputError, match=complaint):
        load_config(str(tmp_path / "mine.py"))


def test_a_config_that_is_not_there_names_those_that_are(tmp_path):
    with pytest.raises(InputError, match=r"config=vg_tiny: no such .* vg_small"):
        load_config("vg_tiny")
    with pytest.raises(InputError, match=r"x.py: no such file; .* vg_small"):
        load_config(str(tmp_path / "x.py"))


def test_what_an_experiment_sets_is_told_beside_the_defaults():
    assert beside_defaults(Experiment()) == "nothing"
    changed = Experiment(seed=3, optimizer=Optimizer(b1=0.9))
    changed.at_net.lstm_width = 7  # which VG-net's training does not look at
    assert beside_defaults(changed) == "seed=3, optimizer.b1=0.9"


# --- config.json of earlier versions ---


def test_a_config_of_schema_1_loads_and_does_what_it_did(tmp_path):
    """Every field has its old value, or what was done before there was the field."""
    (tmp_path / "config.json").write_text(SCHEMA_1.read_text())
    with pytest.warns(UserWarning, match=r"of an earlier version; goes on with") as met:
        experiment = read_config(epath.Path(tmp_path))
    assert len(met) == 1 and "report_to=('jsonl', 'tensorboard')" in str(met[0].message)
    old, new = json.loads(SCHEMA_1.read_text()), flatten(experiment)
    assert old.pop("network") == "gan" and new.pop("network") == "vg"
    assert old.pop("compute") == "float32" and new.pop("precision") == "default"
    for name in REMOVED:
        assert old.pop(name, 0.0) == 0.0
    for name, value in old.items():
        assert new[name] == (tuple(value) if isinstance(value, list) else value), name
    added = {name: new[name] for name in new.keys() - old.keys()}
    assert added == {
        "report_to": ("jsonl", "tensorboard"),
        "deterministic": False,
        "discriminator.example_widths": (256, 512),
        "gan_loss.landmark_on_generated": True,
        "gan_loss.eyes_weight": 1.0,
        "gan_loss.mouth_score": 0.0,
        "gan_loss.mouth_features": 0.0,
        "vg_net.closes_eyes": False,
        "at_loss.closed_weight": 0.0,
        "at_net.from_rest": False,
        "at_net.doubt": 0.0,
        **{f"data.augment.{name}": 0.0 for name in ("channel", "background", "room")},
        "mouth_discriminator.width": 32,
        "mouth_discriminator.side": 48,
        **{f"data.mix.{name}": 0.0 for name in ("grid", "lrw", "folder", "portraits")},
    }
    assert not AS_BEFORE.keys() - flatten(Experiment()).keys()


def test_a_config_of_today_needs_no_word(tmp_path):
    folder = epath.Path(tmp_path)
    config_files.write_config(folder, load_config("smoke"))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert read_config(folder) == load_config("smoke")
    found = json.loads((tmp_path / "versions.json").read_text())
    assert found["schema"] == config_files.SCHEMA
    assert {"jax_atvg", "jax", "flax", "python"} < found.keys()


def test_a_field_that_was_removed_may_only_have_done_nothing():
    flat = flatten(Experiment())
    assert upgraded(flat | {"ema": 0.0}) == (flat, [])
    with pytest.raises(InputError, match=r"config.ema=0.99: .* has no ema any more"):
        upgraded(flat | {"ema": 0.99})


def test_an_unknown_field_is_named():
    with pytest.raises(InputError, match=r"unknown future\.field; it is of a later"):
        upgraded(flatten(Experiment()) | {"future.field": 1})


def test_a_schema_of_the_future_is_refused(tmp_path):
    folder = epath.Path(tmp_path)
    config_files.write_config(folder, Experiment())
    (tmp_path / "versions.json").write_text(json.dumps({"schema": 99}))
    with pytest.raises(InputError, match=r"by a later version \(schema 99, this one"):
        read_config(folder)


# --- a run that goes on with another number of steps ---


def begun(tmp_path, done: int, monkeypatch, **optimizer) -> Experiment:
    """A workdir's experiment of 100 steps, of which so many are saved."""
    experiment = Experiment(steps=100, optimizer=Optimizer(**optimizer))
    with workdir.claim_workdir(epath.Path(tmp_path), experiment):
        pass
    monkeypatch.setattr(workdir, "saved_steps", lambda workdir: [done])
    return experiment


@pytest.mark.parametrize(
    ("schedule", "done", "allowed"),
    [
        ("constant", 100, True),
        ("wsd", 80, True),
        ("wsd", 81, False),
        ("cosine", 1, False),
        ("cosine", 0, True),
    ],
)
@pytest.mark.parametrize("steps", [200, 100])
def test_more_steps_go_on_while_no_learning_rate_depended_on_them(
    schedule, done, allowed, steps, tmp_path, monkeypatch
):
    experiment = begun(tmp_path, done, monkeypatch, schedule=schedule)
    experiment.steps = steps
    if allowed or steps == 100:
        with workdir.claim_workdir(epath.Path(tmp_path), experiment) as noted:
            assert noted.steps == 100
        workdir.note_experiment(epath.Path(tmp_path), experiment)
        assert read_config(epath.Path(tmp_path)).steps == steps
    else:
        reason = rf"steps=100 \(now 200\).*until step \d+, .*step {done} is saved"
        with (
            pytest.raises(InputError, match=reason),
            workdir.claim_workdir(epath.Path(tmp_path), experiment),
        ):
            pass


@pytest.mark.parametrize("warmup", [0, 10])
@pytest.mark.parametrize("accumulate", [1, 2])
@pytest.mark.parametrize("kind", ["constant", "wsd", "cosine"])
def test_learning_rates_agree_until_the_first_that_depends_on_the_steps(
    kind, accumulate, warmup
):
    config = Optimizer(schedule=kind, accumulate=accumulate, warmup=warmup)
    rates = [
        [float(schedule(config, steps // accumulate)(n)) for n in range(50)]
        for steps in (100, 120)
    ]
    fixed = min(fixed_until(config, 100), 50 * accumulate) // accumulate
    assert rates[0][:fixed] == rates[1][:fixed]


def test_from_flat_is_the_inverse_of_flatten():
    experiment = load_config("vg_default")
    through_json = json.loads(json.dumps(flatten(experiment)))
    assert from_flat(through_json) == experiment
