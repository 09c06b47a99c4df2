"""Reads and writes pictures as u8[H,W,3] RGB; converts between bytes and [-1, 1]."""

import contextlib
import functools
import os
import pathlib
import threading
import warnings
from collections.abc import Iterator
from contextlib import nullcontext as nothing

import numpy as np
from jaxtyping import Float32, UInt8

from input_pipeline.clip import InputError
from input_pipeline.media.container import check_size, too_large

_standard_error = threading.Lock()  # held while it is dropped

# By which a file says so (ISO/IEC 23008-12, annex B).
HEIC = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")


def read_image(path: str | pathlib.Path) -> UInt8[np.ndarray, "H W 3"]:
    """Reads any picture that Pillow decodes: RGB, 0..255, upright by its EXIF tag.
    HEIC as well, where pillow-heif is installed.

    Grey becomes RGB, 16 bits become 8, transparency is laid over white.  Of moving
    pictures the first is taken.
    InputError: there is no such file, or it is a folder, empty, not a picture, cut off,
    or, by its header, larger than container.MOST_PIXELS.
    """
    import PIL.Image

    path, heic_is_read = pathlib.Path(path), read_heic_too()
    if not path.is_file():
        what = "is a folder" if path.is_dir() else "no such file"
        raise InputError(f"{path}: {what}; give the path of a JPEG or PNG photo")
    try:
        if not path.stat().st_size:
            raise InputError(f"{path}: the file is empty; give a JPEG or PNG photo")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of what is odd, but can be read
            warnings.simplefilter("error", PIL.Image.DecompressionBombWarning)
            with PIL.Image.open(path) as picture:
                check_size(*picture.size, path)
                with _silence() if picture.format == "TIFF" else nothing():
                    return _as_rgb(picture)
    except (InputError, MemoryError):  # MemoryError: not the picture's fault
        raise
    except (PIL.Image.DecompressionBombWarning, PIL.Image.DecompressionBombError):
        raise too_large(path, "by its header far too many") from None
    except PermissionError as error:
        raise InputError(
            f"{path}: cannot be read ({error.strerror}); give a readable file"
        ) from error
    except Exception as error:  # Pillow raises many kinds
        if not heic_is_read and is_heic(path):
            raise InputError(
                f"{path}: a HEIC photo; pip install -r requirements/heic.txt, or save "
                "it as JPEG"
            ) from error
        raise InputError(
            f"{path}: not a readable picture; save it as JPEG or PNG"
        ) from error


def format_of(path: str | pathlib.Path) -> str | None:
    """Pillow's name of a picture's format, as "JPEG"; None of what is no picture."""
    import PIL.Image

    read_heic_too()
    with contextlib.suppress(Exception), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with PIL.Image.open(path) as picture:
            return picture.format
    return None


@functools.cache
def read_heic_too() -> bool:
    """Teaches Pillow to read HEIC, if pillow-heif is installed, and says whether."""
    try:
        import pillow_heif
    except ImportError:
        return False
    pillow_heif.register_heif_opener()
    return True


def is_heic(path: pathlib.Path) -> bool:
    """Whether a file says at its beginning that it is a HEIC photo."""
    with path.open("rb") as file:
        head = file.read(12)
    return head[4:8] == b"ftyp" and head[8:12] in HEIC


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    """Drops what C code writes on standard error, as libtiff does of damaged files; in
    one thread at a time, because standard error is that of the process."""
    with _standard_error:
        kept, dropped = os.dup(2), os.open(os.devnull, os.O_WRONLY)
        try:
            os.dup2(dropped, 2)
            yield
        finally:
            os.dup2(kept, 2)
            os.close(kept)
            os.close(dropped)


def _as_rgb(picture) -> UInt8[np.ndarray, "H W 3"]:
    """Pillow's picture, whatever its kind, upright."""
    from PIL import ImageOps

    try:
        picture = ImageOps.exif_transpose(picture)
    except Exception:  # its EXIF is damaged; whether the rest is, will be seen
        picture.load()
    if picture.mode.startswith("I"):  # grey of 16 bits, which Pillow would cut at 255
        deep = np.asarray(picture).astype(np.float64)
        grey = np.rint(deep / 257).clip(0, 255).astype(np.uint8)
        return np.repeat(grey[..., None], 3, -1)
    if picture.has_transparency_data:
        return _on_white(np.asarray(picture.convert("RGBA")))
    return np.array(picture.convert("RGB"))


def write_image(path: str | pathlib.Path, picture: UInt8[np.ndarray, "H W 3"]) -> None:
    """Writes RGB, 0..255, in the format of the suffix.

    InputError: no such folder, or no such format.
    """
    import cv2

    path = pathlib.Path(path)
    if not path.parent.is_dir():
        raise InputError(f"{path}: no folder {path.parent}; create it first")
    if not cv2.haveImageWriter(path.name):
        raise InputError(f"{path}: no picture format of that name; end it in .png")
    cv2.imencode(path.suffix, picture[..., ::-1])[1].tofile(path)


def to_size(
    picture: UInt8[np.ndarray, "H W *channels"], size: int
) -> UInt8[np.ndarray, "{size} {size} *channels"]:
    """size x size pixels: averaged where the picture shrinks, else interpolated."""
    import cv2

    how = cv2.INTER_AREA if len(picture) > size else cv2.INTER_LINEAR
    return cv2.resize(picture, (size, size), interpolation=how)


def shrunk(
    picture: UInt8[np.ndarray, "H W 3"], longest: int
) -> UInt8[np.ndarray, "h w 3"]:
    """The picture, made smaller if a side of it is longer than so many pixels."""
    import cv2

    scale = longest / max(picture.shape[:2])
    if scale >= 1:
        return picture
    height, width = (max(1, round(scale * n)) for n in picture.shape[:2])
    return cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA)


def _on_white(rgba: UInt8[np.ndarray, "H W 4"]) -> UInt8[np.ndarray, "H W 3"]:
    """RGB over a white background."""
    unit = rgba / np.float32(255)
    colour, alpha = unit[..., :3], unit[..., 3:]
    return np.rint(255 * (colour * alpha + 1 - alpha)).astype(np.uint8)


def to_float(pictures: UInt8[np.ndarray, "*any"]) -> Float32[np.ndarray, "*any"]:
    """0..255 -> [-1, 1], linearly: the range of the networks' pictures."""
    frames = pictures.astype(np.float32)
    frames /= 127.5
    frames -= 1
    return frames


def to_u8(frames):
    """[-1, 1] -> u8, 0..255, linearly.  numpy or JAX arrays of any shape."""
    return ((frames + 1) * 127.5).round().clip(0, 255).astype("uint8")
