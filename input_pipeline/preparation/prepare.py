"""`prepare`: turns a corpus of videos into a dataset; restartable, deterministic.

    data_dir/atvg_clips/<corpus>/
        work/clips/ab/abcdef...     a finished file's clips and rejects
        work/staging/               the dataset while it is written
        <version>/                  the dataset; it appears when it is complete

A second run continues where the first was interrupted, however that happened.
"""

import collections
import contextlib
import errno
import functools
import hashlib
import itertools
import json
import os
import pathlib
import shutil
import warnings
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from input_pipeline import workers
from input_pipeline.clip import Clip, InputError, first_line
from input_pipeline.faces import align
from input_pipeline.files import locked, put_in_place
from input_pipeline.preparation import corpora, summary
from input_pipeline.preparation.corpora import Source
from input_pipeline.preparation.on_beam import Beam
from input_pipeline.preparation.recording import (
    DEFAULT_OPTIONS,
    Options,
    Recordings,
    Reject,
)
from input_pipeline.preparation.results import (
    Job,
    finish,
    look_up,
    read_clips,
    read_sources,
    store,
    write_atomically,
    write_sources,
)
from input_pipeline.preparation.stills import (
    StillOptions,
    Stills,
    choose_lenders,
    find_drivers,
)
from input_pipeline.preparation.sync import MODES, Listener
from input_pipeline.progress import Progress
from input_pipeline.training_data import dataset, records

SHARD_BYTES = 256 << 20
NOT_WRITABLE = {errno.EACCES, errno.EROFS, errno.ENOTDIR, errno.EEXIST, errno.ENOLCK}


def prepare(
    corpus: str,
    source: str | os.PathLike,
    data_dir: str | os.PathLike,
    options: Options = DEFAULT_OPTIONS,
    *,
    split_rule: str = "",
    test_speakers: Sequence[str] = (),
    validation_clips: Sequence[str] = (),
    limit: int = 0,
    num_workers: int | None = None,
    runner: str = "local",
    beam_options: Sequence[str] = (),
    listener: Listener | None = None,
) -> pathlib.Path:
    """Prepares every video of a corpus and returns the dataset's folder.

    split_rule, test_speakers, validation_clips: see corpora.survey.
    limit: only so many files, the first ones, for a trial; 0: all.
    num_workers: processes; None: one per core.
    runner: "local" for processes on this machine, or "beam" for Apache Beam, with its
    beam_options.  listener: who hears whether the sound is in step; needed unless
    options.sync is off.
    InputError: see corpora.walk; another run uses the folder; it was made with other
    flags or files; there is no training clip; the disk is full.
    """
    if runner not in RUNNERS:
        raise InputError(f"runner={runner}: choose one of {', '.join(RUNNERS)}")
    if num_workers is None:
        num_workers = workers.cores()
    if num_workers < 1 or limit < 0:
        raise InputError(
            f"workers={num_workers} limit={limit}: must be 1 and 0 at least; "
            "leave them out for all cores and all files"
        )
    if options.sync != "off" and corpus in records.STILLS:
        raise InputError(f"sync={options.sync}: photos have no sound; leave it out")
    if options.sync not in MODES:
        raise InputError(f"sync={options.sync}: choose one of {', '.join(MODES)}")
    sources, others = corpora.survey(
        corpus, source, split_rule, test_speakers, validation_clips
    )
    if others:
        named = ", ".join(f"{n} {suffix}" for suffix, n in others.items())
        print(f"left out, as their names do not end in {_some(corpus)}: {named}")
    sources = sources[: limit or None]
    make = Recordings(options, listener if options.sync != "off" else None)
    if corpus in records.STILLS:
        make = stills_of(sources, data_dir, options)
    home = pathlib.Path(data_dir).expanduser().absolute() / records.NAME / corpus
    final, work = home / records.VERSION, home / "work"
    settings = {
        "flags": {
            "corpus": corpus,
            "split_rule": split_rule or corpora.RULES[corpus][0],
            "test_speakers": sorted(test_speakers),
            "limit": limit,
        }
        | ({"validation_clips": sorted(validation_clips)} if validation_clips else {}),
        "options": make.as_json(),
        "files": _fingerprint(sources),
    }
    with _disk_errors(home), _locked(home):
        if final.exists():
            _compare(settings, final, ("flags", "options", "files"))
            shutil.rmtree(work, ignore_errors=True)
            print(f"{final}: already prepared; delete it to prepare it again")
            return final
        if (work / "options.json").exists():
            _compare(settings, work, ("flags", "options"))
        (work / "clips").mkdir(parents=True, exist_ok=True)
        write_atomically(work / "options.json", json.dumps(settings).encode())
        job = Job(work, make)
        run = RUNNERS[runner](num_workers, beam_options)
        with run.explained(), _disk_errors(home):
            run.finish(job, sources)
        statistics = _assemble(job, sources, settings, final, run)
        shutil.rmtree(work, ignore_errors=True)
    print(f"\n{summary.table(statistics)}\n\nwrote {final}")
    if "validation" not in statistics["splits"]:
        warnings.warn(
            "no clip for validation, which `train` and `evaluate` need; prepare more "
            "files, or with another --split_rule",
            stacklevel=2,
        )
    return final


def _some(corpus: str) -> str:
    """A few of the suffixes that are read."""
    return ", ".join(corpora.USED[corpus][:3]) + " ..."


def stills_of(
    sources: Sequence[Source], data_dir: str | os.PathLike, options: Options
) -> Stills:
    """How photos are prepared: with the movements of the videos in data_dir.

    InputError: there are no videos, or they were aligned to another template.
    """
    drivers = find_drivers(data_dir)
    ours = align.template_as_json(options.template)
    for folder in drivers:
        if dataset.read_options(pathlib.Path(folder))["options"]["template"] != ours:
            raise InputError(
                f"{folder}: its faces were aligned to another template; give the "
                "--template that it was prepared with"
            )
    chosen = StillOptions(options.several_faces, options.template)
    return Stills(chosen, drivers, choose_lenders(sources))


def _fingerprint(sources: Sequence[Source]) -> str:
    """The number of files and a hash of their names and sizes."""
    lines = [f"{one.name}\0{corpora.size(one)}" for one in sources]
    digest = hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]
    return f"{len(sources)} files, {digest}"


def _compare(settings: dict, folder: pathlib.Path, keys: Sequence[str]) -> None:
    """Compares settings with the folder's.  InputError: some of these keys differ, or
    the folder's are damaged."""
    path, now = folder / "options.json", json.loads(json.dumps(settings))
    try:
        found = json.loads(path.read_text())
        before = {key: type(now[key])(found[key]) for key in keys}
    except (FileNotFoundError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{path}: damaged ({type(error).__name__}: {first_line(error)}); delete "
            f"{folder} to prepare it again, or choose another --data_dir"
        ) from error
    differences = []
    for key in keys:
        old, new = before[key], now[key]
        if isinstance(old, str):
            old, new = {key: old}, {key: new}
        # What is missing was not yet known, or is left out because it does nothing.
        unknown = {"sync": "off", "blinks": False} if key == "options" else {}
        old, new = (unknown | one for one in (old, new))
        differences += [
            f"another {name}"
            if isinstance(new.get(name), dict)
            else f"{name}={old.get(name)} (now {new.get(name)})"
            for name in old | new
            if old.get(name) != new.get(name)
        ]
    if differences:
        raise InputError(
            f"{folder}: made with {', '.join(differences)}; "
            "delete it, or choose another --data_dir"
        )


@contextlib.contextmanager
def _locked(home: pathlib.Path) -> Iterator[None]:
    home.mkdir(parents=True, exist_ok=True)
    with locked(home, "preparing it", "--data_dir"):
        yield


@contextlib.contextmanager
def _disk_errors(home: pathlib.Path) -> Iterator[None]:
    """Turns the errors of a full or unwritable disk into an InputError."""
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        # Not only OSError: ArrayRecord and Beam wrap it in errors of their own.
        full = getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT)
        if full or os.strerror(errno.ENOSPC) in str(error):
            raise InputError(
                f"{home}: the disk is full; make room and run the same command again, "
                "what is finished is kept"
            ) from error
        if isinstance(error, OSError) and error.errno in NOT_WRITABLE:
            raise InputError(
                f"{home}: cannot be written ({error.strerror}); choose another "
                "--data_dir"
            ) from error
        raise


# --- the runners ---


class Local:
    """The runner that uses processes on this machine."""

    def __init__(self, num_workers: int, _: Sequence[str]):
        self.num_workers = num_workers

    def finish(self, job: Job, sources: Sequence[Source]) -> None:
        """Prepares all files that are not finished."""
        todo, rejects = [], 0
        for source in sources:
            finished = look_up(job, source)
            if finished is None:
                todo.append(source)
            else:
                rejects += len(finished.rejects)
        if len(todo) < len(sources):
            print(f"{len(sources) - len(todo)} of {len(sources)} files are finished")
        work = functools.partial(finish, job)
        with Progress(len(sources), "file", initial=len(sources) - len(todo)) as bar:
            for source, finished in workers.for_each(work, todo, self.num_workers):
                if isinstance(finished, workers.Died):
                    why = "the process that prepared it died"
                    reject = Reject(source.name, "error", why)
                    finished = store(job, source, reject)
                rejects += len(finished.rejects)
                bar.show(rejects=rejects)
                bar.update()

    explained = contextlib.nullcontext  # see Beam

    def write_config(self) -> dict[str, Any]:
        """Further arguments of write_shards."""
        return {}


RUNNERS = {"local": Local, "beam": Beam}


# --- the dataset ---


def _assemble(
    job: Job,
    sources: Sequence[Source],
    settings: dict,
    final: pathlib.Path,
    run: Local | Beam,
) -> dict:
    """Makes the dataset of the finished files; its folder appears all at once."""
    splits = {split: [] for split in dataset.SPLITS}
    rejects = []
    for source in sources:
        finished = look_up(job, source)
        if finished is None:
            raise InputError(
                f"{source.path}: changed while it was prepared; "
                "run the same command again"
            )
        rejects += finished.rejects
        splits[source.split] += [
            (source, i, *clip, finished.sync) for i, clip in enumerate(finished.clips)
        ]
    if not splits["train"]:
        counts = collections.Counter(reject.reason for reject in rejects)
        reasons = ", ".join(f"{why} {n}" for why, n in sorted(counts.items()))
        raise InputError(
            f"{final.parent}: no clip for training among {len(sources)} files "
            f"(rejects: {reasons or 'none'}); give more files, or another --split_rule"
        )
    splits = {split: clips for split, clips in splits.items() if clips}
    staging = job.work / "staging"
    shutil.rmtree(staging, ignore_errors=True)
    shards = {
        split: [
            functools.partial(_read_shard, job, _list(job, f"{split}-{n:05d}", shard))
            for n, shard in enumerate(_shards(clips))
        ]
        for split, clips in splits.items()
    }
    corpus = settings["flags"]["corpus"]
    with run.explained(), _disk_errors(final.parent):
        folder = records.write_shards(staging, corpus, shards, **run.write_config())
    statistics = summary.describe(
        folder,
        {
            split: [
                (clip_id, source.speaker, n, sync)
                for source, _, clip_id, n, _, sync in clips
            ]
            for split, clips in splits.items()
        },
        sorted(rejects, key=lambda reject: (reject.path, reject.start)),
        settings,
    )
    put_in_place(folder, final)
    return statistics


def _shards(clips: Iterable[tuple]) -> list[list[tuple[Source, int]]]:
    """Distributes clips in order; a new shard begins whenever one is full."""
    shards, size = [[]], 0
    for source, i, _, _, num_bytes, _ in clips:
        if size + num_bytes > SHARD_BYTES and shards[-1]:
            shards.append([])
            size = 0
        shards[-1].append((source, i))
        size += num_bytes
    return shards


def _list(job: Job, name: str, shard: list[tuple[Source, int]]) -> pathlib.Path:
    """Lists a shard's clips in a file: their names are too many to pass to a task."""
    path = job.work / "shards" / name
    write_sources(path, shard)
    return path


def _read_shard(job: Job, path: pathlib.Path) -> Iterator[Clip]:
    """The clips that the file lists."""
    for source, shard in itertools.groupby(read_sources(path), lambda one: one[0]):
        yield from read_clips(job, source, [number for _, number in shard])
