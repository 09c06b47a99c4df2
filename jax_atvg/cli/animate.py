"""A photo and a speech recording become a talking-face video.

    python main.py animate --image=face.jpg --audio=speech.wav --out=talking.mp4

The photo must show a frontal, upright face; the recording may be any sound or video
file.  With --batch a list of such jobs is done one after the other.
"""

import csv
import os
import pathlib

from input_pipeline.clip import InputError
from input_pipeline.files import same_place
from jax_atvg.cli.console import complain, say_what_runs, tell_compilations
from jax_atvg.cli.flags import Flags, Given, bundle_flag

ONE_VIDEO = ("image", "audio", "out")


def flags(add: Flags) -> None:
    add.path("image", "The photo.", required=True)
    add.path("audio", "The recording: sound, or a video's.", required=True)
    add.path("out", "The video to write, an .mp4.", required=True)
    bundle_flag(add)
    add.text("face", "Which face: largest, or 0, 1, ... from the left.", "largest")
    add.switch("full_frame", "Put the face back into the whole picture.")
    add.switch(
        "panels",
        "Also write OUT_panels.mp4: landmarks, attention, colour and result.",
    )
    add.path("landmarks_out", "Also write the landmarks, f32[T,68,2], to this .npy.")
    add.path(
        "batch",
        "A CSV of image,audio,out rows in place of these three flags; a bad row does "
        "not stop the others.",
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
    from jax_atvg.inference.perception import perceive

    jobs = (
        read_jobs(given.batch)
        if given.batch
        else [[given.image, given.audio, given.out]]
    )
    failed, outs = 0, set()
    with assistant() as begin:
        # The first face is found while jax is imported and the bundle read.  The others
        # not before their turn: a job may take up the video of the one before.
        ahead = {1: begin(perceive, *jobs[0][:2], given.face, given.track)}
        set_up_jax()
        from jax_atvg.inference.animate import animate_file
        from jax_atvg.inference.bundle import load_bundle
        from jax_atvg.inference.networks import Networks

        tell_compilations()
        networks = Networks(load_bundle(given.bundle))
        say_what_runs(
            list(networks.mesh.devices.flat), networks=networks.weights._asdict()
        )
        for number, job in enumerate(jobs, 1):
            try:
                image, audio, out = check_job(
                    job, f"{given.batch}: job {number}", outs, given
                )
                perceived = ahead.pop(number, None) or begin(
                    perceive, image, audio, given.face, given.track
                )
                written = animate_file(
                    image,
                    audio,
                    out,
                    networks,
                    face=given.face,
                    track=given.track,
                    full_frame=given.full_frame,
                    panels=given.panels,
                    landmarks_out=given.landmarks_out,
                    progress=True,
                    perceived=perceived,
                )
                print("wrote", *written)
            except InputError as error:
                complain(error)
                failed += 1
            except Exception as error:
                if not given.batch:
                    raise
                # Whatever is wrong with one row, the others are not.
                name = f"{given.batch}: job {number}"
                complain(f"{name}: {type(error).__name__}: {error}; please report it")
                failed += 1
    if given.batch:
        print(f"{len(jobs) - failed} of {len(jobs)} videos written")
    return 2 if failed else 0


def read_jobs(path: str | os.PathLike) -> list[list[str]]:
    """Rows image,audio,out of a CSV file; a first row of just these words is a header.

    InputError: no such file, no rows.
    """
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


def check_job(job: list[str], name: str, outs: set[str], given: Given) -> list[str]:
    """image, audio, out; adds the files that the job writes to those taken.

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
        if os.path.abspath(path) in outs:
            raise InputError(f"{name} writes {path} again; give every job its own")
        for flag, source in (("image", image), ("audio", audio)):
            if same_place(source, path):
                raise InputError(
                    f"{path} is --{flag}, too, which would be overwritten; choose "
                    "another --out"
                )
    outs.update(map(os.path.abspath, written))
    return job
