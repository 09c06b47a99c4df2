"""Scores from several processes: the same bits, in order, and nothing left behind."""

import functools
import multiprocessing

import jax
import numpy as np
import pytest

from input_pipeline.clip import InputError
from input_pipeline.training_data.synthetic import SyntheticClips
from jax_atvg.evaluation.evaluate import evaluate
from jax_atvg.sharding import data_mesh
from tests.small_bundle import small_bundle

bundle = functools.cache(small_bundle)
LENGTHS = [9, 8, 8]


def rows(clips, out, workers: int):
    mesh = data_mesh(jax.devices()[:1])
    return evaluate(bundle(), clips, out, workers=workers, mesh=mesh).rows


def test_the_number_of_processes_changes_no_bit_and_no_order(tmp_path):
    clips = SyntheticClips(3, LENGTHS)
    here = rows(clips, tmp_path / "a", 0)
    np.testing.assert_equal(rows(clips, tmp_path / "b", 2), here)
    assert list(dict.fromkeys(row["clip"] for row in here)) == clips.clip_ids
    for name in ("clips.csv", "clips.json"):
        assert (tmp_path / "a" / name).read_bytes() == (
            tmp_path / "b" / name
        ).read_bytes()
    assert not multiprocessing.active_children()


def kill_workers():
    for process in multiprocessing.active_children():
        process.kill()


def interrupt():
    raise KeyboardInterrupt


class Until(SyntheticClips):
    """Clips, before the third of which something happens."""

    event = None

    def __getitem__(self, i):
        if i == 2 and multiprocessing.active_children():
            self.event()
        return super().__getitem__(i)


@pytest.mark.parametrize(
    ("event", "error", "message"),
    [
        (kill_workers, InputError, "workers=2: one of these processes was killed"),
        (interrupt, KeyboardInterrupt, None),
    ],
)
def test_a_death_or_ctrl_c_ends_it_and_leaves_nothing(event, error, message, tmp_path):
    clips = Until(3, LENGTHS)
    clips.event = event
    with pytest.raises(error, match=message):
        rows(clips, tmp_path / "out", 2)
    assert not list(tmp_path.iterdir()) and not multiprocessing.active_children()
