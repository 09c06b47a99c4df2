"""Stores the clips and rejects of finished files until the dataset is complete.

A result is stored whole or not at all, under a hash of all that it depends on.  A run
may therefore be killed at any moment, and the next one finds what is finished.  A
result is a ZIP of numpy arrays and JSON: reading it runs no code, its checksums tell
damage, and clips are written and read one by one.
"""

import hashlib
import json
import os
import pathlib
import zipfile
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from input_pipeline.clip import Clip
from input_pipeline.files import replacing
from input_pipeline.preparation.corpora import Source
from input_pipeline.preparation.recording import Recordings, Reject
from input_pipeline.preparation.stills import Stills
from input_pipeline.preparation.sync import Sync
from input_pipeline.training_data import records

SUMMARY = "finished.json"  # the member that is written last
ARRAYS = ("landmarks", "mfcc", "transforms")
NAMES = ("corpus", "speaker", "clip_id", "words")
OLDEST_DATE = (1980, 1, 1, 0, 0, 0)  # of members: equal clips give equal bytes


class Finished(NamedTuple):
    """What is known of a finished file without reading its clips.

    clips: (clip_id, number of frames, bytes) of each.  sync: of the file's sound, where
    that was looked at.
    """

    clips: list[tuple[str, int, int]]
    rejects: list[Reject]
    sync: Sync | None = None


class Job(NamedTuple):
    """What a worker needs besides the file's Source.  make: source -> Prepared."""

    work: pathlib.Path
    make: Recordings | Stills


def finish(job: Job, source: Source) -> Finished:
    """Prepares a file unless its result is stored; this is what workers do."""
    return look_up(job, source) or store(job, source)


def _place(job: Job, source: Source) -> pathlib.Path:
    """The path of a file's result, named by a hash of all that it depends on."""
    try:
        about = os.stat(source.path)
        state = about.st_size, about.st_mtime_ns
    except OSError:  # a broken link, which becomes a reject
        state = ()
    text = json.dumps([records.VERSION, job.make.key(), source[1:], state])
    name = hashlib.sha256(text.encode()).hexdigest()[:32]
    return job.work / "clips" / name[:2] / f"{name}.zip"


# --- writing ---


def store(job: Job, source: Source, reject: Reject | None = None) -> Finished:
    """Prepares a file and stores the result; with `reject`, stores just that."""
    path = _place(job, source)
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as unfinished, zipfile.ZipFile(unfinished, "w") as file:
        written = []

        def keep(clip: Clip) -> Clip:
            _write_clip(file, len(written), clip)
            size = sum(map(len, clip.frames))
            written.append((clip.clip_id, len(clip.frames), size))
            return clip._replace(frames=[])

        finished = Finished([], [reject] if reject else [])
        if reject is None:
            prepared = job.make(source, keep)
            used = written[: len(prepared.clips)]  # none, if an error came later
            finished = Finished(used, prepared.rejects, prepared.sync)
        _write(file, SUMMARY, json.dumps(finished).encode())
    return finished


def _write_clip(file: zipfile.ZipFile, number: int, clip: Clip) -> None:
    sizes = np.array([len(frame) for frame in clip.frames], np.int64)
    arrays = {"sizes": sizes} | {name: getattr(clip, name) for name in ARRAYS}
    names = {name: getattr(clip, name) for name in NAMES}
    _write(file, f"{number}/names.json", json.dumps(names).encode())
    for name, array in arrays.items():
        with _member(file, f"{number}/{name}.npy") as member:
            np.lib.format.write_array(member, np.asarray(array), allow_pickle=False)
    with _member(file, f"{number}/frames") as member:
        for frame in clip.frames:
            member.write(frame)


def _write(file: zipfile.ZipFile, name: str, data: bytes) -> None:
    with _member(file, name) as member:
        member.write(data)


def _member(file: zipfile.ZipFile, name: str):
    return file.open(zipfile.ZipInfo(name, OLDEST_DATE), "w", force_zip64=True)


def write_atomically(path: pathlib.Path, data: bytes) -> None:
    """Writes the file whole or not at all, whenever the process is killed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as unfinished:
        unfinished.write_bytes(data)


# --- reading ---


class Damaged(Exception):
    """A stored result is not what was written."""


def look_up(job: Job, source: Source) -> Finished | None:
    """What is known of the file; None if it is not finished or its result damaged."""
    try:
        with _opened(_place(job, source)) as file:
            return _finished(_read(file, SUMMARY))
    except Damaged:
        return None


def read_clips(
    job: Job, source: Source, numbers: Iterable[int] | None = None
) -> Iterator[Clip]:
    """The clips of a finished file, one by one; all, or those of these numbers.

    A result that turns out to be damaged is made again, once.
    """
    finished = look_up(job, source) or store(job, source)
    made_again = False
    for number in range(len(finished.clips)) if numbers is None else numbers:
        try:
            clip = _read_clip(_place(job, source), number)
        except Damaged:
            if made_again:
                raise
            made_again = True
            store(job, source)
            clip = _read_clip(_place(job, source), number)
        yield clip


def _read_clip(path: pathlib.Path, number: int) -> Clip:
    """Damaged: it is not as it was written."""
    import io

    with _opened(path) as file:
        try:
            names = json.loads(_read(file, f"{number}/names.json"))
            arrays = {
                name: np.lib.format.read_array(
                    io.BytesIO(_read(file, f"{number}/{name}.npy")), allow_pickle=False
                )
                for name in ("sizes", *ARRAYS)
            }
            data = _read(file, f"{number}/frames")
            ends = np.cumsum(arrays.pop("sizes"))
            starts = ends - np.diff(ends, prepend=0)
            frames = [data[a:b] for a, b in zip(starts, ends, strict=True)]
            names["words"] = tuple((w, a, b) for w, a, b in names["words"])
            return Clip(frames=frames, **arrays, **names)
        except (ValueError, KeyError, TypeError) as error:
            raise Damaged(f"{path}: {error}") from error


def _opened(path: pathlib.Path) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(path)
    except Exception as error:  # zipfile raises many kinds for one wrong byte
        raise Damaged(f"{path}: {error}") from error


def _read(file: zipfile.ZipFile, name: str) -> bytes:
    """A member, whose checksum is right."""
    try:
        if file.getinfo(name).compress_type != zipfile.ZIP_STORED:
            raise Damaged(f"{name}: compressed")  # a few bytes might become many
        return file.read(name)
    except Exception as error:
        raise Damaged(f"{name}: {error}") from error


def _finished(text: bytes) -> Finished:
    """Damaged: the text is not what _write made of a Finished."""
    try:
        clips, rejects, sync = json.loads(text)
        return Finished(
            [(str(name), int(frames), int(size)) for name, frames, size in clips],
            [Reject(*reject) for reject in rejects],
            sync and Sync(*sync),
        )
    except (ValueError, TypeError) as error:
        raise Damaged(str(error)) from error


# --- lists of files, for workers on other machines ---


def write_sources(path: pathlib.Path, sources: Sequence[tuple[Any, ...]]) -> None:
    """Writes (source, ...) tuples, of which all but the source are plain values."""
    write_atomically(path, json.dumps(sources).encode())


def read_sources(path: pathlib.Path) -> list[tuple[Any, ...]]:
    """What write_sources wrote."""
    found = []
    for (*fields, words), *rest in json.loads(path.read_bytes()):
        spans = tuple((word, a, b) for word, a, b in words)
        found.append((Source(*fields, words=spans), *rest))
    return found
