"""Finds by how many frames a file's sound is late, and corrects or rejects it.

A *listener* hears the sound and tells how far the mouth should be open.  What it says
is compared with the mouths that are seen, at every shift of at most MOST_LAG frames:
the shift at which both agree best is the lag.  What it cannot judge it says.
"""

from collections.abc import Sequence
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float, Float32

from input_pipeline.clip import Clip
from input_pipeline.faces.landmarks import opening

MODES = ("off", "check", "fix")
MOST_LAG = 8  # frames; beyond it nothing is searched
IN_STEP = 1  # frames: a smaller lag is none
LEAST_FRAMES = 50  # of a file; fewer agree by chance at some shift
LEAST_R = 0.3  # below it, the best agreement is taken for chance
PEAK = 3  # frames: lags this close to the best one belong to the same peak
LEAST_MARGIN = 0.1  # by which the best r must exceed those outside its peak


@runtime_checkable
class Listener(Protocol):
    """Hears speech.  It must be possible to pickle it."""

    def __call__(self, clip: Clip) -> Float[np.ndarray, "T"]:
        """How far the mouth of each of the clip's frames should be open, in any unit;
        heard from clip.mfcc; clip.landmarks show whose mouth it is."""

    def key(self) -> str:
        """A hash of all that its answers depend on, beside the clip."""


class Sync(NamedTuple):
    """By how many frames a file's sound is late, negative where it is early.

    r: correlation of the mouths heard and seen at that lag.  judged: whether r says
    anything; else the lag is chance.
    """

    lag: int
    r: float
    judged: bool

    @property
    def in_step(self) -> bool:
        """Whether sound and pictures belong together as they are."""
        return self.judged and abs(self.lag) <= IN_STEP


def find_lag(listener: Listener, clips: Sequence[Clip]) -> Sync:
    """The lag of a file's sound, by all its clips together."""
    pairs = [(listener(clip), opening(clip.landmarks)) for clip in clips]
    lags = np.arange(-MOST_LAG, MOST_LAG + 1)
    r = np.array([correlation(pairs, int(lag)) for lag in lags])
    best = int(r.argmax())
    elsewhere = r[np.abs(lags - lags[best]) > PEAK].max()
    inside = 0 < best < len(lags) - 1  # else the peak may lie beyond
    enough = sum(len(clip.landmarks) for clip in clips) >= LEAST_FRAMES
    clear = r[best] >= LEAST_R and r[best] - elsewhere >= LEAST_MARGIN
    return Sync(int(lags[best]), float(r[best]), bool(enough and inside and clear))


def correlation(
    pairs: Sequence[tuple[Float[np.ndarray, "_"], Float[np.ndarray, "_"]]], lag: int
) -> float:
    """Of what was heard at t + lag with what was seen at t, over all clips together;
    every clip's means are taken off.  0 where there is no movement."""
    products = np.zeros(3)
    for heard, seen in pairs:
        count = len(heard) - abs(lag)
        if count < 2:
            continue
        h = heard[max(lag, 0) :][:count]
        s = seen[max(-lag, 0) :][:count]
        h, s = h - h.mean(), s - s.mean()
        products += h @ s, h @ h, s @ s
    both, of_heard, of_seen = products
    scale = np.sqrt(of_heard * of_seen)
    return float(both / scale) if scale > 0 else 0.0


def columns(syncs: Sequence[Sync]) -> dict[str, Float32[np.ndarray, "n"] | np.ndarray]:
    """What the index says of every clip: lag i64[n], r f32[n], judged bool[n]."""
    lags, rs, judged = zip(*syncs, strict=True)
    return {
        "lag": np.array(lags, np.int64),
        "r": np.array(rs, np.float32),
        "judged": np.array(judged, bool),
    }
