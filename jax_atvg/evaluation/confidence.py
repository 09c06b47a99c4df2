"""Scores of clips -> means, by mode and metric, with their intervals.

    rows -> summarise -> {"overall": {mode: {metric: {mean, low, high, clips}}},
                          "speakers": {speaker: the same}, ...}

Every clip counts once, whatever its length; low..high is the 95 % interval of the mean
if the clips are drawn anew (bootstrap, seeded).  NaN and missing scores are left out.
"""

from collections.abc import Iterable
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

LAGS = range(-5, 6)  # frames
NAMES = ("clip", "speaker", "frames", "mode")  # of a row; all others are metrics
RESAMPLES = 1000
SEED = 0


def summarise(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Overall and by speaker: mode -> metric -> interval."""
    speakers = sorted({row["speaker"] for row in rows})
    return {
        "overall": by_mode(rows),
        "speakers": {
            name: by_mode([row for row in rows if row["speaker"] == name])
            for name in speakers
        },
    }


def by_mode(rows: list[dict[str, Any]]) -> dict[str, dict[str, dict[str, float]]]:
    table = {}
    for mode in dict.fromkeys(row["mode"] for row in rows):
        mine = [row for row in rows if row["mode"] == mode]
        metrics = [name for name in columns(mine) if name not in NAMES]
        values = np.array([[row.get(m, np.nan) for m in metrics] for row in mine])
        intervals = bootstrap(values.astype(np.float64))
        table[mode] = dict(zip(metrics, intervals, strict=True))
    return table


def bootstrap(values: Float[np.ndarray, "N M"]) -> list[dict[str, float]]:
    """N clips, M metrics -> for each the mean, its 95 % interval and how many clips.

    A resample is a number of times that each clip is drawn; sums are masked, so that a
    clip without a score moves no mean.
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
    """Weighted means of the valid values; NaN where there are none."""
    with np.errstate(invalid="ignore"):
        return weights @ np.where(valid, values, 0) / (weights @ valid)


def columns(rows: Iterable[dict[str, Any]]) -> list[str]:
    """Every name that a row has, in the order of appearance."""
    return list(dict.fromkeys(name for row in rows for name in row))
