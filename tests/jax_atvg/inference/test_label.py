"""What videos say of themselves: that they are synthetic, and nothing of the photo."""

import struct
from fractions import Fraction

import av
import numpy as np
import pytest
import soundfile
from PIL import ExifTags, Image

from input_pipeline.media.image import write_image
from jax_atvg.inference import animate
from tests.small_bundle import photo, speech

RATE = 16000


def decode(path):
    with av.open(str(path)) as container:
        frames = container.decode(video=0)
        return np.stack([frame.to_ndarray(format="rgb24") for frame in frames])


@pytest.mark.parametrize("full_frame", [False, True])
def test_the_label_covers_a_corner_and_nothing_else(alone, full_frame):
    sound = (speech(0.4, RATE), RATE)
    plain, labelled = (
        animate.animate(photo(), sound, alone, full_frame=full_frame, label=label)
        for label in (False, True)
    )
    changed = np.argwhere((plain != labelled).any((0, 3)))
    height, width = plain.shape[1:3]
    assert len(changed) and (plain[0] != labelled[0]).any()
    top, right = changed[:, 0].min(), changed[:, 1].max()
    assert top > height / 3 and changed[:, 0].max() == height - 1
    assert changed[:, 1].min() == 0 and (right < 0.7 * width or not full_frame)


def test_labelled_files(alone, tmp_path):
    write_image(tmp_path / "photo.png", photo())
    soundfile.write(tmp_path / "speech.wav", speech(0.4, RATE), RATE)
    for label in (False, True):
        animate.animate_file(
            tmp_path / "photo.png",
            tmp_path / "speech.wav",
            tmp_path / f"{label}.mp4",
            alone,
            label=label,
            panels=True,
        )
    for name in ("{}.mp4", "{}_panels.mp4"):
        plain, labelled = (decode(tmp_path / name.format(x)) for x in (False, True))
        assert plain.shape == labelled.shape and (plain != labelled).any()


SECRETS = [b"Ann's Camera", b"4711-0815", b"Ann's Garden", b"Ann's XMP", b"To Ann"]
DEGREES = 51_234_567, 1_000_000


def save_with_metadata(path, picture):
    """A JPEG with EXIF, a place, XMP and a comment, each of which holds a secret."""
    exif = Image.Exif()
    exif[ExifTags.Base.Model] = SECRETS[0].decode()
    exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.BodySerialNumber] = "4711-0815"
    place = exif.get_ifd(ExifTags.IFD.GPSInfo)
    place[ExifTags.GPS.GPSLatitudeRef] = "N"
    place[ExifTags.GPS.GPSLatitude] = (Fraction(*DEGREES), 0, 0)
    place[ExifTags.GPS.GPSMapDatum] = SECRETS[2].decode()
    xmp = b"<x:xmpmeta xmlns:x='adobe:ns:meta/'>Ann's XMP</x:xmpmeta>"
    Image.fromarray(picture).save(path, exif=exif, xmp=xmp, comment=SECRETS[4])


@pytest.mark.parametrize("full_frame", [False, True])
def test_nothing_of_the_photos_metadata_goes_into_a_video(alone, tmp_path, full_frame):
    save_with_metadata(tmp_path / "photo.jpg", photo())
    soundfile.write(tmp_path / "speech.wav", speech(0.4, RATE), RATE)
    written = animate.animate_file(
        tmp_path / "photo.jpg",
        tmp_path / "speech.wav",
        tmp_path / "talking.mp4",
        alone,
        full_frame=full_frame,
        panels=True,
    )
    given = (tmp_path / "photo.jpg").read_bytes()
    places = [struct.pack(order + "II", *DEGREES) for order in "<>"]
    assert all(secret in given for secret in SECRETS)
    assert any(place in given for place in places)
    for path in written:
        made = path.read_bytes()
        assert not any(secret in made for secret in (*SECRETS, *places))
        with av.open(str(path)) as container:
            assert "Synthetic media" in container.metadata["comment"]
