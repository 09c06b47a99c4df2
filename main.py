"""A face photo and a speech recording become a talking-face video.

    python main.py import_torch --at_net=atnet.pth --vg_net=generator.pth \\
        --basics=ATVGnet/basics --out=bundles/authors
    python main.py animate --bundle=bundles/authors --image=face.jpg \\
        --audio=speech.wav --out=talking.mp4

Bad input ends with one line on standard error and exit code 2.
"""

import csv
import os
import pathlib
import sys
import warnings

from absl import flags

from input_pipeline.clip import InputError

OUT = flags.DEFINE_string("out", None, "what to write: a bundle's folder, an .mp4")
AT_NET = flags.DEFINE_string("at_net", None, "import_torch: AT-net's .pth or .npz")
VG_NET = flags.DEFINE_string("vg_net", None, "import_torch: VG-net's .pth or .npz")
BASICS = flags.DEFINE_string("basics", None, "import_torch: the folder ATVGnet/basics")
BUNDLE = flags.DEFINE_string("bundle", None, "animate: the bundle's folder")
IMAGE = flags.DEFINE_string("image", None, "animate: a photo with a face")
AUDIO = flags.DEFINE_string("audio", None, "animate: a recording of speech")
FACE = flags.DEFINE_string(
    "face", "largest", "animate: which face: largest, or 0, 1, ... from the left"
)
FULL_FRAME = flags.DEFINE_bool(
    "full_frame", False, "animate: put the face back into the whole picture"
)
PANELS = flags.DEFINE_bool(
    "panels",
    False,
    "animate: also write OUT_panels.mp4: landmarks, attention, colour, result",
)
LANDMARKS_OUT = flags.DEFINE_string(
    "landmarks_out", None, "animate: also write the landmarks, f32[T,68,2], to an .npy"
)
BATCH = flags.DEFINE_string(
    "batch", None, "animate: a CSV of image,audio,out rows instead of the three flags"
)


def import_torch() -> int:
    """The authors' checkpoints become a bundle."""
    require(AT_NET, VG_NET, BASICS, OUT)
    from input_pipeline import authors
    from jax_atvg.bundle import Bundle, save_bundle
    from jax_atvg.models.at_net import ATNet
    from jax_atvg.models.vg_net import VGNet
    from jax_atvg.torch_import import convert, read_state_dict

    settings = authors.bundle_settings(authors.read_basics(BASICS.value))
    variables = {
        flag.name: convert(flag.name, read_state_dict(flag.value))
        for flag in (AT_NET, VG_NET)
    }
    # Their recurrence runs over the batch; the demo has one clip in it.
    networks = ATNet(), VGNet(recurrence="batch")
    save_bundle(Bundle(*networks, variables, **settings), OUT.value)
    print(f"wrote {OUT.value}")
    return 0


def animate() -> int:
    """A photo and a recording, or a list of them, become videos."""
    require(BUNDLE, BATCH) if BATCH.value else require(BUNDLE, IMAGE, AUDIO, OUT)
    jobs = read_jobs(BATCH.value) if BATCH.value else [flag_values(IMAGE, AUDIO, OUT)]
    if BATCH.value and LANDMARKS_OUT.value:
        raise InputError("--landmarks_out names one file; leave it out with --batch")
    cache_compilations()
    from jax_atvg.animate import animate_file
    from jax_atvg.bundle import load_bundle

    bundle, failed = load_bundle(BUNDLE.value), 0
    for image, audio, out in jobs:
        try:
            written = animate_file(
                image,
                audio,
                out,
                bundle,
                face=FACE.value,
                full_frame=FULL_FRAME.value,
                panels=PANELS.value,
                landmarks_out=LANDMARKS_OUT.value,
                progress=True,
            )
            print("wrote", *written)
        except InputError as error:
            complain(error)
            failed += 1
    if BATCH.value:
        print(f"{len(jobs) - failed} of {len(jobs)} videos written")
    return 2 if failed else 0


VERBS = {"import_torch": import_torch, "animate": animate}


def read_jobs(path: str) -> list[list[str]]:
    """Rows image,audio,out of a CSV file; a first row of just these words is a header.

    InputError: no such file, no rows, or a row without three fields.
    """
    try:
        with open(path, newline="", encoding="utf-8") as file:
            rows = [row for row in csv.reader(file) if row]
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(
            f"{path}: not a readable list ({error}); give a CSV"
        ) from error
    for number, row in enumerate(rows, 1):
        if len(row) != 3:
            raise InputError(
                f"{path}: row {number} has {len(row)} fields, needs image,audio,out"
            )
    rows = [[field.strip() for field in row] for row in rows]
    rows = rows[1:] if rows[:1] == [["image", "audio", "out"]] else rows
    if not rows:
        raise InputError(f"{path}: no rows; give image,audio,out, one video a row")
    return rows


def flag_values(*holders: flags.FlagHolder) -> list[str]:
    return [holder.value for holder in holders]


def require(*holders: flags.FlagHolder) -> None:
    """InputError that names the flags left out."""
    missing = [f"--{holder.name}" for holder in holders if not holder.value]
    if missing:
        raise InputError(
            f"{' '.join(missing)} missing; see `python main.py --help` for all flags"
        )


def cache_compilations() -> None:
    """A second start takes compiled programs from the user's cache folder."""
    import jax

    if not os.environ.get("JAX_COMPILATION_CACHE_DIR"):
        home = os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache"
        folder = pathlib.Path(home) / "jax_atvg"
        jax.config.update("jax_compilation_cache_dir", str(folder))


def complain(error: Exception) -> None:
    print(f"error: {error}", file=sys.stderr)


def main(arguments: list[str]) -> int:
    """The exit code: 0, or 2 for bad input."""
    warnings.formatwarning = lambda message, *_: f"warning: {message}\n"
    try:
        words = flags.FLAGS(arguments)[1:]
        if len(words) != 1 or words[0] not in VERBS:
            raise InputError(
                f"{' '.join(words) or 'nothing'} asked for; say one of "
                f"{' '.join(VERBS)}, or --help"
            )
        return VERBS[words[0]]()
    except (InputError, flags.Error) as error:
        complain(error)
        return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv))
