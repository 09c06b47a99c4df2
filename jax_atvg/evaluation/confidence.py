"""Averages the scores of clips, by mode and metric, with confidence intervals.

    rows -> summarise -> {"overall": {mode: {metric: {mean, low, high, clips}}},
                          "speakers": {speaker: the same}, ...}

Every clip counts once, whatever its length; low..high is the 95 % bootstrap interval of
the mean over clips, resampled with a fixed seed.  NaN and missing scores are left out.
"""

from collections.abc import Iterable
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

LAGS = range(-5, 6)  # frames by which the generated lips may be late
NAMES = ("clip", "speaker", "frames", "mode")  # a row's columns that are no metrics
RESAMPLES = 1000
SEED = 0


def summarise(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """The intervals of all clips, and those of each speaker's (see above)."""
    speakers = sorted({row["speaker"] for row in rows})
    return {
        "overall": by_mode(rows),
        "speakers": {
            name: by_mode([row for row in rows if row["speaker"] == name])
            for name in speakers
        },
    }


def by_mode(rows: list[dict[str, Any]]) -> dict[str, dict[str, dict[str, float]]]:
    """{mode: {metric: interval}} of these rows."""
    table = {}
    for mode in dict.fromkeys(row["mode"] for row in rows):
        mine = [row for row in rows if row["mode"] == mode]
        metrics = [name for name in columns(mine) if name not in NAMES]
        values = np.array([[row.get(m, np.nan) for m in metrics] for row in mine])
        intervals = bootstrap(values.astype(np.float64))
        table[mode] = dict(zip(metrics, intervals, strict=True))
    return table


def bootstrap(values: Float[np.ndarray, "N M"]) -> list[dict[str, float]]:
    """For each metric the mean, its 95 % interval and the number of clips that have it.

    values: of N clips and M metrics, NaN where a clip has no score.  A resample is
    represented by how often it draws each clip.  Sums are masked, so that a clip
    without a score does not change a mean.
    """
    count = len(values)
    draws = np.random.default_rng(SEED).multinomial(
        count, np.full(count, 1 / count), size=RESAMPLES
    )
    valid = np.isfinite(values)
    centre = masked_mean(values, valid, np.ones((1, count)))[0]
    means = masked_mean(values - centre, valid, draws.astype(np.float64)) + centre
    intervals = []
    for m, mean in enumerate(centre):
        drawn = means[np.isfinite(means[:, m]), m]
        low, high = np.percentile(drawn, [2.5, 97.5]) if len(drawn) else (mean, mean)
        clips = int(valid[:, m].sum())
        interval = {"mean": float(mean), "low": float(low), "high": float(high)}
        intervals.append(interval | {"clips": clips})
    return intervals


def masked_mean(
    values: Float[np.ndarray, "N M"],
    valid: Bool[np.ndarray, "N M"],
    weights: Float[np.ndarray, "R N"],
) -> Float[np.ndarray, "R M"]:
    """The means of the valid values for R sets of weights; NaN where none is valid."""
    with np.errstate(invalid="ignore"):
        return weights @ np.where(valid, values, 0) / (weights @ valid)


def columns(rows: Iterable[dict[str, Any]]) -> list[str]:
    """All names that occur in the rows, in the order of their first appearance."""
    return list(dict.fromkeys(name for row in rows for name in row))
