"""Pictures of every kind read as upright RGB."""

import cv2
import numpy as np
import pytest

from input_pipeline.clip import InputError
from input_pipeline.media.image import read_image, write_image

RED, GREEN = (200, 10, 20), (10, 180, 30)


@pytest.fixture
def picture():
    """8 x 12: left half red, right half green; top row brighter."""
    rgb = np.zeros((8, 12, 3), np.uint8)
    rgb[:, :6], rgb[:, 6:] = RED, GREEN
    rgb[0] += 40
    return rgb


def test_write_then_read_is_the_identity(tmp_path, picture):
    write_image(tmp_path / "photo é.png", picture)
    np.testing.assert_array_equal(read_image(tmp_path / "photo é.png"), picture)
    assert read_image(str(tmp_path / "photo é.png")).flags.c_contiguous


def test_grey_becomes_three_equal_channels(tmp_path, picture):
    cv2.imwrite(str(tmp_path / "g.png"), picture[..., 0])
    expected = np.repeat(picture[..., :1], 3, -1)
    np.testing.assert_array_equal(read_image(tmp_path / "g.png"), expected)


@pytest.mark.parametrize("channels", [1, 3])
def test_sixteen_bits_become_eight(tmp_path, picture, channels):
    deep = picture[..., :channels].astype(np.uint16) * 257
    cv2.imwrite(str(tmp_path / "deep.png"), deep[..., ::-1])
    got = read_image(tmp_path / "deep.png")
    np.testing.assert_array_equal(
        got, np.broadcast_to(picture[..., :channels], got.shape)
    )


@pytest.mark.parametrize(("dtype", "unit"), [(np.uint8, 1), (np.uint16, 257)])
def test_transparency_is_laid_on_white(tmp_path, picture, dtype, unit):
    alpha = np.zeros((8, 12, 1))
    alpha[:, 6:] = 102
    bgra = np.concatenate([picture[..., ::-1], alpha], -1).astype(dtype) * unit
    cv2.imwrite(str(tmp_path / "a.png"), bgra.astype(dtype))
    share = alpha / 255
    expected = np.rint(picture * share + 255 * (1 - share))
    np.testing.assert_allclose(read_image(tmp_path / "a.png"), expected, atol=1)


def test_exif_rotation_turns_the_picture_upright(tmp_path):
    upright = np.zeros((64, 96, 3), np.uint8)
    upright[:, :48], upright[:, 48:] = RED, GREEN
    lying = np.rot90(upright)  # the camera held sideways
    jpeg = cv2.imencode(".jpg", np.ascontiguousarray(lying[..., ::-1]))[1].tobytes()
    tiff = b"MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0"
    body = b"Exif\0\0" + tiff  # orientation 6: turn by 90 degrees clockwise
    segment = b"\xff\xe1" + (len(body) + 2).to_bytes(2, "big") + body
    (tmp_path / "phone.jpg").write_bytes(jpeg[:2] + segment + jpeg[2:])
    got = read_image(tmp_path / "phone.jpg").astype(int)
    assert got.shape == upright.shape
    assert np.abs(got - upright).mean() < 5


def test_bad_paths_and_files_are_named(tmp_path, picture):
    (tmp_path / "empty.png").touch()
    (tmp_path / "text.jpg").write_text("no picture")
    for name, message in [
        ("none.png", "no such file"),
        ("", "is a folder"),
        ("empty.png", "is empty"),
        ("text.jpg", "not a readable picture"),
    ]:
        with pytest.raises(InputError, match=message):
            read_image(tmp_path / name)
    with pytest.raises(InputError, match="no folder"):
        write_image(tmp_path / "none" / "a.png", picture)


def test_a_picture_beyond_opencvs_limit_is_an_input_error(tmp_path, monkeypatch):
    def too_large(*_):
        raise cv2.error("pixels")

    (tmp_path / "large.png").write_bytes(b"x")
    monkeypatch.setattr(cv2, "imdecode", too_large)
    with pytest.raises(InputError, match="not a readable picture"):
        read_image(tmp_path / "large.png")
