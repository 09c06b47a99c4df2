"""kill -9 at random moments; `make hostile` does it a hundred times."""

import random

import pytest

from tests.hostile import kills


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    folder = tmp_path_factory.mktemp("kills") / "base"
    kills.build(folder)
    return folder


@pytest.mark.parametrize(
    ("name", "count"), [("prepare", 3), ("train at", 2), ("export", 1)]
)
def test_a_killed_command_goes_on_and_ends_in_the_same_bytes(base, name, count):
    seed = random.randrange(10**6)
    outcomes = kills.run_command(name, count, base, seed)
    assert not [one.fault for one in outcomes if one.fault], f"seed {seed}"
    assert sum(one.kills for one in outcomes) == count


def test_what_is_lost_is_a_fault(base, monkeypatch):
    """The property is not met by not looking."""
    kept = iter([{1, 2}, {1}])
    forgetful = kills.COMMANDS["prepare"]._replace(kept=lambda folder: next(kept))
    monkeypatch.setitem(kills.COMMANDS, "prepare", forgetful)
    monkeypatch.setattr(kills, "start", lambda *_: None)
    monkeypatch.setattr(kills, "kill", lambda *_: True)
    whole = kills.Undisturbed(0.0, 1.0, 1, {})
    outcome = kills.run_case("prepare", whole, base, 0, 0, 1)
    assert outcome.kills == 1 and outcome.fault.startswith("[2] are gone after kill 1")
