"""A thousand files that are almost right; `make hostile` tries ten thousand."""

import numpy as np
import pytest

from tests.hostile import cases, harness
from tests.hostile.mutations import BYTES, STRUCTURED, mutated

CASES, PARTS = 1000, 2  # in so many tests


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    folder = tmp_path_factory.mktemp("hostile") / "base"
    cases.build(folder)
    return folder


@pytest.mark.parametrize("part", range(PARTS))
def test_no_file_is_a_traceback_a_wrong_result_or_half_a_file(base, part):
    numbers = range(part, CASES, PARTS)
    outcomes = harness.run(numbers, 0, 1, base)
    faults = [one for one in outcomes if one.fault]
    assert not faults, harness.table(outcomes)
    assert {one.code for one in outcomes} == {0, 2}


def test_files_that_are_right_give_right_results(base, monkeypatch):
    """The property is not met by refusing everything."""
    monkeypatch.setattr(harness, "mutated", lambda data, suffix, random: data)
    outcomes = [harness.run_case(str(base), 1, number) for number in range(20)]
    assert [(one.code, one.fault) for one in outcomes] == [(0, "")] * 20


@pytest.mark.parametrize("suffix", ["", *STRUCTURED])
def test_mutations_are_repeatable_and_change_something(base, suffix):
    name = {".npz": "index.npz", ".json": "config.json"}.get(suffix, f"*{suffix}")
    path = next(p for p in sorted(base.rglob(name)) if p.is_file())
    data = path.read_bytes()
    once, again = (
        [mutated(data, suffix, np.random.default_rng(n)) for n in range(50)]
        for _ in range(2)
    )
    assert once == again
    assert len(set(once) - {data}) > 40
    assert len(BYTES) > 10
