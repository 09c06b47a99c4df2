"""Pictures of every kind read as upright RGB."""

import os
import struct
import threading
import warnings
import zlib

import cv2
import numpy as np
import PIL.Image
import pytest

from input_pipeline.clip import InputError
from input_pipeline.media import image
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


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("channels", [3, 4])
def test_orientation_holds_with_transparency_as_without(
    tmp_path, orientation, channels
):
    stored = np.random.default_rng(0).integers(0, 256, (5, 7, channels), np.uint8)
    stored[..., 3:] = 255
    picture = PIL.Image.fromarray(stored)
    exif = picture.getexif()
    exif[0x0112] = orientation
    picture.save(tmp_path / "a.png", exif=exif)
    expected = stored[..., :3]
    if orientation >= 5:
        expected = expected.swapaxes(0, 1)
    if orientation in (2, 3, 6, 7):
        expected = expected[:, ::-1]
    if orientation in (3, 4, 7, 8):
        expected = expected[::-1]
    np.testing.assert_array_equal(read_image(tmp_path / "a.png"), expected)


def test_damaged_exif_does_not_spoil_the_picture(tmp_path, picture):
    write_image(tmp_path / "a.jpg", picture)
    jpeg = (tmp_path / "a.jpg").read_bytes()
    body = b"Exif\0\0MM\0*\0\0\0\x08\0\x09\x01"  # nine entries, of which none follows
    segment = b"\xff\xe1" + (len(body) + 2).to_bytes(2, "big") + body
    (tmp_path / "b.jpg").write_bytes(jpeg[:2] + segment + jpeg[2:])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        got = read_image(tmp_path / "b.jpg")
    np.testing.assert_array_equal(got, read_image(tmp_path / "a.jpg"))


def test_a_picture_above_64_megapixels_is_refused_from_its_header(tmp_path):
    """Nothing follows the header; a flat picture of that size has a few megabytes."""
    for width, height in ((20_000, 4_000), (200_000, 200_000)):
        header = struct.pack(">4sIIBBBBB", b"IHDR", width, height, 8, 2, 0, 0, 0)
        chunk = struct.pack(">I", 13) + header + struct.pack(">I", zlib.crc32(header))
        end = struct.pack(">I4sI", 0, b"IEND", zlib.crc32(b"IEND"))
        data = struct.pack(">I4sI", 0, b"IDAT", zlib.crc32(b"IDAT"))
        path = tmp_path / f"{width}.png"
        path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk + data + end)
        with pytest.raises(InputError, match="pixels; 64 million are the most"):
            read_image(path)


def test_a_picture_that_is_cut_off_is_refused_without_a_word_of_a_library(
    tmp_path, picture, capfd
):
    large = cv2.resize(picture, (400, 300))
    for suffix in (".png", ".jpg", ".webp", ".tiff", ".bmp", ".gif"):
        path = tmp_path / f"a{suffix}"
        write_image(path, large)
        path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])
        with pytest.raises(InputError, match="not a readable picture"):
            read_image(path)
    assert capfd.readouterr() == ("", "")


def test_standard_error_is_back_after_tiffs_are_read_in_two_threads(
    tmp_path, picture, monkeypatch
):
    """The second is begun while the first is read, and would end after it."""
    write_image(tmp_path / "a.tiff", picture)
    begun, second, ended = (threading.Event() for _ in range(3))
    read = image._as_rgb

    def slowly(opened):
        if threading.current_thread() is first:
            begun.set()
            second.wait(0.5)
        else:
            second.set()
            ended.wait(5)
        return read(opened)

    def read_first():
        read_image(tmp_path / "a.tiff")
        ended.set()

    monkeypatch.setattr(image, "_as_rgb", slowly)
    before = os.fstat(2)
    first = threading.Thread(target=read_first)
    first.start()
    assert begun.wait(5)
    read_image(tmp_path / "a.tiff")
    first.join()
    assert os.path.samestat(os.fstat(2), before)


def test_a_file_that_may_not_be_read_is_named(tmp_path, picture, monkeypatch):
    write_image(tmp_path / "a.png", picture)

    def refuse(*_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(PIL.Image, "open", refuse)
    with pytest.raises(InputError, match=r"cannot be read \(Permission denied\)"):
        read_image(tmp_path / "a.png")


# --- HEIC ---


@pytest.fixture
def heic(tmp_path):
    """64 x 32, left half red, right half green, to be turned by a quarter."""
    writer = pytest.importorskip("pillow_heif", reason="requirements/heic.txt")
    writer.register_heif_opener()
    rgb = np.zeros((32, 64, 3), np.uint8)
    rgb[:, :32], rgb[:, 32:] = RED, GREEN
    photo = PIL.Image.fromarray(rgb)
    turned = photo.getexif()
    turned[274] = 6
    photo.save(tmp_path / "photo.heic", quality=95, exif=turned.tobytes())
    return tmp_path / "photo.heic"


def test_a_machine_without_memory_is_not_the_pictures_fault(
    tmp_path, picture, monkeypatch
):
    def fail(picture):
        raise MemoryError

    write_image(tmp_path / "a.png", picture)
    monkeypatch.setattr(image, "_as_rgb", fail)
    with pytest.raises(MemoryError):
        read_image(tmp_path / "a.png")


@pytest.mark.parametrize(
    ("size", "smaller"), [((8, 12), (4, 6)), ((12, 8), (6, 4)), ((600, 1), (6, 1))]
)
def test_a_picture_is_shrunk_to_its_longer_side(size, smaller):
    ramp = np.arange(size[0], dtype=np.uint8)[:, None, None]
    whole = np.broadcast_to(ramp, (*size, 3)).copy()
    small = image.shrunk(whole, 6)
    assert small.shape == (*smaller, 3)
    assert abs(small.mean() - whole.mean()) < 1
    assert image.shrunk(whole, 600) is whole


def test_heic_is_read_upright_where_pillow_heif_is_installed(heic):
    read = read_image(heic)
    assert read.shape == (64, 32, 3)
    for half, colour in ((read[:32], RED), (read[32:], GREEN)):
        assert np.abs(half[4:-4].astype(int) - colour).mean() < 4


def test_without_it_a_heic_photo_is_told_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setattr(image, "read_heic_too", lambda: False)
    box = struct.pack(">I", 28) + b"ftypheic" + bytes(16)
    (tmp_path / "photo.heic").write_bytes(box + b"nothing that Pillow reads")
    with pytest.raises(InputError, match=r"a HEIC photo; pip install .*heic.txt"):
        read_image(tmp_path / "photo.heic")
    (tmp_path / "other.heic").write_bytes(b"something else entirely")
    with pytest.raises(InputError, match="not a readable picture"):
        read_image(tmp_path / "other.heic")
