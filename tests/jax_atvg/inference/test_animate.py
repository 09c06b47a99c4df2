"""A photo and a sound become a video, by the Python functions."""

import warnings
import weakref

import av
import cv2
import numpy as np
import pytest
import soundfile
from PIL import Image

from input_pipeline.faces import align, landmarks
from input_pipeline.media import audio
from input_pipeline.media.image import to_u8, write_image
from jax_atvg.inference import animate, networks
from jax_atvg.inference.perception import perceive
from tests.input_pipeline.whole_files import windows
from tests.small_bundle import (
    LANDMARK_TO_CROP,
    mean_face,
    photo,
    photo_points,
    small_bundle,
    speech,
)

SECONDS, RATE = 1.4, 44100


@pytest.fixture(scope="module")
def bundle():
    return small_bundle()


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A folder with photo.png and speech.wav; outputs go to its folder `out`."""
    folder = tmp_path_factory.mktemp("files")
    write_image(folder / "photo.png", photo())
    soundfile.write(folder / "speech.wav", speech(SECONDS, RATE), RATE)
    (folder / "out").mkdir()
    return folder


@pytest.fixture(scope="module")
def frames(bundle):
    """u8[35,32,32,3] by the Python API."""
    return animate.animate(photo(), (speech(SECONDS, RATE), RATE), bundle)


@pytest.fixture(scope="module")
def written(files, bundle):
    """The files of one run: video, panels, landmarks."""
    return animate.animate_file(
        files / "photo.png",
        files / "speech.wav",
        files / "out" / "talk.mp4",
        bundle,
        panels=True,
        landmarks_out=files / "out" / "talk.npy",
    )


def decode(path):
    with av.open(str(path)) as container:
        return np.stack(
            [f.to_ndarray(format="rgb24") for f in container.decode(video=0)]
        )


# The file


def test_the_file_is_h264_yuv420p_at_25_fps_with_aac(written):
    with av.open(str(written[0])) as container:
        (video,), (sound,) = container.streams.video, container.streams.audio
        assert (video.codec.name, video.pix_fmt) == ("h264", "yuv420p")
        assert (video.average_rate, video.frames) == (25, 35)
        assert (sound.codec.name, sound.rate, sound.channels) == ("aac", RATE, 1)
        assert "Synthetic media" in container.metadata["comment"]


def test_the_original_sound_is_kept_in_place(written):
    original, kept = speech(SECONDS, RATE), audio.read_audio(written[0])
    original = audio.from_array(original, RATE)
    length = min(len(original), len(kept))
    original, kept = original[:length], kept[:length]
    assert np.corrcoef(original, kept)[0, 1] > 0.99
    delays = np.fft.irfft(np.fft.rfft(kept) * np.conj(np.fft.rfft(original)))
    assert delays.argmax() == 0


def luma(frames):
    """BT.709; colours are halved in resolution by the format, luma is not."""
    return frames @ np.array([0.2126, 0.7152, 0.0722])


def test_frames_are_written_in_a_linear_range(written, frames):
    """The file's frames are the API's within coding noise."""
    shown, expected = luma(decode(written[0])), luma(frames)
    assert shown.shape == expected.shape
    assert np.abs(shown - expected).mean() < 3
    slope, offset = np.polyfit(expected.ravel(), shown.ravel(), 1)
    assert abs(slope - 1) < 0.02 and abs(offset) < 2


def test_minus_one_to_one_maps_linearly_to_0_to_255():
    values = np.array([-2, -1, 0, 1 / 127.5, 0.5, 1, 3], np.float32)
    expected = [0, 0, 128, 128, 191, 255, 255]
    np.testing.assert_array_equal(to_u8(values.reshape(7, 1, 1)).ravel(), expected)


@pytest.mark.parametrize("seconds", [0.28, 0.3, 0.63, 0.64, 0.66, 1.0, 1.019])
def test_the_video_is_as_long_as_the_sound_within_a_frame(files, bundle, seconds):
    soundfile.write(files / "length.wav", speech(seconds), 16000)
    out = files / "out" / "length.mp4"
    animate.animate_file(files / "photo.png", files / "length.wav", out, bundle)
    assert abs(len(decode(out)) / 25 - seconds) < 0.04
    with av.open(str(out)) as container:
        assert abs(container.duration / av.time_base - seconds) < 0.04 + 1024 / 16000


def test_landmarks_are_the_sixty_eight_points_of_every_frame(written, bundle, files):
    points = np.load(written[2])
    assert (points.shape, points.dtype) == ((35, 68, 2), np.float32)
    assert np.abs(points).max() < 1.2 and points.std(0).max() > 1e-3
    subject = animate.read_subject(photo(), bundle)
    heard = audio.hear_file(files / "speech.wav")
    spoken = [p.landmarks for p in animate.talk(bundle, subject.photo, heard)]
    # landmark_to_crop undoes normalise here, so the networks' own come out.
    np.testing.assert_allclose(points.reshape(35, 136), np.stack(spoken), atol=1e-5)


def test_panels_are_landmarks_attention_colour_and_result(written, bundle, frames):
    panels = decode(written[1])
    assert panels.shape == (35, 32, 4 * 32, 3)
    drawn, attention, _, result = np.split(panels.astype(float), 4, axis=2)
    gray = [np.ptp(part, axis=-1).mean() for part in (drawn, attention)]
    assert max(gray) < 6
    assert np.abs(luma(result) - luma(frames)).mean() < 3
    assert drawn.max() > 120 and np.percentile(drawn, 20) < 20  # white lines on black


def test_nothing_but_the_results_is_left(written, files):
    names = {"talk.mp4", "talk_panels.mp4", "talk.npy"}
    assert {path.name for path in written} == names
    assert not list((files / "out").glob("*.partial*"))


# The frames


def test_files_and_arrays_give_the_same_frames(files, bundle, frames):
    got = animate.animate(str(files / "photo.png"), files / "speech.wav", bundle)
    assert got.shape == (35, 32, 32, 3) and got.dtype == np.uint8
    assert np.abs(got.astype(int) - frames).max() <= 1  # 16-bit samples in the file


def test_the_face_moves_with_the_sound(bundle, frames):
    subject = animate.read_subject(photo(), bundle)
    sounds = speech(SECONDS), speech(SECONDS)[::-1].copy()
    first, second = (
        np.stack([p.landmarks for p in animate.talk(bundle, subject.photo, sound)])
        for sound in sounds
    )
    assert np.abs(first - second).max() > 0.05
    assert frames.std(axis=0).max() > 1


def test_the_length_of_chunks_does_not_matter(monkeypatch, bundle, frames):
    monkeypatch.setattr(networks, "CHUNK", 5)
    got = animate.animate(photo(), (speech(SECONDS, RATE), RATE), bundle)
    assert np.abs(got.astype(int) - frames).max() <= 1


@pytest.fixture(scope="module")
def over_the_batch():
    """Of one clip: nothing recurs, the state that is handed on must have no say."""
    return small_bundle(recurrence="batch")


def test_one_program_serves_all_lengths(over_the_batch):
    made = networks.Networks(over_the_batch)
    speak = networks.compiled_speak(made.bundle.at_net, made.mesh, "default")
    draw = networks.compiled_draw(made.bundle.vg_net, made.mesh, "default", ())
    counts = []
    for seconds in (0.3, 0.64, 1.1, 2.0):
        animate.animate(photo(), (speech(seconds), 16000), made)
        counts.append((speak._cache_size(), draw._cache_size()))
    assert set(counts) == {counts[0]} and 0 not in counts[0]


def test_nor_does_it_where_the_recurrence_is_over_the_batch(
    monkeypatch, over_the_batch, frames
):
    sound = speech(0.8), 16000
    expected = animate.animate(photo(), sound, over_the_batch)
    assert np.abs(expected.astype(int) - frames[: len(expected)]).max() > 1
    monkeypatch.setattr(networks, "CHUNK", 5)
    got = animate.animate(photo(), sound, over_the_batch)
    assert np.abs(got.astype(int) - expected).max() <= 1


@pytest.mark.parametrize("odd", [0, 1])
def test_full_frame_changes_nothing_outside_the_face(bundle, odd):
    picture = photo()[: 512 - odd, : 512 - odd]
    got = animate.animate(picture, (speech(0.4), 16000), bundle, full_frame=True)
    assert got.shape == (10, *picture.shape)
    subject = animate.read_subject(picture, bundle)
    x, y = align.transform(
        subject.matrix, np.array([(u, v) for u in (-0.5, 31.5) for v in (-0.5, 31.5)])
    ).T
    outside = np.ones(picture.shape[:2], bool)
    outside[int(y.min()) : int(y.max()) + 2, int(x.min()) : int(x.max()) + 2] = False
    assert 0.2 < outside.mean() < 0.95
    np.testing.assert_array_equal(
        got[:, outside], np.broadcast_to(picture[outside], got[:, outside].shape)
    )
    assert np.abs(got.astype(int) - picture)[:, ~outside].max() > 10


def test_full_frame_of_odd_sides_is_written(files, bundle):
    write_image(files / "odd.png", photo()[:511, :509])
    out = files / "out" / "odd.mp4"
    animate.animate_file(
        files / "odd.png", files / "speech.wav", out, bundle, full_frame=True
    )
    assert decode(out).shape == (35, 512, 510, 3)


def test_networks_serve_several_calls_and_let_go_of_the_bundle(frames):
    bundle = small_bundle()
    given = weakref.ref(bundle)
    ready = networks.Networks(bundle)
    del bundle
    for _ in range(2):
        got = animate.animate(photo(), (speech(SECONDS, RATE), RATE), ready)
        np.testing.assert_array_equal(got, frames)
    assert given() is None
    assert ready.bundle.variables == {}


def test_what_was_perceived_elsewhere_is_not_looked_for_again(files, bundle, frames):
    found = perceive(files / "photo.png", files / "speech.wav")
    moved = found._replace(points=found.points + 5)
    out = files / "out" / "moved.mp4"
    pictures = {}
    for perceived in (found, moved):
        animate.animate_file(
            files / "photo.png",
            files / "speech.wav",
            out,
            bundle,
            perceived=lambda perceived=perceived: perceived,
        )
        pictures[perceived is found] = luma(decode(out))
    assert np.abs(pictures[True] - luma(frames)).mean() < 3
    assert np.abs(pictures[False] - luma(frames)).mean() > 6


# The photo


def test_the_photos_own_landmarks_are_used(bundle):
    subject = animate.read_subject(photo(), bundle)
    matrix = align.align(photo_points(), align.DEFAULT_TEMPLATE)
    own = landmarks.normalise(align.transform(align.invert(matrix), photo_points()))
    expected = bundle.pca.project(own[None])
    np.testing.assert_allclose(subject.photo.coefficients, expected, atol=1e-4)
    wider = cv2.resize(photo(), (620, 512), interpolation=cv2.INTER_AREA)
    other = animate.read_subject(wider, bundle)
    difference = np.abs(other.photo.coefficients - subject.photo.coefficients)
    assert difference.max() > 0.02


def test_photo_landmarks_of_the_bundle_replace_them():
    stored = mean_face() + np.float32(0.1)
    bundle = small_bundle(photo_landmarks=stored)
    subject = animate.read_subject(photo(), bundle)
    expected = bundle.pca.project(stored[None])
    np.testing.assert_allclose(subject.photo.coefficients, expected, atol=1e-5)


def test_the_crop_follows_the_face(bundle):
    """A picture shifted and doubled gives the same crop and the same landmarks."""
    moved = cv2.resize(photo(), None, fx=2, fy=2, interpolation=cv2.INTER_CUBIC)[
        :, 100:
    ]
    first, second = (animate.read_subject(p, bundle).photo for p in (photo(), moved))
    assert np.abs(first.image - second.image).mean() < 0.06
    difference = (first.landmarks - second.landmarks) @ bundle.pca.components
    assert np.abs(difference).max() < 0.15


def test_landmarks_land_on_the_face_when_drawn_back(bundle):
    points = animate.crop_points(bundle, mean_face())
    expected = align.transform(LANDMARK_TO_CROP, mean_face().reshape(68, 2))
    np.testing.assert_allclose(points, expected)


def save_rotated(path, picture):
    """Lying on its side, with the EXIF tag that puts it upright (6: turn right)."""
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(np.rot90(picture)).save(path, exif=exif, quality=95)


PHOTOS = {
    "gray.png": lambda path: cv2.imwrite(
        path, cv2.cvtColor(photo(), cv2.COLOR_RGB2GRAY)
    ),
    "alpha.png": lambda path: Image.fromarray(photo()).convert("RGBA").save(path),
    "deep.png": lambda path: cv2.imwrite(
        path, photo()[..., ::-1].astype(np.uint16) * 257
    ),
    "turned.jpg": lambda path: save_rotated(path, photo()),
    "4000x3000.jpg": lambda path: cv2.imwrite(
        path,
        cv2.copyMakeBorder(
            cv2.resize(photo(), (3000, 3000))[..., ::-1], 0, 0, 0, 1000, 1
        ),
    ),
    "grüße und so.webp": lambda path: Image.fromarray(photo()).save(path, quality=95),
}


@pytest.mark.parametrize("name", PHOTOS)
def test_odd_photos_show_the_same_face(files, bundle, name):
    PHOTOS[name](str(files / name))
    out = files / "out" / "photo.mp4"
    animate.animate_file(files / name, files / "speech.wav", out, bundle)
    assert len(decode(out)) == 35
    got = animate.read_subject(files / name, bundle).photo.image.mean(-1)
    expected = animate.read_subject(photo(), bundle).photo.image.mean(-1)
    assert np.abs(got - expected).mean() < 0.12


SOUNDS = {
    "8k.wav": (8000, 1, "PCM_16"),
    "48k.wav": (48000, 1, "PCM_24"),
    "stereo.flac": (44100, 2, "PCM_16"),
    "six channels.wav": (16000, 6, "PCM_16"),
    "float.wav": (16000, 1, "FLOAT"),
    "double.wav": (22050, 1, "DOUBLE"),
    "μ.ogg": (48000, 2, "VORBIS"),
}


@pytest.mark.parametrize("name", SOUNDS)
def test_odd_sounds_become_videos(files, bundle, name):
    rate, channels, subtype = SOUNDS[name]
    samples = np.repeat(speech(0.8, rate)[:, None], channels, 1)
    soundfile.write(files / name, samples, rate, subtype=subtype)
    out = files / "out" / "sound.mp4"
    animate.animate_file(files / "photo.png", files / name, out, bundle)
    assert len(decode(out)) == 20
    original, kept = audio.read_audio(files / name), audio.read_audio(out)
    length = min(len(original), len(kept))
    assert np.corrcoef(original[:length], kept[:length])[0, 1] > 0.95


@pytest.mark.parametrize("rate", [8000, 16000, 44100])
@pytest.mark.parametrize("seconds", [0.28, 1.0, 7.03])
def test_hearing_a_file_in_blocks_equals_reading_it_whole(tmp_path, rate, seconds):
    soundfile.write(tmp_path / "a.wav", speech(seconds, rate), rate)
    heard = audio.hear_file(tmp_path / "a.wav")
    expected = windows(audio.read_audio(tmp_path / "a.wav"))
    assert heard.windows.shape == expected.shape and not heard.silent
    np.testing.assert_allclose(heard.windows, expected, atol=1e-5)


# Silence


def test_silence_gives_a_still_mouth_and_a_warning(files, bundle):
    soundfile.write(files / "silent.wav", np.zeros(20000), 16000)
    out = files / "out" / "silent.npy"
    with pytest.warns(UserWarning, match="silent.wav: silent; the mouth will rest"):
        video, points = animate.animate_file(
            files / "photo.png",
            files / "silent.wav",
            files / "out" / "silent.mp4",
            bundle,
            landmarks_out=out,
        )
    points = np.load(points)
    np.testing.assert_array_equal(points, np.broadcast_to(points[0], points.shape))
    assert len(decode(video)) == len(points) == 31


def test_speech_gives_no_warning(bundle):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        animate.animate(photo(), (speech(0.4), 16000), bundle)
