"""benchmarks/speed.py: its arithmetic and table, a tiny network and steps.  No timing
is asserted."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks import measuring, speed
from configs import smoke
from jax_atvg.models.at_net import ATNet


def turn(first_call_s: float, memory_mib: float, seconds, peaks):
    """What measure() returns, as far as summary() reads it."""
    return {
        "first_call_s": first_call_s,
        "memory_mib": memory_mib,
        "seconds": seconds,
        "peaks": peaks,
        "others": 0.01,
    }


TURNS = [
    turn(12.0, 900.0, [2.0, 2.0], [[300, 310, 320], [300, 310, 320], [155, 155, 155]]),
    turn(3.0, 700.0, [1.0, 4.0], [[100] * 3, [200] * 3, [200] * 3]),
    turn(4.0, 710.0, [2.0, 2.0], [[310] * 3] * 3),
]


def test_a_share_is_of_the_peak_just_before_and_after():
    peaks = [[100, 100, 100], [300, 300, 300], [300, 300, 300]]
    np.testing.assert_allclose(speed.shares(400.0, [2, 4], peaks), [1.0, 1 / 3])


def test_a_summary_takes_medians_over_all_turns_and_tells_cold_from_cached():
    row = speed.ROWS["vg_eval_75"]
    figures = speed.summary("vg_eval_75", TURNS)
    assert figures["ms"] == 2000.0
    assert figures["rate"] == 37.5
    assert figures["gflops"] == row.gflop / 2
    shares = [300 / 310, 300 / np.median([300, 310, 320, 155, 155, 155])]
    shares += [600 / 150, 150 / 200, 300 / 310, 300 / 310]
    assert figures["share"] == pytest.approx(np.median(shares))
    assert figures["compile_cold_s"] == 10.0
    assert figures["compile_cached_s"] == 1.25  # of 0.5 and 2
    assert figures["memory_cold_mib"] == 900.0
    assert figures["memory_cached_mib"] == 710.0


def test_a_table_leaves_empty_what_a_row_has_not():
    figures = [speed.summary(name, TURNS[:1]) for name in ("at_step", "at_small")]
    head, rule, first, second = (
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in measuring.table(figures, speed.COLUMNS).splitlines()
    )
    assert head == list(speed.COLUMNS)
    assert all(set(cell) <= set("-:") for cell in rule)
    full, empty = (dict(zip(head, cells, strict=True)) for cells in (first, second))
    assert full["target"] == "0.62" and full["original"] == "0.55"
    assert full["row"] == "at_step" and full["share"] == "0.93"
    assert empty["row"] == "at_small" and empty["ms"] == "2000.0"
    for heading in ("GFLOP/s", "share", "target", "original", "cached s", "MiB"):
        assert empty[heading] == ""


def test_rows_are_chosen_by_list_and_by_repetition(capsys):
    given = speed.arguments(["--row=at_step,vg_small", "--row=at_small"])
    assert given.row == ["at_step", "vg_small", "at_small"]
    with pytest.raises(SystemExit) as stop:
        speed.arguments(["--row=at_step,nothing"])
    assert stop.value.code == 2
    assert "no row 'nothing'; choose from vg_eval_75" in capsys.readouterr().err


@pytest.mark.parametrize(
    "words", [["--repeats=0"], ["--turns=0"], ["--json=/no/such/folder/speed.json"]]
)
def test_other_bad_flags_end_with_exit_code_2(words):
    with pytest.raises(SystemExit) as stop:
        speed.arguments(words)
    assert stop.value.code == 2


def test_the_machine_is_named():
    assert {"cpu", "cores", "memory_gib", "jax", "load_before"} <= set(
        measuring.machine()
    )


def tiny_at_net():
    net = ATNet((8, 8), (4, 4, 4, 4, 4), (8, 8), 8, 1, num_coefficients=4)
    return speed.forward(net, measuring.noise((1, 4)), measuring.noise((1, 3, 28, 12)))


@pytest.mark.parametrize(
    "work",
    [
        tiny_at_net,
        lambda: measuring.training_of(smoke.get_config("at")),
        lambda: measuring.training_of(smoke.get_config("vg")),
    ],
    ids=["at_net", "at_step", "gan_step"],
)
def test_a_row_is_measured(monkeypatch, work):
    monkeypatch.setattr(speed, "LEAST_SECONDS", 0.0)
    found = speed.measure(speed.Row("tiny", 1, "steps", work), 2, matmul_size=32)
    assert len(found["seconds"]) == 2 and found["calls_a_repeat"] == 1
    assert [len(rates) for rates in found["peaks"]] == [speed.MATMULS] * 3
    assert found["memory_mib"] > 0 and 0 <= found["others"] <= 1
    assert found["device"].startswith(jax.default_backend())


def test_a_result_that_is_not_finite_is_refused():
    measuring.check_finite({"loss": jnp.ones(2)})
    with pytest.raises(SystemExit, match="not finite"):
        measuring.check_finite({"loss": jnp.array([1.0, jnp.nan])})
