"""Many photos and recordings become videos, several of them at the same time.

The networks run over a batch with one row a video (rows.py).  While the devices compute
the next frames, threads write the ones before, a thread for each video, and another
thread prepares the photos and recordings whose turn comes next.
"""

import collections
import contextlib
import dataclasses
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, NamedTuple

from jax_atvg.inference.animate import Film, panels_path
from jax_atvg.inference.networks import Clip, Networks, Rendered
from jax_atvg.inference.options import Look
from jax_atvg.inference.perception import Perceived
from jax_atvg.inference.rows import Part


class Job(NamedTuple):
    """A video to make; the names are those of animate_file's arguments."""

    photo: str
    speech: str
    out: str
    perceived: Callable[[], Perceived] | None = None


class Playing(NamedTuple):
    """A job of which frames are being computed and written."""

    index: int
    film: Film
    recording: contextlib.AbstractContextManager
    write: Callable[[Rendered], None]


def animate_files(
    jobs: Sequence[Job], networks: Networks, *, panels: bool = False, **options: Any
) -> Iterator[tuple[int, list[os.PathLike] | Exception]]:
    """Makes the video of every job, `networks.batch_size` at a time.

    Yields (number of the job from 0 on, the paths written), or, of a job that cannot be
    done, (its number, the exception that animate_file would raise): in the order in
    which they end.  Jobs are begun in their own order, and each waits for earlier ones
    that write what it reads or read what it writes.  panels and options: see
    animate_file; the same for all jobs.
    """
    batch = Batch(jobs, networks, film_options(options) | {"panels": panels})
    try:
        for made in networks.predict(batch.clips(), panels):
            batch.write(made)
            yield from batch.take_ended()
        yield from batch.take_ended()
    except BaseException as error:
        batch.give_up(error)
        raise
    finally:
        batch.shut_down()


def film_options(options: dict[str, Any]) -> dict[str, Any]:
    """Options of animate_file -> those of a Film."""
    of_look = {field.name for field in dataclasses.fields(Look)} & set(options)
    rest = {name: value for name, value in options.items() if name not in of_look}
    return rest | {"look": Look(**{name: options[name] for name in of_look})}


class Batch:
    """The jobs of one call of animate_files, from waiting to ended.

    waiting -> ahead (being prepared) -> playing -> ended.  unfinished: of the jobs
    ahead or playing, what they read and what they write.
    """

    def __init__(self, jobs: Sequence[Job], networks: Networks, options: dict):
        self.networks, self.options = networks, options
        self.waiting = collections.deque(enumerate(jobs))
        self.ahead: collections.deque[tuple[int, Future]] = collections.deque()
        self.playing: dict[Clip, Playing] = {}
        self.ended: list[tuple[int, list[os.PathLike] | Exception]] = []
        self.unfinished: dict[int, tuple[set[str], set[str]]] = {}
        self.preparing = ThreadPoolExecutor(1)
        self.writing = ThreadPoolExecutor(networks.batch_size)

    def clips(self) -> Iterator[Clip | None]:
        """The clips for Networks.predict; None where one has to wait, or has failed."""
        while self.waiting or self.ahead:
            self.look_ahead()
            # Nothing is ahead where the next job waits for one that is playing.
            if not self.ahead or (self.playing and not self.ahead[0][1].done()):
                yield None
                continue
            index, prepared = self.ahead.popleft()
            self.look_ahead()  # it is prepared while this one plays
            yield self.begin(index, prepared)

    def look_ahead(self) -> None:
        """Has as many jobs prepared as there are rows, as far as they may be."""
        while self.waiting and len(self.ahead) < self.networks.batch_size:
            index, job = self.waiting[0]
            reads, writes = self.files(job)
            for others_read, others_write in self.unfinished.values():
                if writes & others_read or (reads | writes) & others_write:
                    return
            self.waiting.popleft()
            self.unfinished[index] = reads, writes
            self.ahead.append((index, self.preparing.submit(self.prepare, job)))

    def files(self, job: Job) -> tuple[set[str], set[str]]:
        """What a job reads and what it writes, behind all links."""
        writes = (
            [job.out, panels_path(job.out)] if self.options["panels"] else [job.out]
        )
        reads = job.photo, job.speech
        return set(map(os.path.realpath, reads)), set(map(os.path.realpath, writes))

    def prepare(self, job: Job) -> tuple[Film, Clip]:
        film = Film(*job[:3], perceived=job.perceived, **self.options)
        return film, film.read(self.networks.bundle)

    def begin(self, index: int, prepared: Future) -> Clip | None:
        """Opens the files of a job; None if it has failed."""
        try:
            film, clip = prepared.result()
            recording = film.recording()
            write = recording.__enter__()
        except Exception as error:
            self.end(index, error)
            return None
        self.playing[clip] = Playing(index, film, recording, write)
        return clip

    def end(self, index: int, result: list[os.PathLike] | Exception) -> None:
        del self.unfinished[index]
        self.ended.append((index, result))

    def write(self, made: list[tuple[Part, Rendered]]) -> None:
        """Writes frames of several videos, each in a thread, and ends those that are
        complete and those whose files cannot be written."""
        made = [(part, frames) for part, frames in made if part.clip in self.playing]

        def attempt(part: Part, frames: Rendered) -> Exception | None:
            try:
                self.playing[part.clip].write(frames)
            except Exception as error:
                return error
            return None

        errors = list(self.writing.map(lambda one: attempt(*one), made))
        for (part, _), error in zip(made, errors, strict=True):
            if error or part.last:
                self.close(part.clip, error)
        self.look_ahead()  # for jobs that waited for those that have ended

    def close(self, clip: Clip, error: BaseException | None = None) -> None:
        """Ends a job: its files get their names, or, with an error, are removed."""
        playing = self.playing.pop(clip)
        clip.given_up = True
        result = error or playing.film.paths
        trace = error and error.__traceback__
        try:
            playing.recording.__exit__(error and type(error), error, trace)
        except Exception as explained:
            result = explained
        self.end(playing.index, result)

    def take_ended(self) -> list[tuple[int, list[os.PathLike] | Exception]]:
        ended, self.ended = self.ended, []
        return ended

    def give_up(self, error: BaseException) -> None:
        """Removes all that is unfinished, once nobody writes to it any more."""
        self.writing.shutdown(cancel_futures=True)
        for clip in list(self.playing):
            with contextlib.suppress(BaseException):  # the first error is raised
                self.close(clip, error)

    def shut_down(self) -> None:
        self.preparing.shutdown(cancel_futures=True)
        self.writing.shutdown(cancel_futures=True)
