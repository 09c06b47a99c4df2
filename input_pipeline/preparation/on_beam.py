"""Prepares videos with Apache Beam, on this machine or on a cluster.

Every worker must see the videos and the data_dir under the same paths, as on a shared
file system.  Results are passed on as files in data_dir/.../work, so that a restarted
run continues where the last one stopped, as it does on one machine.
"""

import contextlib
import functools
import logging
import pathlib
from collections.abc import Iterator, Sequence
from typing import Any

from input_pipeline.clip import InputError
from input_pipeline.preparation.corpora import Source
from input_pipeline.preparation.results import Job, finish, read_sources, write_sources

DEFAULT_RUNNER = "DirectRunner"  # this machine
LISTS, LONGEST = 1024, 256  # at least so many lists of files, at most so long
# Beam knows its other runners by their names alone.
DASK = "apache_beam.runners.dask.dask_runner.DaskRunner"


class Beam:
    """The runner that uses Beam.

    options: those of Beam, as ["runner=FlinkRunner", "parallelism=64"].
    """

    def __init__(self, num_workers: int, options: Sequence[str]):
        logging.getLogger().addFilter(of_interest)
        try:
            from apache_beam.options.pipeline_options import (
                PipelineOptions,
                StandardOptions,
            )
            from apache_beam.runners import create_runner
        except ImportError as error:
            raise InputError(
                f"runner=beam: {error}; pip install -r requirements/beam.txt"
            ) from error
        flags = [f"--{option.removeprefix('--')}" for option in options]
        given = dict(flag.removeprefix("--").partition("=")[::2] for flag in flags)
        self.runner = given.get("runner", DEFAULT_RUNNER)
        if not given.keys() & {"runner", "direct_num_workers"} and num_workers > 1:
            flags.append(f"--direct_num_workers={num_workers}")
            flags.append("--direct_running_mode=multi_processing")
        if self.runner in ("DaskRunner", DASK):
            self.runner = DASK
            file = given.get("dask_scheduler_file")
            if file and not pathlib.Path(file).is_file():  # Dask would wait for ever
                raise InputError(
                    f"beam_options: dask_scheduler_file={file}: no such file; start "
                    "`dask scheduler --scheduler-file=...` first"
                )
            if not given.keys() & {"dask_npartitions", "dask_partition_size"}:
                flags.append("--dask_partition_size=1")  # else 128 lists are one task
        try:
            create_runner(self.runner)
        except (ValueError, ImportError, AttributeError, TypeError) as error:
            raise InputError(f"beam_options: runner={self.runner}: {error}") from error
        self.options = PipelineOptions(flags)
        self.options.view_as(StandardOptions).runner = self.runner

    def finish(self, job: Job, sources: Sequence[Source]) -> None:
        """Prepares all files that are not finished."""
        import apache_beam as beam

        lists = []  # kept in files: half a million names are too many for a pipeline
        length = min(max(len(sources) // LISTS, 1), LONGEST)
        for n in range(0, len(sources), length):
            lists.append(job.work / "files" / f"{n:08d}")
            some = sources[n : n + length]
            write_sources(lists[-1], [(source,) for source in some])
        with beam.Pipeline(options=self.options) as pipeline:
            (
                pipeline
                | "Lists" >> beam.Create(lists)
                | "Files" >> beam.FlatMap(_sources)
                | "Spread" >> beam.Reshuffle()  # a task a file, where an engine can
                | "Prepare" >> beam.Map(functools.partial(_finish, job))
            )

    @contextlib.contextmanager
    def explained(self) -> Iterator[None]:
        """Turns what a pipeline dies of into an InputError: each engine has its own
        exceptions, and they carry those of the workers."""
        try:
            yield
        except InputError:
            raise
        except Exception as error:
            text = (str(error).strip().splitlines() or [""])[-1][:300]
            raise InputError(
                f"runner=beam: the pipeline failed ({type(error).__name__}: {text}); "
                "what is finished is kept: give the same command again when the "
                "cause is mended"
            ) from error

    def write_config(self) -> dict[str, Any]:
        """Arguments of write_shards by which TFDS writes each shard in a task."""
        return {"beam_runner": self.runner, "beam_options": self.options}


def of_interest(record: logging.LogRecord) -> bool:
    """Whether a log record is shown: not Beam's warnings that packages of Google's
    cloud are not installed."""
    return "apitools" not in record.getMessage()


def _sources(path: pathlib.Path) -> list[Source]:
    return [source for (source,) in read_sources(path)]


def _finish(job: Job, source: Source) -> int:
    import cv2

    cv2.setNumThreads(1)
    return len(finish(job, source).clips)
