"""Reads and writes pictures as u8[H,W,3] RGB; converts between bytes and [-1, 1]."""

import pathlib

import numpy as np
from jaxtyping import Float32, UInt8

from input_pipeline.clip import InputError

PNG_START = b"\x89PNG\r\n\x1a\n"
PNG_END = b"IEND"


def read_image(path: str | pathlib.Path) -> UInt8[np.ndarray, "H W 3"]:
    """Reads any picture that OpenCV decodes: RGB, 0..255, upright by its EXIF tag.

    Grey becomes RGB, 16 bits become 8, transparency is laid over white.
    InputError: there is no such file, or it is a folder, empty or not a picture.
    """
    import cv2

    path = pathlib.Path(path)
    if not path.is_file():
        what = "is a folder" if path.is_dir() else "no such file"
        raise InputError(f"{path}: {what}; give the path of a JPEG or PNG photo")
    try:
        data = np.fromfile(path, np.uint8)  # imread cannot open every non-ASCII path
    except OSError as error:
        raise InputError(
            f"{path}: cannot be read ({error.strerror}); give a readable file"
        ) from error
    if not data.size:
        raise InputError(f"{path}: the file is empty; give a JPEG or PNG photo")
    unreadable = InputError(f"{path}: not a readable picture; save it as JPEG or PNG")
    if data[:8].tobytes() == PNG_START and PNG_END not in data.tobytes():
        raise unreadable  # cut off; libpng would print a message of its own
    try:
        picture = cv2.imdecode(data, cv2.IMREAD_COLOR_RGB)  # obeys EXIF, drops alpha
        # JPEG has no alpha channel, so it need not be decoded a second time.
        is_jpeg = data[:2].tobytes() == b"\xff\xd8"
        raw = None if is_jpeg else cv2.imdecode(data, cv2.IMREAD_UNCHANGED)
    except cv2.error:  # more pixels than OpenCV allows
        picture = raw = None
    if picture is None:
        raise unreadable
    if raw is not None and raw.ndim == 3 and raw.shape[2] == 4:
        picture = _on_white(raw)
    return np.ascontiguousarray(picture)


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


def _on_white(bgra: np.ndarray) -> np.ndarray:
    """BGRA of 8 or 16 bits -> RGB u8 over a white background."""
    unit = bgra / np.float32(np.iinfo(bgra.dtype).max)
    colour, alpha = unit[..., 2::-1], unit[..., 3:]
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
