"""A photo and a speech recording become a talking-face video.

    python main.py animate --image=face.jpg --audio=speech.wav --out=talking.mp4

The photo must show a frontal, upright face; the recording may be any sound or video
file.  With --batch a list of such jobs is done, on GPUs and TPUs several at a time.
"""

import csv
import os
import pathlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from input_pipeline.clip import InputError
from input_pipeline.files import same_place
from input_pipeline.preparation.listing import PHOTOS, VIDEOS
from jax_atvg.cli.console import complain, say_what_networks_run, tell_compilations
from jax_atvg.cli.flags import Flags, Given, bundle_flag, precision_flag

if TYPE_CHECKING:
    from jax_atvg.inference.bundle import Bundle
    from jax_atvg.inference.networks import Networks

ONE_VIDEO = ("image", "audio", "out")
TALKING = "_talking.mp4"  # ends the names of a folder's videos
AT_ONCE = 8  # videos on one GPU or TPU, with --batch
SOUNDS = (
    *(".wav", ".wave", ".w64", ".rf64", ".flac", ".mp3", ".mp2", ".mpga", ".m4a"),
    *(".m4b", ".aac", ".ogg", ".oga", ".opus", ".spx", ".aif", ".aiff", ".aifc"),
    *(".caf", ".au", ".snd", ".wma", ".amr", ".mka", ".weba", ".ac3", ".eac3"),
    *(".dts", ".ape", ".wv", ".tta", ".voc"),
)

Waiting = Callable[[], Any]  # returns what another process is computing


def flags(add: Flags) -> None:
    add.path("image", "The photo.", required=True)
    add.path("audio", "The recording: sound, or a video's.", required=True)
    add.path("out", "The video to write, an .mp4.", required=True)
    bundle_flag(add)
    precision_flag(add)
    add.text("face", "Which face: largest, or 0, 1, ... from the left.", "largest")
    add.switch("full_frame", "Put the face back into the whole picture.")
    add.switch("label", "Write into the picture that it is synthetic.")
    add.choice("blinks", ("on", "off"), "Whether the eyes blink now and then.", "on")
    add.switch("head_movement", "Move the head a little; with --full_frame.")
    add.number("seed", "Of the times of blinks and of the head's movement.", 0, least=0)
    add.real(
        "expressiveness",
        "By which the movement of mouth and jaw is multiplied, 0 to 3; 1 is as learnt.",
        1.0,
        least=0.0,
    )
    add.switch(
        "panels",
        "Also write OUT_panels.mp4: landmarks, attention, colour and result.",
    )
    add.path("landmarks_out", "Also write the landmarks, f32[T,68,2], to this .npy.")
    add.path(
        "batch",
        "A CSV of image,audio,out rows in place of these three flags; or a folder, in "
        "which photos and recordings of the same name, as ann.jpg and ann.wav, become "
        "ann_talking.mp4. A bad row does not stop the others.",
    )
    add.number(
        "track",
        "Which sound track of the recording, counted from 1; 0: the first that is not "
        "silent.",
        0,
        least=0,
    )
    add.replaces("batch", (*ONE_VIDEO, "landmarks_out"))


def run(given: Given) -> int:
    from input_pipeline.workers import assistant
    from jax_atvg.cli.machine import set_up_jax
    from jax_atvg.inference.options import Look, checked_expressiveness
    from jax_atvg.inference.perception import perceive

    Look(given.full_frame, head_movement=given.head_movement, seed=given.seed)
    checked_expressiveness(given.expressiveness)
    rows = (
        read_jobs(given.batch)
        if given.batch
        else [[given.image, given.audio, given.out]]
    )
    with assistant() as begin:
        # The first face is found while jax is imported and the bundle read.
        found = begin(perceive, *rows[0][:2], given.face, given.track)
        set_up_jax()
        from jax_atvg.inference.bundle import load_bundle

        tell_compilations()
        bundle = load_bundle(given.bundle)
        if given.batch:
            return make_videos(given, rows, bundle, begin, found)
        return make_video(given, bundle, found)


def make_video(given: Given, bundle: "Bundle", perceived: Waiting) -> int:
    """Makes the one video of --out.  InputError: it cannot be made."""
    from jax_atvg.inference.animate import animate_file
    from jax_atvg.inference.networks import Networks

    networks = Networks(bundle, precision=given.precision)
    say_what_networks_run(networks)
    image, audio, out = check_job(
        [given.image, given.audio, given.out], "", set(), given
    )
    written = animate_file(
        image,
        audio,
        out,
        networks,
        landmarks_out=given.landmarks_out,
        perceived=perceived,
        **settings(given),
    )
    print("wrote", *written)
    return 0


def make_videos(
    given: Given,
    rows: list[list[str]],
    bundle: "Bundle",
    begin: Callable[..., Waiting],
    first: Waiting,
) -> int:
    """Makes the videos of --batch and tells of each; rows that cannot be right are told
    of before.  first: what was perceived for the first row."""
    from jax_atvg.inference.batch import Job, animate_files
    from jax_atvg.inference.perception import perceive

    networks = networks_for(bundle, len(rows), given.precision)
    say_what_networks_run(networks)
    names, jobs, outs = [], [], set()
    written = 0

    def tell(name: str, error: Exception) -> None:
        if not isinstance(error, InputError):
            # Whatever is wrong with one row, the others are not.
            error = f"{name}: {type(error).__name__}: {error}; please report it"
        complain(error)

    for number, row in enumerate(rows, 1):
        name = f"{given.batch}: job {number}"
        try:
            image, audio, out = check_job(row, name, outs, given)
        except Exception as error:
            tell(name, error)
            continue

        def perceived(image=image, audio=audio):  # not before its turn
            return begin(perceive, image, audio, given.face, given.track)()

        names.append(name)
        jobs.append(Job(image, audio, out, first if number == 1 else perceived))
    for index, result in animate_files(jobs, networks, **settings(given)):
        if isinstance(result, Exception):
            tell(names[index], result)
        else:
            print("wrote", *result)
            written += 1
    print(f"{written} of {len(rows)} videos written")
    return 0 if written == len(rows) else 2


def settings(given: Given) -> dict[str, Any]:
    """What is the same for every video."""
    chosen = {
        name: getattr(given, name)
        for name in (
            *("face", "track", "full_frame", "label", "panels"),
            *("head_movement", "seed", "expressiveness"),
        )
    }
    return chosen | {"blinks": given.blinks == "on", "progress": True}


def networks_for(bundle: "Bundle", count: int, precision: str) -> "Networks":
    """The networks for `count` videos: on GPUs and TPUs AT_ONCE at a time on each of as
    many devices as that takes, on a CPU, which one video keeps busy, one."""
    import jax

    from jax_atvg.inference.networks import Networks
    from jax_atvg.sharding import data_mesh

    devices = jax.local_devices()
    if devices[0].platform == "cpu":
        return Networks(bundle, precision=precision)
    devices = devices[: -(-count // AT_ONCE)]
    return Networks(bundle, AT_ONCE * len(devices), data_mesh(devices), precision)


def read_jobs(path: str | os.PathLike) -> list[list[str]]:
    """Rows image,audio,out of a CSV file; a first row of just these words is a header.
    Or those of a folder.

    InputError: no such file, no rows.
    """
    if os.path.isdir(path):
        return jobs_of_folder(pathlib.Path(path))
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:  # Excel's mark
            rows = [row for row in csv.reader(file) if row]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(
            f"{path}: not a readable list ({error}); give a CSV"
        ) from error
    rows = [[os.path.expanduser(field.strip()) for field in row] for row in rows]
    rows = rows[1:] if rows[:1] == [list(ONE_VIDEO)] else rows
    if not rows:
        raise InputError(f"{path}: no rows; give image,audio,out, one video a row")
    return rows


def jobs_of_folder(folder: pathlib.Path) -> list[list[str]]:
    """A row for every photo and every recording of its name: what ends as sounds and
    videos do.  InputError: none."""
    names = [path for path in sorted(folder.iterdir()) if path.is_file()]
    rows = [
        [str(photo), str(sound), str(folder / f"{photo.stem}{TALKING}")]
        for photo in names
        for sound in names
        if photo.suffix.lower() in PHOTOS
        and sound.stem == photo.stem
        and sound.suffix.lower() in (*SOUNDS, *VIDEOS)
    ]
    if not rows:
        raise InputError(
            f"{folder}: no photo and recording of the same name; call them as ann.jpg "
            "and ann.wav, or give a CSV"
        )
    return rows


def check_job(job: list[str], name: str, outs: set[str], given: Given) -> list[str]:
    """image, audio, out; adds the identities of the files that the job writes to those
    taken.

    InputError: not these three, or one of those files is taken or an input.
    """
    from jax_atvg.inference.animate import panels_path

    if len(job) != 3 or not all(job):
        raise InputError(f"{name} is {','.join(job)}; give image,audio,out")
    image, audio, out = job
    written = [out, given.landmarks_out] if given.landmarks_out else [out]
    if given.panels:
        written.append(str(panels_path(pathlib.Path(out))))
    for path in written:
        if identity(path) in outs:
            raise InputError(f"{name} writes {path} again; give every job its own")
        for flag, source in (("image", image), ("audio", audio)):
            if same_place(source, path):
                raise InputError(
                    f"{path} is --{flag}, too, which would be overwritten; choose "
                    "another --out"
                )
    outs.update(map(identity, written))
    return job


def identity(path: str) -> str:
    """The same for paths that may be of one file: through links, or on a disk on which
    A.mp4 is a.mp4."""
    folder, name = os.path.split(path)
    return os.path.join(os.path.realpath(folder), name.casefold())
