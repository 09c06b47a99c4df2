"""`make smoke`: the whole path with tiny networks, on a machine without data.

    python -m tests.smoke [FOLDER]

Trains both networks, exports, evaluates and animates, each as a user would, in FOLDER
or a temporary one.  Ends with the exit code of a command that fails.
"""

import pathlib
import subprocess
import sys
import tempfile
import time
import wave

import numpy as np

from input_pipeline.training_data import synthetic
from tests.small_bundle import photo, speech

ROOT = pathlib.Path(__file__).resolve().parent.parent


def write_inputs(folder: pathlib.Path) -> None:
    """A dataset of drawn clips, a photo, two seconds of sound."""
    import cv2

    clips = synthetic.SyntheticClips(4, 24)
    synthetic.write_dataset(folder / "data", train=clips, validation=clips)
    cv2.imwrite(str(folder / "face.png"), photo()[..., ::-1])
    with wave.open(str(folder / "speech.wav"), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(16000)
        file.writeframes((speech(2.0) * 32767).astype(np.int16).tobytes())


def commands(folder: pathlib.Path) -> list[list[list[str]]]:
    """One after the other, those of a group at the same time: mostly they compile, on
    one core."""
    at, vg, bundle = folder / "at", folder / "vg", folder / "bundle"
    data = f"--data_dir={folder / 'data'}"
    image, audio = folder / "face.png", folder / "speech.wav"
    return [
        [
            ["train", "--config=configs/smoke.py:at", f"--workdir={at}"],
            ["train", "--config=configs/smoke.py:vg", f"--workdir={vg}"],
        ],
        [
            [
                *("export", f"--at={at},{at}", f"--vg={vg}", f"--out={bundle}", data),
                "--format=stablehlo",
            ],
        ],
        [
            [
                *("evaluate", f"--bundle={bundle}", data, "--split=validation"),
                *(f"--out={folder / 'report'}", "--limit=2"),
            ],
            [
                *("animate", f"--bundle={bundle}", f"--image={image}"),
                *(f"--audio={audio}", f"--out={folder / 'talking.mp4'}"),
            ],
        ],
    ]


def started(command: list[str]) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "main.py", *command],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def walk(folder: pathlib.Path) -> int:
    began = time.perf_counter()
    folder.mkdir(parents=True, exist_ok=True)
    write_inputs(folder)
    for group in commands(folder):
        before = time.perf_counter()
        processes = [started(command) for command in group]
        for command, process in zip(group, processes, strict=True):
            print("python main.py", *command, flush=True)
            print(process.communicate()[0], flush=True)
        if code := max(abs(process.returncode) for process in processes):
            return code
        print(f"{time.perf_counter() - before:.0f} s\n", flush=True)
    print(f"smoke: all of it in {time.perf_counter() - began:.0f} s")
    return 0


if __name__ == "__main__":
    if len(sys.argv) > 1:
        sys.exit(walk(pathlib.Path(sys.argv[1]).absolute()))
    with tempfile.TemporaryDirectory() as temporary:
        sys.exit(walk(pathlib.Path(temporary)))
