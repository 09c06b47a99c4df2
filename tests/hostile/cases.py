"""What is done with a file that is almost right, by kind: the files that are right, and
the command that is given one that is not."""

import functools
import pathlib
import shutil
from collections.abc import Callable
from typing import NamedTuple

import cv2
import numpy as np
import soundfile

from tests.hostile.mutations import Random

SECONDS = 0.4  # of sound: ten frames


class Kind(NamedTuple):
    """files: the folder, within the base, whose files are changed one at a time.
    share: of the cases.  arguments: (path of the changed file, folder of the case) ->
    the command line, or a function that is called instead.  written: what it writes in
    the folder of the case when it ends well."""

    files: str
    share: float
    arguments: Callable[[pathlib.Path, pathlib.Path], list[str] | Callable[[], None]]
    written: tuple[str, ...] = ("out.mp4",)


def build(base: pathlib.Path) -> None:
    """Makes all files that are right, once."""
    from jax_atvg.inference.bundle import save_bundle
    from tests.small_bundle import photo, small_bundle, speech

    for name in ("pictures", "sounds", "lists", "videos", "configs"):
        (base / name).mkdir(parents=True)
    small = cv2.resize(photo()[:300, 100:400], (150, 150), interpolation=cv2.INTER_AREA)
    bgr = np.ascontiguousarray(small[..., ::-1])
    for suffix in (".png", ".jpg", ".webp", ".tiff", ".bmp", ".gif"):
        cv2.imwrite(str(base / "pictures" / f"a{suffix}"), bgr)
    alpha = np.dstack([bgr, np.full(bgr.shape[:2], 200, np.uint8)])
    cv2.imwrite(str(base / "pictures" / "alpha.png"), alpha)
    cv2.imwrite(str(base / "pictures" / "deep.png"), bgr.astype(np.uint16) * 257)
    sound = speech(SECONDS)
    for name, kind in (
        ("a.wav", "PCM_16"),
        ("float.wav", "FLOAT"),
        ("a.flac", "PCM_16"),
        ("a.ogg", "VORBIS"),
        ("a.mp3", "MPEG_LAYER_III"),
    ):
        soundfile.write(base / "sounds" / name, sound, 16000, kind)
    soundfile.write(base / "sounds" / "many.wav", np.tile(sound, (6, 1)).T, 16000)
    videos(base)
    shutil.copy(base / "videos" / "a.mp4", base / "sounds" / "video.mp4")
    (base / "lists" / "list.csv").write_text("image,audio,out\nP,S,out.mp4\n")
    (base / "lists" / "plain.csv").write_text("P,S,out.mp4\n")
    save_bundle(small_bundle(), base / "bundle")
    configs(base / "configs")
    runs_and_data(base)


def videos(base: pathlib.Path) -> None:
    from tests.input_pipeline.face_videos import hum, picture, write

    frames = [picture(90 + t % 3)[:, :, :] for t in range(18)]
    write(base / "videos" / "a.mp4", frames, hum(18 / 25))
    import av

    with av.open(str(base / "videos" / "a.mp4")) as source:
        for suffix in (".mkv", ".ts", ".flv", ".mov"):
            source.seek(0)
            with av.open(str(base / "videos" / f"a{suffix}"), "w") as copy:
                streams = {
                    s.index: copy.add_stream_from_template(s) for s in source.streams
                }
                for packet in source.demux():
                    if packet.dts is not None:
                        packet.stream = streams[packet.stream.index]
                        copy.mux(packet)


def configs(folder: pathlib.Path) -> None:
    """Every field of an experiment, as --config.NAME=VALUE takes it, in a line."""
    from configs import smoke
    from jax_atvg.training.config import flatten

    fields = flatten(smoke.get_config("at")) | {
        "steps": 2,
        "batch_size": 8,  # the tests have eight devices
        "report_to": ("jsonl",),
    }
    lines = [f"{name}={value}" for name, value in fields.items()]
    (folder / "at.flags").write_text("\n".join(lines))


def runs_and_data(base: pathlib.Path) -> None:
    """A dataset of drawn clips, and two runs on it that have just begun."""
    import jax

    from configs import smoke
    from input_pipeline.training_data.fingerprint import fingerprint
    from input_pipeline.training_data.synthetic import SyntheticClips, write_dataset
    from jax_atvg.sharding import data_mesh
    from jax_atvg.training.checkpoint import Checkpoints
    from jax_atvg.training.train_step import build as build_step
    from jax_atvg.training.workdir import claim_workdir, open_workdir, save_pca

    clips = SyntheticClips(3, 20)
    write_dataset(base / "data", train=clips, validation=SyntheticClips(2, 20, seed=1))
    data = fingerprint(base / "data")
    for network in ("at", "vg"):
        config = smoke.get_config(network)
        config.data.synthetic = 2  # clips, which export draws
        pca = clips.pca(config.data.num_coefficients)
        state = build_step(config, data_mesh(jax.devices()[:1]), pca).init(0)
        workdir = open_workdir(base / "runs" / network)
        with claim_workdir(workdir, config, data):
            save_pca(workdir / "pca.npz", pca)
            checkpoints = Checkpoints(workdir, keep=2)
            checkpoints.save(1, state, {"next_batch": 1}, {"validation/loss": 1.0})
            checkpoints.close()
            (workdir / "metrics.jsonl").write_text('{"step": 1}\n')


# --- the commands ---


def animate(base: pathlib.Path, folder: pathlib.Path, **flags) -> list[str]:
    given = {
        "image": base / "pictures" / "a.png",
        "audio": base / "sounds" / "a.wav",
        "bundle": base / "bundle",
        "out": folder / "out.mp4",
    } | flags
    return ["animate", *(f"--{name}={value}" for name, value in given.items())]


def dub(base: pathlib.Path, path: pathlib.Path, folder: pathlib.Path) -> list[str]:
    return [
        "dub",
        f"--video={path}",
        f"--audio={base / 'sounds' / 'a.wav'}",
        f"--bundle={base / 'bundle'}",
        f"--out={folder / 'out.mp4'}",
    ]


def batch(base: pathlib.Path, path: pathlib.Path, folder: pathlib.Path) -> list[str]:
    text = path.read_bytes()
    for short, whole in (
        (b"P,", f"{base}/pictures/a.png,".encode()),
        (b"S,", f"{base}/sounds/a.wav,".encode()),
    ):
        text = text.replace(short, whole)
    path.write_bytes(text)
    return ["animate", f"--batch={path}", f"--bundle={base / 'bundle'}"]


def train(path: pathlib.Path, folder: pathlib.Path) -> list[str]:
    lines = path.read_text("utf-8", "replace").replace("\0", "").splitlines()
    fields = [f"--config.{line}" for line in lines]
    alone = "--coordinator=none"  # as of a second run in one process
    run = f"--workdir={folder / 'run'}"
    return ["train", "--config=smoke:at", run, alone, *fields]


def prepared(path: pathlib.Path, folder: pathlib.Path) -> Callable[[], None]:
    """Prepares a video as `prepare` does in a process of its own."""
    from input_pipeline.preparation.recording import Options, Recordings
    from input_pipeline.preparation.results import Job, finish, read_clips
    from tests.input_pipeline.face_videos import source

    def run() -> None:
        job = Job(folder / "work", Recordings(Options()))
        one = source(path, "folder")
        finished = finish(job, one)
        assert finished.clips or finished.rejects
        assert all(reject.reason != "error" for reject in finished.rejects), finished
        for clip in read_clips(job, one):
            assert len(clip.frames) == len(clip.landmarks) == len(clip.transforms)
            assert np.isfinite(clip.landmarks).all() and np.isfinite(clip.mfcc).all()
        shutil.rmtree(folder / "work")

    return run


def kinds(base: pathlib.Path) -> dict[str, Kind]:
    """All kinds, for files that `build` made in base."""
    one = functools.partial(animate, base)

    def beside(path: pathlib.Path, name: str) -> pathlib.Path:
        """The folder `name` that the changed file is in."""
        return next(p for p in path.parents if p.name == name)

    return {
        "picture": Kind("pictures", 0.27, lambda path, out: one(out, image=path)),
        "sound": Kind("sounds", 0.3, lambda path, out: one(out, audio=path)),
        "list": Kind("lists", 0.1, functools.partial(batch, base)),
        "bundle": Kind(
            "bundle", 0.12, lambda path, out: one(out, bundle=beside(path, "bundle"))
        ),
        "video": Kind("videos", 0.07, prepared, ()),
        "film": Kind("videos", 0.03, functools.partial(dub, base)),
        "run": Kind(
            "runs",
            0.05,
            lambda path, out: [
                "export",
                *(f"--{n}={beside(path, 'runs') / n}" for n in ("at", "vg")),
                f"--out={out / 'made'}",
            ],
            ("made",),
        ),
        "config": Kind("configs", 0.03, train, ("run",)),
        "dataset": Kind(
            "data",
            0.03,
            lambda path, out: [
                "inspect",
                f"--data_dir={beside(path, 'data')}",
                f"--out={out / 'seen'}",
            ],
            ("seen",),
        ),
    }


def contents(folder: pathlib.Path) -> dict[str, bytes]:
    """All files below a folder, by their paths in it."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def choose(kind: Kind, base: pathlib.Path, random: Random) -> pathlib.Path:
    """One of the kind's files, every one alike."""
    files = sorted(p for p in (base / kind.files).rglob("*") if p.is_file())
    return files[random.integers(len(files))]
