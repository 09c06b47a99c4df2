"""dub: a video and a sound become a video, or one line says why not."""

import numpy as np
import pytest

from jax_atvg.cli import dub
from tests.input_pipeline import face_videos
from tests.jax_atvg.cli.test_main import call, files  # noqa: F401, fixtures

# ruff: noqa: F811

VIDEO, SOUND = "--video=speaker.mp4", "--audio=räde.wav"
GOOD = ("dub", "--bundle=bundle", VIDEO, SOUND, "--out=dubbed.mp4")


@pytest.fixture
def dubbing(call, files, monkeypatch):
    """`call`, in a folder that holds a film of eight frames."""
    monkeypatch.setattr(dub, "tell_compilations", lambda: None)
    face_videos.write(files / "speaker.mp4", [face_videos.picture()] * 8)
    yield call
    (files / "speaker.mp4").unlink(missing_ok=True)


def test_a_video_gets_another_voice(dubbing, files):
    code, output, errors = dubbing(
        *GOOD, "--landmarks_out=places.npy", "--rest=close", "--label"
    )
    assert (code, output) == (0, ["wrote dubbed.mp4 places.npy"])
    assert errors[0].startswith("running on ")
    assert np.load(files / "places.npy").shape == (12, 68, 2)
    assert (files / "dubbed.mp4").stat().st_size > 1000


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["dub"], "--video --audio --out missing"),
        ([*GOOD[:-1], "--out=x.avi"], "x.avi: the video is an MP4"),
        ([*GOOD[:-1], "--out=speaker.mp4"], "speaker.mp4 is read, too"),
        ([*GOOD, "--rest=open"], "rest=open: value should be one of <keep|close>"),
        ([*GOOD, "--expressiveness=9"], "expressiveness=9.0: must be 0 to 3.0"),
        ([*GOOD, "--face=4"], "face=4 asked for, but 1 face found"),
        ([*GOOD[:2], "--video=räde.wav", SOUND, GOOD[-1]], "no video in the file"),
        ([*GOOD[:2], "--video=list.txt", SOUND, GOOD[-1]], "list.txt: no such file"),
        ([*GOOD[:3], "--audio=speaker.mp4", GOOD[-1]], "no sound in the file"),
        ([*GOOD[:3], "--audio=silent.png", GOOD[-1]], "silent.png: no such file"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(dubbing, files, arguments, message):
    before = {path.name for path in files.iterdir()}
    code, output, errors = dubbing(*arguments)
    said = [line for line in errors if line.startswith("error: ")]
    assert code == 2 and output == [] and len(said) == 1
    assert message in said[0]
    assert {path.name for path in files.iterdir()} == before
