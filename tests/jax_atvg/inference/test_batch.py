"""Several clips at once: each is what it is alone, and none disturbs another."""

import itertools
import os
from concurrent.futures import Future

import jax
import numpy as np
import pytest
import soundfile

from input_pipeline.clip import InputError
from input_pipeline.media.image import to_u8, write_image
from input_pipeline.media.video import VideoWriter, read_frames
from jax_atvg.inference import animate, batch
from jax_atvg.inference.batch import Job, animate_files
from jax_atvg.inference.networks import CHUNK, Clip, Networks, compiled_predict
from jax_atvg.inference.perception import Perceived, perceive
from jax_atvg.inference.predict import Photo, predict
from jax_atvg.sharding import data_mesh
from tests.small_bundle import photo, photo_points, small_bundle, speech

SECONDS = {"a": 1.4, "b": 0.4, "c": 0.9, "d": 0.3, "e": 0.7}


@pytest.fixture(scope="module")
def bundle():
    return small_bundle()


@pytest.fixture(scope="module")
def alone(bundle):
    return Networks(bundle)


@pytest.fixture(scope="module")
def three(bundle):
    return Networks(bundle, 3)


@pytest.fixture(scope="module")
def clips(bundle):
    """Makes five clips of different lengths and photos, of which one is still."""
    subject = animate.read_subject(photo(), bundle).photo

    def make():
        random = np.random.default_rng(0)
        for still, frames in ((0, 37), (0, 5), (1, 16), (0, 20), (0, 1)):
            other = Photo(*(x + np.float32(0.1 * random.normal()) for x in subject))
            windows = random.normal(size=(frames, 28, 12)).astype(np.float32)
            yield Clip(other, windows, bool(still))

    return lambda: list(make())


def made_of(networks, clips, maps=True):
    """What the networks make of each clip, joined."""
    parts = {clip: [] for clip in clips}
    for made in networks.predict(clips, maps):
        for part, rendered in made:
            parts[part.clip].append(rendered)
    joined = (jax.tree.map(lambda *x: np.concatenate(x), *p) for p in parts.values())
    return list(joined)


# The networks


@pytest.mark.parametrize(("rows", "devices"), [(3, 1), (4, 2), (8, 1)])
def test_each_clip_is_what_it_is_alone(bundle, alone, clips, rows, devices):
    mesh = data_mesh(jax.devices()[:devices])
    together = made_of(Networks(bundle, rows, mesh), clips())
    for clip, got in zip(clips(), together, strict=True):
        (expected,) = made_of(alone, [clip])
        np.testing.assert_allclose(got.landmarks, expected.landmarks, atol=1e-5)
        for name in ("frames", "attention", "color"):
            a, b = (getattr(x, name).astype(int) for x in (got, expected))
            assert a.shape == b.shape and np.abs(a - b).max() <= 1


def test_of_one_program_it_is_that_to_the_bit(three, clips):
    """Neither the other rows nor what the row played before have a say."""
    together = made_of(three, clips())
    for clip, got in zip(clips(), together, strict=True):
        (expected,) = made_of(three, [clip])
        jax.tree.map(np.testing.assert_array_equal, got, expected)


def test_what_is_shown_are_the_bytes_of_the_networks_floats(bundle, alone, clips):
    """As `predict` computes them, in one piece."""
    clip = clips()[0]
    (got,) = made_of(alone, [clip])
    sizes, weights = (bundle.at_net, bundle.vg_net), alone.weights
    networks = jax.jit(predict, static_argnums=(0, 1, 2))
    floats = networks(*sizes, False, weights, clip.photo, clip.windows[None])
    for name, expected in (
        ("frames", floats.frames[0]),
        ("color", floats.color[0]),
        ("attention", 2 * floats.attention[0, ..., 0] - 1),
    ):
        shown = getattr(got, name)
        assert shown.dtype == np.uint8
        difference = np.abs(shown.astype(int) - to_u8(np.asarray(expected)))
        assert difference.max() <= 1 and (difference > 0).mean() < 1e-3
    np.testing.assert_allclose(got.landmarks, floats.landmarks[0], atol=1e-5)


def test_a_device_makes_the_bytes_that_the_host_makes():
    """Halves included, which are rounded to even."""
    halves = (np.arange(-3, 260) + 0.5) / 127.5 - 1
    random = np.random.default_rng(0).uniform(-1.1, 1.1, 100_000)
    floats = np.concatenate([halves, random]).astype(np.float32)
    np.testing.assert_array_equal(jax.jit(to_u8)(floats), to_u8(floats))


def program(networks, maps):
    return compiled_predict(*networks.sizes, networks.mesh, maps)


def lowered(networks, clip, maps):
    batch = jax.tree.map(lambda x: np.repeat(x, networks.batch_size, 0), clip.photo)
    flags = np.zeros(networks.batch_size, bool)
    windows = np.zeros((networks.batch_size, CHUNK, 28, 12), np.float32)
    arguments = (batch, flags, flags, windows, networks._first_state())
    return program(networks, maps).lower(networks.weights, *arguments)


def test_no_picture_is_computed_that_nobody_asked_for(three, clips):
    """What one call hands over, in bytes: 3 clips of 16 frames of 32 x 32 pixels."""

    def handed_over(maps):
        made, _ = lowered(three, clips()[0], maps).out_info
        return sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(made))

    pixels, points = 3 * 16 * 32 * 32, 3 * 16 * 136
    assert handed_over(maps=False) == 3 * pixels + 4 * points
    assert handed_over(maps=True) == (3 + 3 + 1) * pixels + 4 * points


def test_the_state_is_donated(three, clips):
    """Its memory becomes that of the next state."""
    compiled = lowered(three, clips()[0], False).compile()
    state = jax.tree.leaves(three._first_state())
    assert compiled.memory_analysis().alias_size_in_bytes == sum(
        x.nbytes for x in state
    )


def test_a_recurrence_over_the_batch_plays_one_clip_at_a_time(clips):
    """It would mix them."""
    over_the_batch = small_bundle(recurrence="batch")
    networks = Networks(over_the_batch, 3)
    assert networks.batch_size == 1
    parts = [[part for part, _ in made] for made in networks.predict(clips()[:2])]
    assert [len(made) for made in parts] == [1] * 4
    order = [made[0].clip for made in parts]
    assert len(set(order)) == 2 and order == sorted(order, key=order.index)


# The files


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
    ]
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
