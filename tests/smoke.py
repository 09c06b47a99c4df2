"""`make smoke`: the whole path with tiny networks, on a machine without data.

    python -m tests.smoke [FOLDER]

Trains both networks, exports, evaluates and animates, each as a user would, in FOLDER
or a temporary one.  Ends with the exit code of the first command that fails.
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


def commands(folder: pathlib.Path) -> list[list[str]]:
    at, vg, bundle = folder / "at", folder / "vg", folder / "bundle"
    data = f"--data_dir={folder / 'data'}"
    image, audio = folder / "face.png", folder / "speech.wav"
    return [
        ["train", "--config=configs/smoke.py:at", f"--workdir={at}"],
        ["train", "--config=configs/smoke.py:vg", f"--workdir={vg}"],
        [
            *("export", f"--at={at},{at}", f"--vg={vg}", f"--out={bundle}", data),
            "--format=stablehlo",
        ],
        [
            *("evaluate", f"--bundle={bundle}", data, "--split=validation"),
            *(f"--out={folder / 'report'}", "--limit=2"),
        ],
        [
            *("animate", f"--bundle={bundle}", f"--image={image}", f"--audio={audio}"),
            f"--out={folder / 'talking.mp4'}",
        ],
    ]


def walk(folder: pathlib.Path) -> int:
    started = time.perf_counter()
    folder.mkdir(parents=True, exist_ok=True)
    write_inputs(folder)
    for command in commands(folder):
        print("python main.py", *command, flush=True)
        before = time.perf_counter()
        code = subprocess.run([sys.executable, "main.py", *command], cwd=ROOT)
        if code.returncode:
            return code.returncode
        print(f"{time.perf_counter() - before:.0f} s\n", flush=True)
    print(f"smoke: all of it in {time.perf_counter() - started:.0f} s")
    return 0


if __name__ == "__main__":
    if len(sys.argv) > 1:
        sys.exit(walk(pathlib.Path(sys.argv[1]).absolute()))
    with tempfile.TemporaryDirectory() as temporary:
        sys.exit(walk(pathlib.Path(temporary)))
