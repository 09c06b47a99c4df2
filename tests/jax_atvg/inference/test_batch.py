"""Many jobs at once: each video is what it is alone, and none disturbs another."""

import itertools
import os
from concurrent.futures import Future

import numpy as np
import pytest
import soundfile

from input_pipeline.clip import InputError
from input_pipeline.media.image import write_image
from input_pipeline.media.video import VideoWriter, read_frames
from jax_atvg.inference import animate, batch
from jax_atvg.inference.batch import Job, animate_files
from jax_atvg.inference.networks import Networks
from jax_atvg.inference.perception import Perceived, perceive
from tests.small_bundle import photo, photo_points, speech

SECONDS = {"a": 1.4, "b": 0.4, "c": 0.9, "d": 0.3, "e": 0.7}


@pytest.fixture
def files(tmp_path):
    """A folder with photo.png, flat.png and sounds a.wav to e.wav."""
    write_image(tmp_path / "photo.png", photo())
    write_image(tmp_path / "flat.png", np.full((90, 90, 3), 128, np.uint8))
    for seed, (name, seconds) in enumerate(SECONDS.items()):
        soundfile.write(tmp_path / f"{name}.wav", speech(seconds, seed=seed), 16000)
    return tmp_path


@pytest.fixture
def job(files):
    """Makes a job: of the photo and a sound, by its name, unless others are given."""

    def make(name, sound=None, image="photo.png", out=None, perceived=None):
        sound = files / (sound or f"{name}.wav")

        def found():
            from input_pipeline.media import audio

            return Perceived(photo_points(), audio.hear_file(sound))

        perceived = perceived or (found if image == "photo.png" else None)
        out = files / (out or f"{name}.mp4")
        return Job(str(files / image), str(sound), str(out), perceived)

    return make


class AtOnce:
    """An executor without threads."""

    def __init__(self, workers):
        self.map = map

    def submit(self, function, *arguments):
        future = Future()
        try:
            future.set_result(function(*arguments))
        except Exception as error:
            future.set_exception(error)
        return future

    def shutdown(self, cancel_futures):
        pass


@pytest.fixture
def in_order(monkeypatch):
    """Every job is prepared before the first is begun, as far as it may be."""
    monkeypatch.setattr(batch, "ThreadPoolExecutor", AtOnce)


def results(jobs, networks, **options):
    """{job's number: what became of it}, and the numbers in the order of their end."""
    ended = list(animate_files(jobs, networks, **options))
    return dict(ended), [index for index, _ in ended]


@pytest.fixture
def written(monkeypatch):
    """The frames that go into each video: {file name: list}."""
    frames, write = {}, VideoWriter.write

    def noted(self, frame):
        frames.setdefault(self.path.name, []).append(frame)
        write(self, frame)

    monkeypatch.setattr(VideoWriter, "write", noted)
    return frames


@pytest.mark.parametrize("options", [{}, {"panels": True, "full_frame": True}])
def test_every_video_is_that_of_animate_file(job, alone, three, written, options):
    jobs = [job(name) for name in SECONDS]
    ended, order = results(jobs, three, **options)
    assert sorted(order) == list(range(5))
    together = dict(written)
    written.clear()
    for index, one in enumerate(jobs):
        paths = animate.animate_file(
            *one[:3], alone, perceived=one.perceived, **options
        )
        assert ended[index] == paths
    assert set(together) == set(written)
    for name, frames in written.items():
        assert len(frames) == len(together[name])
        difference = np.abs(np.stack(together[name]).astype(int) - np.stack(frames))
        assert difference.max() <= 1


def test_a_video_that_cannot_be_made_leaves_the_others_alone(
    files, job, three, monkeypatch
):
    write = VideoWriter.write

    def full(self, frame):
        if self.path.name == "a.mp4" and self.count:
            raise OSError(28, "No space left on device")
        write(self, frame)

    monkeypatch.setattr(VideoWriter, "write", full)
    jobs = [
        job("a"),
        job("b", image="flat.png"),
        job("c"),
        job("d", sound="missing.wav"),
        job("e"),
        job("e", out="nowhere/e.mp4"),
        job("b", out="b.avi"),
        job("b", sound="own.mp4", out="own.mp4"),
    ]
    (files / "own.mp4").write_bytes((files / "b.wav").read_bytes())
    before = set(files.rglob("*"))
    ended, _ = results(jobs, three)
    made = {files / "c.mp4", files / "e.mp4"}
    assert set(files.rglob("*")) == before | made
    assert {2: [files / "c.mp4"], 4: [files / "e.mp4"]}.items() <= ended.items()
    for index, message in {
        0: "a.mp4: cannot be written (No space left on device); free some space",
        1: "flat.png: no face found",
        3: "missing.wav: no such file",
        5: "its folder does not exist",
        6: "b.avi: the video is an MP4",
        7: "own.mp4 is read, too; choose another name",
    }.items():
        assert isinstance(ended[index], InputError) and message in str(ended[index])
    assert [len(list(read_frames(path))) for path in sorted(made)] == [22, 18]


def test_no_more_frames_are_computed_of_a_video_that_cannot_be_written(
    job, three, monkeypatch
):
    def fail(self, frame):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(VideoWriter, "write", fail)
    calls, whole = [], Networks.predict

    def counted(self, clips, maps):
        for made in whole(self, clips, maps):
            calls.append(len(made))
            yield made

    monkeypatch.setattr(Networks, "predict", counted)
    results([job("a"), job("a", out="2.mp4")], three)
    assert sum(calls) <= 4  # of 6; the second call was under way when the first failed


def test_a_job_waits_for_what_it_reads_and_for_who_reads_what_it_writes(
    files, job, three, alone
):
    """2 takes up the video of 1, through a link; 3 replaces the sound of 2."""
    (files / "link.mp4").symlink_to(files / "first.mp4")
    (files / "new.mp4").write_bytes(b"")
    whole = (files / "first.mp4", files / "second.mp4")
    seen = []

    def then(number, path, *others):
        def found():
            seen.append((number, *(p.exists() for p in whole)))
            return perceive(files / "photo.png", path)

        return found

    jobs = [
        job("a", out="first.mp4"),
        job("b", "link.mp4", out="second.mp4", perceived=then(2, whole[0])),
        job("c", out="first.mp4", perceived=then(3, files / "c.wav")),
        job("d"),
    ]
    for networks in (three, alone):
        ended, order = results(jobs, networks)
        assert all(isinstance(paths, list) for paths in ended.values())
        assert [index for index in order if index != 3] == [0, 1, 2]
        assert seen == [(2, True, False), (3, True, True)]
        lengths = [len(list(read_frames(path))) for path in whole]
        assert lengths == [22, 35]
        seen.clear()
        for path in whole:
            path.unlink()


@pytest.mark.parametrize("rows", [1, 3])
def test_only_as_many_faces_are_found_ahead_as_there_are_rows(
    job, alone, three, in_order, rows
):
    networks = {1: alone, 3: three}[rows]
    begun, ended = itertools.count(), []
    most = []

    def counting(one):
        def found():
            most.append(next(begun) - len(ended))
            return one.perceived()

        return one._replace(perceived=found)

    jobs = [counting(job("b", out=f"{i}.mp4")) for i in range(10)]
    for index, _ in animate_files(jobs, networks):
        ended.append(index)
    assert sorted(ended) == list(range(10))
    # A row may play the next clip while the last frames of the one before are written.
    assert rows - 1 <= max(most) < 3 * rows


def test_the_next_video_is_prepared_before_the_first_begins(
    job, alone, in_order, written
):
    first, second = job("a"), job("b")
    seen = []

    def found():
        seen.append(dict(written))
        return second.perceived()

    results([first, second._replace(perceived=found)], alone)
    assert seen == [{}] and len(written["a.mp4"]) == 35


def test_videos_end_in_the_order_of_their_lengths(job, three, in_order):
    """35, 10 and 22 frames are 3, 1 and 2 calls; the fourth follows the second."""
    _, order = results([job("a"), job("b"), job("c"), job("b", out="4.mp4")], three)
    assert order[0] == 1 and set(order[1:3]) == {2, 3} and order[3] == 0


@pytest.mark.parametrize("kind", [KeyboardInterrupt, MemoryError])
def test_an_interruption_leaves_nothing_unfinished(
    files, job, three, monkeypatch, in_order, kind
):
    whole = Networks.predict

    def interrupted(self, clips, maps):
        yield from itertools.islice(whole(self, clips, maps), 2)
        raise kind

    monkeypatch.setattr(Networks, "predict", interrupted)
    before = set(os.listdir(files))
    with pytest.raises(kind):
        results([job("a"), job("b"), job("d")], three)
    assert set(os.listdir(files)) == before | {"b.mp4", "d.mp4"}


def test_a_caller_who_has_enough_leaves_nothing_unfinished(files, job, three, in_order):
    before = set(os.listdir(files))
    ended = animate_files([job("a"), job("d"), job("c")], three)
    assert next(ended) == (1, [files / "d.mp4"])
    assert any(".partial" in name for name in os.listdir(files))
    ended.close()
    assert set(os.listdir(files)) == before | {"d.mp4"}
