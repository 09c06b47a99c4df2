"""benchmarks/scaling.py: its table, tiny steps.  No timing is asserted."""

import dataclasses
import subprocess

import jax
import pytest

from benchmarks import measuring, scaling
from configs import smoke


def test_a_layout_is_measured():
    """On the tests' devices; the plain step and the spread one take turns."""
    seconds = scaling.measure(smoke.get_config("at"), batch=1, repeats=2)
    assert set(seconds) == {"spread", "plain"}
    assert all(len(found) == 2 and min(found) > 0 for found in seconds.values())


def test_every_device_has_its_own_clips_before_the_step():
    """Else each timed step would send them there first."""
    experiment = dataclasses.replace(smoke.get_config("at"), batch_size=6)
    _, batch = measuring.training_step(experiment, jax.devices()[:2])
    for x in jax.tree.leaves(batch):
        assert [len(shard.data) for shard in x.addressable_shards] == [3, 3]


def test_a_ratio_is_of_neighbours_in_time():
    """3 / 1, 4 / 2, 10 / 4: median 2.5; of the medians it would be 2."""
    seconds = {"spread": [3.0, 4.0, 10.0], "plain": [1.0, 2.0, 4.0]}
    row = scaling.summary("at_small", 4, 2, 3, seconds)
    assert row["ratio"] == 2.5 and row["clips"] == 24
    assert row["plain_ms"] == 2000 and row["spread_ms"] == 4000


def test_a_layout_that_fails_does_not_hide_the_others(monkeypatch, capsys):
    def run(config, devices, processes, batch, repeats):
        if devices == 4:
            raise subprocess.CalledProcessError(3, "child")
        return {"spread": [0.3], "plain": [0.2]}

    monkeypatch.setattr("sys.argv", ["scaling.py", "--config=at_small"])
    assert scaling.main(run) == 1
    lines = capsys.readouterr().out.splitlines()
    assert any("failed, exit code 3" in line for line in lines)
    table = lines[lines.index(next(x for x in lines if "ratio" in x)) :]
    assert len(table) == 2 + len(scaling.LAYOUTS) - 1
    assert all("1.500" in line for line in table[2:])


@pytest.mark.parametrize(
    "words", [["--batch=0"], ["--repeats=0"], ["--json=/no/such/folder/x.json"]]
)
def test_bad_flags_end_with_exit_code_2(words):
    with pytest.raises(SystemExit) as stop:
        scaling.arguments(words)
    assert stop.value.code == 2
