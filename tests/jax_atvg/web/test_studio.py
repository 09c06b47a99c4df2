"""What is done for a visitor."""

import os
import shutil
import time

import av
import numpy as np
import pytest

from input_pipeline.clip import InputError
from jax_atvg.inference.animate import animate_file
from jax_atvg.web import studio as studios
from jax_atvg.web.studio import Wishes

FRAMES = 15  # of 0.6 s


def test_the_video_is_that_of_animate(studio, brought, tmp_path):
    told = []
    made = studio.animate(
        brought / "face.png",
        brought / "speech.wav",
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


def test_panels_and_the_whole_photo(studio, brought):
    wishes = Wishes(full_frame=True, panels=True)
    made = studio.animate(brought / "face.png", brought / "speech.wav", wishes)
    for path, size in ((made.video, (512, 512)), (made.panels, (128, 32))):
        with av.open(str(path)) as container:
            (video,) = container.streams.video
            assert (video.width, video.height, video.frames) == (*size, FRAMES)


def test_faces_are_counted_from_left_to_right(studio, brought):
    left, right = studio.faces(brought / "two.png")
    for face, is_grey in ((left, False), (right, True)):
        assert min(face.shape[:2]) > 100
        assert (np.ptp(face.astype(int), -1).max() == 0) == is_grey
    points = []
    for which in ("0", "1"):
        made = studio.animate(
            brought / "two.png", brought / "speech.wav", Wishes(which)
        )
        with av.open(str(made.video)) as container:
            frame = next(container.decode(video=0)).to_ndarray(format="rgb24")
        points.append(np.ptp(frame.astype(int), -1).mean())
    assert points[0] > 3 * points[1]  # how colourful the video is
    with pytest.raises(InputError, match="face=2 asked for, but 2 faces found"):
        studio.animate(brought / "two.png", brought / "speech.wav", Wishes("2"))


@pytest.mark.parametrize(
    ("photo", "sound", "message"),
    [
        ("speech.wav", "speech.wav", "^the photo: not a readable picture"),
        ("face.png", "two.png", "^the sound: no sound in the file"),
        ("face.png", "none.wav", "^the sound: no such file"),
        ("face.png", "long.wav", "the sound is longer than 2 s; cut it"),
    ],
)
def test_errors_name_the_photo_and_the_sound_and_leave_nothing(
    studio, brought, photo, sound, message
):
    with pytest.raises(InputError, match=message) as found:
        studio.animate(brought / photo, brought / sound)
    assert str(brought) not in str(found.value)
    assert not list(studio.folder.iterdir()) and not studio.turns.queue


@pytest.mark.skipif(not studios.can_speak(), reason="espeak-ng is not installed")
def test_a_text_is_spoken(studio, brought):
    path = studio.speak("Good morning,\n everybody.")
    assert len(studio.hear(path).windows) > 20


def test_a_text_that_cannot_be_spoken_is_told(studio, monkeypatch):
    for text in (" ", "a" * 501):
        with pytest.raises(InputError, match="characters; write 1 to 500"):
            studio.speak(text)
    monkeypatch.setattr(studios, "SPEAKER", "no-such-speaker")
    with pytest.raises(InputError, match="is not installed on this server"):
        studio.speak("Hello")
    monkeypatch.setattr(studios, "SPEAKER", "false")
    if shutil.which("false"):
        with pytest.raises(InputError, match="cannot speak this text"):
            studio.speak("Hello")
    assert not list(studio.folder.iterdir())


def test_what_is_old_is_deleted(studio, monkeypatch):
    old, new = studio.new_folder(), studio.new_folder()
    (old / "photo").write_bytes(b"x")
    studio.tidy()
    assert old.exists()
    later = time.time() + 60 * studio.limits.minutes + 1
    os.utime(new, (later, later))
    monkeypatch.setattr(studios.time, "time", lambda: later)
    studio.tidy()
    assert not old.exists() and new.exists()


def test_both_programs_are_compiled_before_the_first_visitor(studio, monkeypatch):
    wanted, predict = [], studio.networks.predict

    def watched(clips, maps):
        wanted.append(maps)
        return predict(clips, maps)

    monkeypatch.setattr(studio.networks, "predict", watched)
    studio.warm_up()
    assert wanted == [False, True]
