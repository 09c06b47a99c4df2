"""Half-done results: nothing in them runs, and damage is found whatever it is."""

import json
import zipfile

import numpy as np
import pytest

from input_pipeline.clip import Clip
from input_pipeline.preparation import results
from input_pipeline.preparation.corpora import Source
from input_pipeline.preparation.recording import Prepared, Reject
from input_pipeline.preparation.results import Job
from input_pipeline.preparation.sync import Sync


def clip(number: int) -> Clip:
    random = np.random.default_rng(number)
    frames = [random.bytes(n) for n in (40, 0, 25)]
    arrays = [random.standard_normal(s, np.float32) for s in [(3, 68, 2), (36, 13)]]
    transforms = random.standard_normal((3, 2, 3), np.float32)
    words = (("bin", 0.1, 1 / 3), ("é", 0.5, 0.7))
    return Clip(frames, *arrays, transforms, "grid", "s1", f"s1/{number}", words)


class Make:
    """Makes two clips of any file; counts how often."""

    def __init__(self, fail: bool = False):
        self.made, self.fail = 0, fail

    def key(self) -> str:
        return "key"

    def __call__(self, source, keep) -> Prepared:
        self.made += 1
        reject = Reject("a.mp4", "face lost", 7, 0.25)
        clips = [keep(clip(n)) for n in (0, 1)]
        assert not any(one.frames for one in clips)  # they are on disk
        if self.fail:
            return Prepared([], [Reject("a.mp4", "error", "later")])
        return Prepared(clips, [reject], Sync(2, 0.8, True))


@pytest.fixture
def job(tmp_path):
    return Job(tmp_path / "work", Make())


@pytest.fixture
def source(tmp_path):
    (tmp_path / "a.mp4").write_bytes(b"x")
    words = (("bin", 0.1, 1 / 3),)
    return Source(
        str(tmp_path / "a.mp4"), "a.mp4", "grid", "s1/0", "s1", "train", words
    )


def place(job):
    (path,) = (job.work / "clips").glob("*/*")
    return path


def assert_equal(got, expected):
    for name, value in expected._asdict().items():
        if name in results.ARRAYS:
            assert getattr(got, name).dtype == value.dtype
            np.testing.assert_array_equal(getattr(got, name), value)
        else:
            assert getattr(got, name) == value


def test_what_is_stored_comes_back(job, source):
    assert results.look_up(job, source) is None
    finished = results.finish(job, source)
    assert finished.clips == [("s1/0", 3, 65), ("s1/1", 3, 65)]
    assert results.look_up(job, source) == finished
    assert finished.rejects == [Reject("a.mp4", "face lost", 7, 0.25)]
    assert finished.sync == Sync(2, 0.8, True)
    for number, got in enumerate(results.read_clips(job, source)):
        assert_equal(got, clip(number))
    results.finish(job, source)
    assert job.make.made == 1
    before = place(job).read_bytes()
    results.store(job, source)
    assert place(job).read_bytes() == before  # also the same bytes


def test_an_error_after_the_first_clips_rejects_the_file(tmp_path, source):
    job = Job(tmp_path / "work", Make(fail=True))
    finished = results.finish(job, source)
    assert finished.clips == []
    assert [one.reason for one in finished.rejects] == ["error"]
    assert list(results.read_clips(job, source)) == []


def test_a_reject_alone_is_stored_without_preparing(job, source):
    died = Reject("a.mp4", "error", "the process that prepared it died")
    assert results.store(job, source, died) == results.look_up(job, source)
    assert results.look_up(job, source).rejects == [died]
    assert job.make.made == 0


def test_no_damage_of_a_byte_is_a_traceback_or_a_wrong_clip(job, source):
    """A thousand bytes of the file in turn, and a hundred lengths of it."""
    finished = results.finish(job, source)
    path = place(job)
    whole = path.read_bytes()
    random = np.random.default_rng(0)
    damaged = [whole[:n] for n in range(0, len(whole), len(whole) // 100)]
    for at in random.permutation(len(whole))[:1000]:
        one = bytearray(whole)
        one[at] ^= int(random.integers(1, 256))
        damaged.append(bytes(one))
    noticed = 0
    for data in damaged:
        path.write_bytes(data)
        found = results.look_up(job, source)
        assert found in (None, finished)
        for number, got in enumerate(results.read_clips(job, source)):
            assert_equal(got, clip(number))
        noticed += path.read_bytes() != data
    assert noticed > 0.9 * len(damaged)  # the rest are dates and the like


def test_a_result_that_stays_damaged_is_an_error(job, source, monkeypatch):
    results.finish(job, source)

    def fail(*_):
        raise results.Damaged("a.zip: no")

    monkeypatch.setattr(results, "_read_clip", fail)
    with pytest.raises(results.Damaged):
        list(results.read_clips(job, source))


def test_a_compressed_member_is_damage(job, source):
    """A few bytes might become gigabytes."""
    results.finish(job, source)
    with zipfile.ZipFile(place(job), "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr(results.SUMMARY, json.dumps([[], [], None]))
    assert results.look_up(job, source) is None


def test_lists_of_files_come_back(tmp_path, source):
    results.write_sources(tmp_path / "a", [(source, 3), (source._replace(words=()), 0)])
    assert results.read_sources(tmp_path / "a") == [
        (source, 3),
        (source._replace(words=()), 0),
    ]
