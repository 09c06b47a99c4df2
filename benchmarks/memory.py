"""Compares the peak memory of animate for 10 seconds and for 10 minutes of sound.

    python benchmarks/memory.py                 # reduced width: two minutes on 2 cores
    python benchmarks/memory.py --full_width    # the original's width: many minutes

The exit code is 1 if the longer run needs more than 10 % more.  Measured on 2 cores:
501.3 and 520.5 MiB, ratio 1.038.  malloc was limited to two arenas, so that the freed
memory that FFmpeg's and XLA's threads keep does not count.  With glibc's default,
MALLOC_ARENA_MAX=0, it was 502.1 and 549.7 MiB; all but 5 MiB of that was reached after
two minutes of sound.
"""

import argparse
import os
import pathlib
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
SECONDS = (10, 600)
LIMIT = 1.10


def make_inputs(folder: pathlib.Path, full_width: bool) -> None:
    """Writes a bundle, face.png and a sound of each length into the folder.

    To be run in another process than `peak`: the peak memory of a child also counts
    what its parent held when the child was started.
    """
    import soundfile

    from input_pipeline.media.image import write_image
    from jax_atvg.inference.bundle import save_bundle
    from tests.small_bundle import full_bundle, photo, small_bundle, speech

    save_bundle(full_bundle() if full_width else small_bundle(128), folder / "bundle")
    write_image(folder / "face.png", photo())
    for seconds in SECONDS:
        soundfile.write(folder / f"{seconds}.wav", speech(seconds), 16000)


def peak(folder: pathlib.Path, seconds: int) -> float:
    """The peak resident memory of `main.py animate`, MiB."""
    command = [sys.executable, ROOT / "main.py", "animate"]
    files = {"bundle": "bundle", "image": "face.png", "out": "out.mp4"}
    for flag, name in (files | {"audio": f"{seconds}.wav"}).items():
        command.append(f"--{flag}={folder / name}")
    # A process in between, because RUSAGE_CHILDREN is the peak of all children so far.
    program = (
        "import resource, subprocess, sys\n"
        "subprocess.run(sys.argv[1:], check=True, stdout=subprocess.DEVNULL)\n"
        "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)"
    )
    between = [sys.executable, "-c", program, *map(str, command)]
    cache = {"JAX_COMPILATION_CACHE_DIR": str(folder / "cache")}
    env = {"MALLOC_ARENA_MAX": "2"} | dict(os.environ) | cache
    done = subprocess.run(
        between, check=True, stdout=subprocess.PIPE, text=True, env=env
    )
    unit = 1024 if sys.platform == "linux" else 1024 * 1024
    return int(done.stdout) / unit


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--full_width", action="store_true")
    parser.add_argument("--inputs", type=pathlib.Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.inputs:
        make_inputs(given.inputs, given.full_width)
        return 0
    with tempfile.TemporaryDirectory() as folder:
        again = [sys.executable, __file__, f"--inputs={folder}"]
        again += ["--full_width"] if given.full_width else []
        subprocess.run(again, check=True)
        # Fills the compilation cache, because compiling takes memory.
        peak(pathlib.Path(folder), SECONDS[0])
        peaks = [peak(pathlib.Path(folder), seconds) for seconds in SECONDS]
    for seconds, used in zip(SECONDS, peaks, strict=True):
        print(f"{seconds:4d} s of sound: {used:6.1f} MiB at most")
    ratio = peaks[1] / peaks[0]
    print(f"ratio {ratio:.3f}, limit {LIMIT:.2f}")
    return 0 if ratio <= LIMIT else 1


if __name__ == "__main__":
    sys.exit(main())
