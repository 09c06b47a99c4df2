"""Feeds a talker in real time, as a microphone would, and measures how late frames are.

    python benchmarks/live.py                    # a minute
    python benchmarks/live.py --seconds=3600     # an hour
    python benchmarks/live.py --seconds=3600 --faster

Every 10 ms the samples that were recorded meanwhile are pushed; while frames are being
made more collect, as in a microphone's buffer.  The delay of a frame is the time from
the moment when all of its sound was recorded (175 ms after the frame begins: its own 40
ms and 135 ms that the network hears ahead) to the moment when push returns it.  A frame
is late if that takes more than 80 ms.  With --faster there is no waiting: a second of
sound is pushed after the other.

Others: the share of all cores that other processes, and a virtual machine's host, had
while this ran, and in the delays of late frames alone; by Linux's books, which count in
steps of 10 ms.  MiB: the process's memory after a tenth of the time and at the end.
"""

import argparse
import collections
import os
import pathlib
import sys
import time
from collections.abc import Iterator, Sequence
from typing import Any

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks.measuring import check_flags, others_seconds, show  # noqa: E402

STEP = 0.01  # seconds
STEP_OF_FRAME = 0.04  # seconds from a frame to the next
COMPLETE = 0.175  # seconds after a frame begins all of its sound is there
LATE = 0.08
COLUMNS = {  # heading: (key of the summary, format)
    "sound s": ("seconds", ".0f"),
    "frames": ("frames", ""),
    "frames/s": ("rate", ".1f"),
    "delay ms, p50": ("p50", ".0f"),
    "p99": ("p99", ".0f"),
    "most": ("most", ".0f"),
    "late": ("late", ""),
    "others": ("others", ".1%"),
    "in late ones": ("others_when_late", ".1%"),
    "core s a frame": ("core_s", ".4f"),
    "MiB, early": ("early_mib", ".0f"),
    "at the end": ("mib", ".0f"),
}


def in_real_time(sound, seconds: float, rate: int) -> Iterator[Any]:
    """What a microphone hands over: the samples recorded since the last time."""
    begin, taken = time.perf_counter(), 0
    while taken < seconds * rate:
        due = (taken / rate + STEP) - (time.perf_counter() - begin)
        if due > 0:
            time.sleep(due)
        now = int(min(time.perf_counter() - begin, seconds) * rate)
        yield piece(sound, taken, now)
        taken = now


def piece(sound, start: int, end: int):
    """Samples start to end of the sound, played again and again."""
    import numpy as np

    return sound[np.arange(start, end) % len(sound)]


def measure(talker, sound, given: argparse.Namespace) -> dict[str, Any]:
    """The figures of one run.  sound: f32[N], played again and again."""
    import numpy as np

    if given.faster:
        rate, ends = talker.rate, range(1, int(given.seconds) + 1)
        pieces = (piece(sound, rate * (end - 1), rate * end) for end in ends)
    else:
        pieces = in_real_time(sound, given.seconds, talker.rate)
    delays, early, heard, begin = [], 0, 0, time.perf_counter()
    spent, by_others = time.process_time(), others_seconds()
    before, when_late = collections.deque([(0.0, by_others)], 1000), []
    for samples in pieces:
        frames = talker.push(samples)
        now, theirs = time.perf_counter() - begin, others_seconds()
        before.append((now, theirs))
        first, heard = len(delays), heard + len(samples)
        ready = STEP_OF_FRAME * np.arange(first, first + len(frames)) + COMPLETE
        delays += list(now - ready)
        for moment in ready[now - ready > LATE]:
            then = [x for x in before if x[0] <= moment] or [before[0]]
            when_late.append((theirs - then[-1][1], now - then[-1][0]))
        if not early and heard >= given.seconds * talker.rate / 10:
            early = resident()
    wall, spent = time.perf_counter() - begin, time.process_time() - spent
    told = dict.fromkeys(["p50", "p99", "most", "late", "others_when_late"])
    if not given.faster:
        told |= {"p50": np.median(delays), "p99": np.percentile(delays, 99)}
        told = {k: v and 1000 * v for k, v in (told | {"most": max(delays)}).items()}
        told["late"] = len(when_late)
        taken, passed = np.sum(when_late, 0) if when_late else (0, 0)
        told["others_when_late"] = taken / passed / os.cpu_count() if passed else None
    return told | {
        "others": (others_seconds() - by_others) / wall / os.cpu_count(),
        "seconds": given.seconds,
        "frames": len(delays),
        "rate": len(delays) / wall,
        "core_s": spent / len(delays),
        "early_mib": early,
        "mib": resident(),
    }


def resident() -> float:
    """This process's memory, MiB."""
    lines = pathlib.Path("/proc/self/status").read_text().splitlines()
    return next(int(x.split()[1]) for x in lines if x.startswith("VmRSS")) / 1024


def arguments(words: Sequence[str] | None = None) -> argparse.Namespace:
    from jax_atvg.resources import DEFAULT_BUNDLE

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--faster", action="store_true", help="do not wait")
    parser.add_argument("--bundle", default=str(DEFAULT_BUNDLE))
    parser.add_argument("--image", help="the demo's unless given")
    parser.add_argument("--audio", default=str(ROOT / "demo" / "speech.flac"))
    parser.add_argument("--json", type=pathlib.Path, help="the figures are kept there")
    given = parser.parse_args(words)
    check_flags(parser, given, "seconds")
    return given


def main() -> None:
    from jax_atvg.cli.machine import set_up_jax

    given = arguments()
    set_up_jax()
    import numpy as np
    from skimage.data import astronaut

    from input_pipeline.media.audio import read_audio
    from jax_atvg.inference.live import Talker

    talker = Talker(given.image or astronaut(), given.bundle)
    sound = read_audio(given.audio)
    talker.push(np.zeros(talker.rate, np.float32))  # compiles
    talker.flush()
    found = measure(talker, sound, given)
    show(found, COLUMNS, given.json)


if __name__ == "__main__":
    main()
