"""Measures how long a visitor of the page waits: until it is ready, and for a video.

    python benchmarks/page.py                     # the demo's sentence, a photo to try
    python benchmarks/page.py --image=face.jpg --audio=speech.wav

`main.py serve` is started as a process of its own, and is sent photo and sound the way
programs do it (POST /api/animate), which is what the page's button does.  ready: from
the start of the process until it says so, with the networks compiled, or taken from the
cache of compiled programs where they were compiled before.  first, next: from sending
photo and sound until the whole video has come.  Needs requirements/web.txt.
"""

import argparse
import contextlib
import pathlib
import re
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks.measuring import check_flags, show  # noqa: E402

COLUMNS = {  # heading: (key of the summary, format)
    "ready s": ("ready", ".1f"),
    "sound s": ("seconds", ".1f"),
    "first video s": ("first", ".1f"),
    "next video s": ("next", ".1f"),
    "video kB": ("kilobytes", ".0f"),
}
LONGEST = 300  # seconds that an answer may take


@contextlib.contextmanager
def served(command: Sequence[str]) -> Iterator[str]:
    """The address of a server, until the end of the block.  SystemExit: it does not
    start; with what it said."""
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            said = []
            for line in process.stdout:
                said.append(line)
                if found := re.match(r"ready: (\S+)", line):
                    yield found[1]
                    return
            raise SystemExit(f"the server has ended\n{''.join(said)}")
        finally:
            process.terminate()


def measure(given: argparse.Namespace) -> dict[str, float]:
    """The figures of one start."""
    import httpx

    from input_pipeline.media.audio import AudioReader

    command = [sys.executable, str(ROOT / "main.py"), "serve", "--port=0"]
    if given.bundle:
        command.append(f"--bundle={given.bundle}")
    reader = AudioReader(given.audio)
    found = {"seconds": sum(map(len, reader.blocks())) / reader.rate}
    began = time.perf_counter()
    with served(command) as address:
        found["ready"] = time.perf_counter() - began
        for name in ("first", "next"):
            began = time.perf_counter()
            with open(given.image, "rb") as photo, open(given.audio, "rb") as sound:
                answer = httpx.post(
                    f"{address}/api/animate",
                    files={"photo": photo, "sound": sound},
                    timeout=LONGEST,
                )
            if answer.is_error:
                raise SystemExit(f"{answer.status_code}: {answer.text}")
            found[name] = time.perf_counter() - began
            found["kilobytes"] = len(answer.content) / 1000
    return found


def arguments(words: Sequence[str] | None = None) -> argparse.Namespace:
    import skimage.data

    photo = pathlib.Path(skimage.data.__path__[0]) / "astronaut.png"
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--image", type=pathlib.Path, default=photo)
    parser.add_argument(
        "--audio", type=pathlib.Path, default=ROOT / "demo" / "speech.flac"
    )
    parser.add_argument("--bundle", help="the default model unless given")
    parser.add_argument("--json", type=pathlib.Path, help="the figures are kept there")
    given = parser.parse_args(words)
    check_flags(parser, given)
    for path in (given.image, given.audio):
        if not path.is_file():
            parser.error(f"{path}: no such file; give another")
    return given


def main() -> None:
    given = arguments()
    show(measure(given), COLUMNS, given.json)


if __name__ == "__main__":
    main()
