"""What is done for a visitor."""

import os
import pathlib
import shutil
import time

import av
import numpy as np
import pytest
import skimage.data
from PIL import Image

from input_pipeline.clip import InputError
from input_pipeline.faces import detection
from jax_atvg.inference.animate import animate_file
from jax_atvg.web import studio as studios
from jax_atvg.web.studio import Wishes
from jax_atvg.web.turns import Busy

FRAMES = 15  # of 0.6 s


@pytest.fixture
def folder(studio):
    return studio.new_folder()


def sizes(path):
    with av.open(str(path)) as container:
        (video,) = container.streams.video
        return video.width, video.height, video.frames


def first_frame(path):
    with av.open(str(path)) as container:
        return next(container.decode(video=0)).to_ndarray(format="rgb24").astype(int)


def test_the_video_is_that_of_animate(studio, brought, folder, tmp_path):
    told = []
    made = studio.animate(
        brought / "face.png",
        brought / "speech.wav",
        folder,
        tell=lambda share, text: told.append((share, text)),
    )
    animate_file(
        *(brought / name for name in ("face.png", "speech.wav")),
        tmp_path / "same.mp4",
        studio.networks,
    )
    assert made.video.read_bytes() == (tmp_path / "same.mp4").read_bytes()
    assert made.panels is None and told[-1] == (1.0, f"frame {FRAMES} of {FRAMES}")
    assert "512 x 512 pixels, the face 9" in made.about[0]
    assert "the face is small" in made.about[1]
    assert made.about[2] == f"sound: 0.6 s, {FRAMES} frames"
    assert made.about[-1].startswith("made in ")


def test_panels_and_the_whole_photo(studio, brought, folder):
    wishes = Wishes(full_frame=True, panels=True)
    made = studio.animate(brought / "face.png", brought / "speech.wav", folder, wishes)
    assert sizes(made.video) == (512, 512, FRAMES)
    assert sizes(made.panels) == (128, 32, FRAMES)


def test_a_large_photo_is_shown_smaller(studio, brought, folder, monkeypatch):
    """The face that moves is where it was: the rest of the picture is the photo's."""
    monkeypatch.setattr(studios, "LONGEST_SIDE", 256)
    photo, sound = brought / "face.png", brought / "speech.wav"
    made = studio.animate(photo, sound, folder, Wishes(full_frame=True))
    assert sizes(made.video) == (256, 256, FRAMES)
    assert "photo: 512 x 512 pixels" in made.about[0]
    assert "the photo is shown at 256 x 256 pixels" in made.about
    small = np.asarray(Image.open(photo).resize((256, 256))).astype(int)
    changed = np.abs(first_frame(made.video) - small).max(-1) > 60
    rows, columns = np.nonzero(changed)
    box = detection.detect(skimage.data.astronaut())[0]
    assert abs(np.median(columns) - box.centre[0] / 2) < box.width / 8
    assert abs(np.median(rows) - box.centre[1] / 2) < box.height / 4
    crop = studio.animate(photo, sound, folder)
    assert not [line for line in crop.about if "shown at" in line]


def test_points_stay_on_what_they_mark(monkeypatch):
    monkeypatch.setattr(studios, "LONGEST_SIDE", 100)
    picture = np.zeros((200, 400, 3), np.uint8)
    picture[80:84, 120:124] = 255
    points = np.full((68, 2), (121.5, 81.5), np.float32)
    small, moved = studios.shrunk(picture, points)
    assert small.shape == (50, 100, 3) and small[20, 30, 0] == 255
    np.testing.assert_allclose(moved, np.full((68, 2), (30, 20)), atol=1e-5)
    flat, _ = studios.shrunk(np.zeros((1, 1000, 3), np.uint8), points)
    assert flat.shape == (1, 100, 3)


def test_a_photo_that_browsers_do_not_show_becomes_a_jpeg(studio, brought, tmp_path):
    assert studio.viewable(brought / "face.png") is None
    photo = Image.fromarray(skimage.data.astronaut())
    turned = Image.Exif()
    turned[274] = 6
    photo.save(tmp_path / "a", "TIFF", exif=turned)
    shown = studio.viewable(tmp_path / "a")
    assert shown.is_relative_to(studio.folder)
    with Image.open(shown) as made:
        assert made.format == "JPEG" and not made.getexif()
        apart = np.subtract(made.convert("RGB"), photo.transpose(4), dtype=int)
    assert np.abs(apart).mean() < 2
    (tmp_path / "b").write_bytes(b"none")
    with pytest.raises(InputError, match="the photo: not a readable picture"):
        studio.viewable(tmp_path / "b")


def test_faces_are_counted_from_left_to_right(studio, brought, folder):
    left, right = studio.faces(brought / "two.png")
    for face, is_grey in ((left, False), (right, True)):
        assert min(face.shape[:2]) > 100
        assert (np.ptp(face.astype(int), -1).max() == 0) == is_grey
    files, points = (brought / "two.png", brought / "speech.wav", folder), []
    for which in ("0", "1"):
        made = studio.animate(*files, Wishes(which))
        points.append(np.ptp(first_frame(made.video), -1).mean())
    assert points[0] > 3 * points[1]  # how colourful the video is
    with pytest.raises(InputError, match="face=2 asked for, but 2 faces found"):
        studio.animate(*files, Wishes("2"))


@pytest.mark.parametrize(
    ("photo", "sound", "message"),
    [
        ("speech.wav", "speech.wav", "^the photo: not a readable picture"),
        ("face.png", "two.png", "^the sound: no sound in the file"),
        ("face.png", "none.wav", "^the sound: no such file"),
        ("face.png", "long.wav", "the sound is longer than 2 s; cut it"),
    ],
)
def test_errors_name_the_photo_and_the_sound(
    studio, brought, folder, photo, sound, message
):
    with pytest.raises(InputError, match=message) as found:
        studio.animate(brought / photo, brought / sound, folder)
    assert str(brought) not in str(found.value)
    assert not list(folder.iterdir()) and not studio.turns.queue


def test_a_job_ends_when_the_server_does(studio, brought, folder):
    def tell(share, text):
        studio.ended.set()

    files = brought / "face.png", brought / "speech.wav", folder
    for begun in (tell, lambda *_: pytest.fail("it has begun")):
        with pytest.raises(Busy, match="the server has been ended; try again later"):
            studio.animate(*files, tell=begun)
    assert not list(folder.iterdir()) and not studio.turns.queue


@pytest.mark.skipif(not studios.can_speak(), reason="espeak-ng is not installed")
def test_a_text_is_spoken(studio, folder):
    path = studio.speak("Good morning,\n everybody.", folder)
    assert path.parent == folder and len(studio.hear(path).windows) > 20


def test_a_text_that_cannot_be_spoken_is_told(studio, folder, monkeypatch):
    for text in (" ", "a" * 501):
        with pytest.raises(InputError, match="characters; write 1 to 500"):
            studio.speak(text, folder)
    monkeypatch.setattr(studios, "SPEAKER", "no-such-speaker")
    with pytest.raises(InputError, match="is not installed on this server"):
        studio.speak("Hello", folder)
    monkeypatch.setattr(studios, "SPEAKER", "false")
    if shutil.which("false"):
        with pytest.raises(InputError, match="cannot speak this text"):
            studio.speak("Hello", folder)
    assert not list(folder.iterdir())


@pytest.fixture
def later(studio, monkeypatch):
    """The time after which what lies in the folder now is old."""
    then = time.time() + 60 * studio.limits.minutes + 1
    return lambda: monkeypatch.setattr(studios.time, "time", lambda: then)


def test_what_is_old_and_not_kept_is_deleted(studio, later):
    with studio.job() as done, studio.job() as new:
        for folder in (done, new):
            (folder / "photo").write_bytes(b"x")
    broken_off, link = studio.folder / "upload", studio.folder / "link"
    broken_off.write_bytes(b"x")
    link.symlink_to("nowhere")
    example, mine = studio.folder / "example", studio.new_folder()
    example.mkdir()
    studio.kept.add(example)
    studio.tidy()
    assert done.exists() and broken_off.exists()
    later()
    os.utime(new / "photo", (studios.time.time(),) * 2)
    studio.tidy()
    assert {*studio.folder.iterdir()} == {new, example, mine} == {new, *studio.kept}


def test_a_job_that_is_not_done_is_kept(studio, later):
    later()
    with studio.job() as folder:
        studio.tidy()
        assert folder.exists()
    studio.tidy()
    assert not folder.exists() and not studio.kept


def test_a_job_that_fails_leaves_nothing(studio):
    with pytest.raises(KeyError), studio.job() as folder:
        (folder / "photo").write_bytes(b"x")
        raise KeyError
    assert not list(studio.folder.iterdir()) and not studio.kept


def test_what_others_delete_meanwhile_does_not_end_the_tidying(
    studio, later, monkeypatch
):
    gone, old = studio.folder / "a", studio.folder / "b"
    old.mkdir()
    later()
    with monkeypatch.context() as patch:
        patch.setattr(pathlib.Path, "iterdir", lambda path: iter([gone, old]))
        studio.tidy()
    assert not old.exists()


def test_folders_that_their_users_have_deleted_are_forgotten(studio, folder):
    folder.rmdir()
    studio.tidy()
    assert not studio.kept


def test_both_programs_are_compiled_before_the_first_visitor(studio, monkeypatch):
    wanted, predict = [], studio.networks.predict

    def watched(clips, maps):
        wanted.append(maps)
        return predict(clips, maps)

    monkeypatch.setattr(studio.networks, "predict", watched)
    studio.warm_up()
    assert wanted == [False, True]
