"""Stores the clips and rejects of finished files until the dataset is complete.

A result is stored whole or not at all, under a hash of all that it depends on.  A run
may therefore be killed at any moment, and the next one finds what is finished.
"""

import hashlib
import json
import os
import pathlib
import pickle
from typing import NamedTuple

from input_pipeline.clip import Clip
from input_pipeline.files import replacing
from input_pipeline.preparation.corpora import Source
from input_pipeline.preparation.recording import Prepared, Recordings, Reject
from input_pipeline.preparation.stills import Stills
from input_pipeline.preparation.sync import Sync
from input_pipeline.training_data import records


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
    return look_up(job, source) or store(job, source, job.make(source))


def _place(job: Job, source: Source) -> pathlib.Path:
    """The path of a file's result, named by a hash of all that it depends on."""
    try:
        about = os.stat(source.path)
        state = about.st_size, about.st_mtime_ns
    except OSError:  # a broken link, which becomes a reject
        state = ()
    text = json.dumps([records.VERSION, job.make.key(), source[1:], state])
    name = hashlib.sha256(text.encode()).hexdigest()[:32]
    return job.work / "clips" / name[:2] / name


def look_up(job: Job, source: Source) -> Finished | None:
    """What is known of the file; None if it is not finished or its result damaged."""
    path = _place(job, source)
    try:
        with open(path, "rb") as file:
            finished, size = pickle.load(file)
            whole = file.tell() + size == os.path.getsize(path)
    except (OSError, EOFError, pickle.UnpicklingError, ValueError, TypeError):
        return None
    return finished if whole else None


def read_clips(job: Job, source: Source) -> list[Clip]:
    """The clips of a finished file."""
    with open(_place(job, source), "rb") as file:
        pickle.load(file)
        return pickle.load(file)


def store(job: Job, source: Source, prepared: Prepared) -> Finished:
    """Stores a file's result."""
    clips = [
        (clip.clip_id, len(clip.frames), sum(map(len, clip.frames)))
        for clip in prepared.clips
    ]
    finished = Finished(clips, prepared.rejects, prepared.sync)
    body = pickle.dumps(prepared.clips)
    write_atomically(_place(job, source), pickle.dumps((finished, len(body))) + body)
    return finished


def write_atomically(path: pathlib.Path, data: bytes) -> None:
    """Writes the file whole or not at all, whenever the process is killed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as unfinished:
        unfinished.write_bytes(data)
