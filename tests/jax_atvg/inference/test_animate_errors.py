"""Bad input to animate: one line with value, rule and remedy, and no file."""

import os

import numpy as np
import pytest
import soundfile

from input_pipeline.clip import InputError
from input_pipeline.media.image import write_image
from jax_atvg.inference import animate
from jax_atvg.inference.live import Talker
from tests.small_bundle import photo, small_bundle, speech


@pytest.fixture(scope="module")
def bundle():
    return small_bundle()


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Good and bad photos and sounds, made once."""
    folder = tmp_path_factory.mktemp("files")
    write_image(folder / "photo.png", photo())
    write_image(folder / "flat.png", np.full((300, 200, 3), 128, np.uint8))
    write_image(folder / "upside-down.png", photo()[::-1])
    whole = (folder / "photo.png").read_bytes()
    (folder / "cut.png").write_bytes(whole[: len(whole) // 2])
    soundfile.write(folder / "speech.wav", speech(0.5), 16000)
    soundfile.write(folder / "short.wav", speech(0.27), 16000)
    soundfile.write(folder / "header.wav", speech(0), 16000)
    soundfile.write(folder / "speech.flac", speech(3), 16000)
    whole = (folder / "speech.flac").read_bytes()
    (folder / "cut.flac").write_bytes(whole[: len(whole) // 2])
    samples = speech(0.5)
    samples[777] = np.nan
    soundfile.write(folder / "nan.wav", samples, 16000, subtype="FLOAT")
    (folder / "text.txt").write_text("hello " * 1000)
    (folder / "empty").touch()
    (folder / "folder").mkdir()
    return folder


PHOTOS = {
    "missing.png": "no such file; give the path",
    "folder": "is a folder; give the path",
    "empty": "the file is empty; give a JPEG or PNG",
    "text.txt": "not a readable picture; save it as",
    "speech.wav": "not a readable picture; save it as",
    "cut.png": "not a readable picture; save it as",
    "flat.png": "no face found in the 200x300 picture; use a frontal face",
    "upside-down.png": "no face found .* turn the picture upright",
}
SOUNDS = {
    "missing.wav": "no such file; give the path",
    "folder": "is a folder; give the path",
    "empty": "the file is empty; record or convert",
    "text.txt": "no sound in the file; give one with speech",
    "photo.png": "no sound in the file; give one with speech",
    "header.wav": "0 ms of sound; 280 ms is the least; give a longer",
    "short.wav": "270 ms of sound; 280 ms is the least; give a longer",
    "nan.wav": "1 samples are NaN .* at sample 777, 0.049 s; repair",
    "cut.flac": r"the sound is damaged \(.*\); convert or record it again",
}
OUTS = {
    "missing/a.mp4": "its folder does not exist; give a file in an existing folder",
    "a.avi": "the video is an MP4; give a name that ends in .mp4",
    "a": "the video is an MP4; give a name that ends in .mp4",
    ".": "the video is an MP4; give a name that ends in .mp4",
    "folder.mp4": "is a folder; give a file in an existing folder",
}
LANDMARKS = ["a.txt", "missing/a.npy", "folder.npy"]


@pytest.fixture
def refused(files, bundle, tmp_path):
    """Runs animate_file on good input but for the changes; checks that it is refused
    in one line and that nothing is left."""
    (tmp_path / "folder.mp4").mkdir()
    (tmp_path / "folder.npy").mkdir()

    def run(message, image="photo.png", sound="speech.wav", out="a.mp4", **options):
        before = sorted(tmp_path.rglob("*"))
        with pytest.raises(InputError, match=message) as caught:
            animate.animate_file(
                files / image,
                files / sound,
                tmp_path / out,
                bundle,
                panels=True,
                **{"landmarks_out": tmp_path / "a.npy"} | options,
            )
        assert "\n" not in str(caught.value)
        assert sorted(tmp_path.rglob("*")) == before
        return str(caught.value)

    return run


@pytest.mark.parametrize("name", PHOTOS)
def test_a_bad_photo_is_refused(refused, name):
    assert name in refused(PHOTOS[name], image=name)


@pytest.mark.parametrize("name", SOUNDS)
def test_bad_sound_is_refused(refused, name):
    assert name in refused(SOUNDS[name], sound=name)


@pytest.mark.parametrize("name", OUTS)
def test_a_bad_output_is_refused(refused, name):
    refused(OUTS[name], out=name)


@pytest.mark.parametrize("name", LANDMARKS)
def test_bad_landmarks_out_is_refused(refused, tmp_path, name):
    message = f"{name}: landmarks go to an .npy file in an existing folder"
    refused(message, landmarks_out=tmp_path / name)


@pytest.mark.parametrize(
    ("face", "message"),
    [
        ("9", "face=9 asked for, but 1 face found; choose 0, or"),
        ("-1", "face='-1': choose 'largest' or an index"),
        ("left", "face='left': choose 'largest' or an index"),
    ],
)
def test_a_face_that_is_not_there_is_refused(refused, face, message):
    refused(message, face=face)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_cannot_be_written_is_refused(refused, tmp_path):
    tmp_path.chmod(0o500)
    try:
        refused("a.mp4: cannot be written (Permission denied)".replace("(", r"\("))
    finally:
        tmp_path.chmod(0o700)


@pytest.mark.skipif(not os.path.isdir("/proc"), reason="needs a folder none can write")
@pytest.mark.parametrize("option", ["out", "landmarks_out"])
def test_a_folder_that_nobody_can_write_is_refused(refused, option):
    refused(r"/proc/a.*cannot be written \(", **{option: f"/proc/a.{WHAT[option]}"})


WHAT = {"out": "mp4", "landmarks_out": "npy"}


def fail_after_a_frame(monkeypatch, error):
    """The second frame's write raises."""
    from input_pipeline.media.video import VideoWriter

    write = VideoWriter.write

    def writes_one(self, frame):
        if self.count:
            raise error
        write(self, frame)

    monkeypatch.setattr(VideoWriter, "write", writes_one)


def test_a_full_disk_is_refused(monkeypatch, refused):
    fail_after_a_frame(monkeypatch, OSError(28, "No space left on device"))
    refused(r"cannot be written \(No space left on device\); free some space")


def test_an_interrupted_run_leaves_nothing_and_the_older_file_as_it_was(
    monkeypatch, files, bundle, tmp_path
):
    out = tmp_path / "a.mp4"
    out.write_text("older")
    fail_after_a_frame(monkeypatch, KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        animate.animate_file(
            files / "photo.png", files / "speech.wav", out, bundle, panels=True
        )
    assert [path.name for path in tmp_path.iterdir()] == ["a.mp4"]
    assert out.read_text() == "older"


def test_an_older_file_is_replaced(files, bundle, tmp_path):
    out = tmp_path / "a.mp4"
    out.write_text("older")
    animate.animate_file(files / "photo.png", files / "speech.wav", out, bundle)
    assert out.read_bytes()[4:8] == b"ftyp"


@pytest.mark.parametrize(
    ("which", "name", "out"),
    [
        ("sound", "a.mp4", "a.mp4"),
        ("sound", "a.mp4", "link.mp4"),
        ("sound", "a_panels.mp4", "a.mp4"),
        ("sound", "a.npy", "a.mp4"),
        ("image", "a.mp4", "a.mp4"),
    ],
)
def test_an_input_is_not_overwritten(refused, files, tmp_path, which, name, out):
    """By the video, also through a link, the panels or the landmarks."""
    (tmp_path / name).write_bytes((files / "speech.wav").read_bytes())
    (tmp_path / "link.mp4").symlink_to(tmp_path / "a.mp4")
    written = name if out == "a.mp4" else out
    message = f"{written} is read, too; choose another name for the result"
    refused(message, out=out, **{which: tmp_path / name})
    assert (tmp_path / name).read_bytes() == (files / "speech.wav").read_bytes()


@pytest.mark.parametrize(
    ("samples", "message"),
    [
        (np.zeros(0, np.float32), "speech: 0 ms of sound"),
        (np.zeros((0, 2), np.float32), "speech: 0 ms of sound"),
        (np.zeros(100, np.int16), "speech: 6 ms of sound"),
        (np.full(16000, np.inf, np.float32), "speech: 16000 samples are NaN"),
    ],
)
def test_a_bad_array_of_sound_is_refused(bundle, samples, message):
    with pytest.raises(InputError, match=message):
        animate.animate(photo(), (samples, 16000), bundle)


def test_a_picture_without_a_face_is_refused_as_the_photo(bundle):
    with pytest.raises(InputError, match=r"^photo: no face found in the 64x64 picture"):
        animate.animate(np.zeros((64, 64, 3), np.uint8), (speech(1), 16000), bundle)


@pytest.mark.parametrize(
    ("picture", "said"),
    [
        (np.zeros((64, 48, 4), np.uint8), r"shape \(64, 48, 4\) and type uint8"),
        (np.zeros((64, 48), np.uint8), r"shape \(64, 48\) and type uint8"),
        (np.zeros((64, 48, 1), np.uint8), r"shape \(64, 48, 1\) and type uint8"),
        (np.zeros((1, 64, 48, 3), np.uint8), r"shape \(1, 64, 48, 3\) and type"),
        (np.zeros((64, 48, 3)), r"shape \(64, 48, 3\) and type float64"),
        (np.zeros((64, 48, 3), np.uint16), r"shape \(64, 48, 3\) and type uint16"),
        (np.zeros((0, 48, 3), np.uint8), r"shape \(0, 48, 3\) and type uint8"),
        (np.zeros((), np.uint8), r"shape \(\) and type uint8"),
    ],
)
def test_an_array_that_is_no_rgb_picture_is_refused(unchecked, bundle, picture, said):
    rule = r"must be RGB of shape \(height, width, 3\), .* type uint8"
    message = f'^photo: an array of {said}.*; {rule}; .*convert\\("RGB"\\)'
    for use in (
        lambda: animate.read_subject(picture, bundle),
        lambda: animate.animate(picture, (speech(1), 16000), bundle),
        lambda: Talker(picture, bundle),
    ):
        with pytest.raises(InputError, match=message):
            use()
