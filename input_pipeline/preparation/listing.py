"""Lists the files of a folder: every file once, in an order that depends on names only.

A folder may hold links to other disks.  Files and folders are told apart by device and
inode, so that neither a link that leads back nor a second name makes two of one.
"""

import collections
import os
import pathlib
from collections.abc import Iterable, Iterator

VIDEOS = (
    *(".mp4", ".m4v", ".mov", ".qt", ".mkv", ".webm", ".avi", ".divx", ".mpg"),
    *(".mpeg", ".mpe", ".m1v", ".m2v", ".vob", ".ts", ".mts", ".m2ts", ".flv"),
    *(".f4v", ".wmv", ".asf", ".3gp", ".3g2", ".ogv", ".ogm", ".mxf", ".dv"),
    *(".rm", ".rmvb", ".nut", ".mjpeg", ".mjpg", ".y4m", ".wtv"),
)
PHOTOS = (
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".bmp", ".dib", ".tif"),
    *(".tiff", ".ppm", ".pgm", ".pnm", ".jp2", ".avif", ".gif"),
    *(".heic", ".heif"),
)


def files(folder: pathlib.Path) -> list[str]:
    """All files below the folder, as sorted paths within it, with slashes.

    A file that several names lead to is listed once: under its own name rather than a
    link's, and else under the first.  Names that begin with a dot are left out.
    """
    own, linked = [], []
    for parent, name, through_link in _walk(folder):
        path = parent / name
        kind = linked if through_link or path.is_symlink() else own
        kind.append((parent.relative_to(folder) / name).as_posix())
    found, seen = [], set()
    for name in [*sorted(own), *sorted(linked)]:
        which = _identity(folder / name)
        if which is None or which not in seen:
            seen.add(which)
            found.append(name)
    return sorted(found)


def _walk(folder: pathlib.Path) -> Iterator[tuple[pathlib.Path, str, bool]]:
    """(folder, name of a file, whether a link led there); each folder once, own ones
    before those that links lead to."""
    seen, waiting, through_link = set(), [folder], False
    while waiting:
        links = []
        for top in waiting:
            for parent, folders, names in os.walk(top):
                here = pathlib.Path(parent)
                which = _identity(here)
                if which in seen:
                    folders.clear()
                    continue
                seen.add(which)
                shown = sorted(name for name in folders if not name.startswith("."))
                links += [here / name for name in shown if (here / name).is_symlink()]
                folders[:] = shown
                for name in names:
                    if not name.startswith("."):
                        yield here, name, through_link
        waiting, through_link = sorted(links), True


def _identity(path: pathlib.Path) -> tuple[int, int] | None:
    """Device and inode; None for a broken link."""
    try:
        about = path.stat()
    except OSError:
        return None
    return about.st_dev, about.st_ino


def with_suffix(
    names: Iterable[str], suffixes: tuple[str, ...]
) -> list[pathlib.PurePosixPath]:
    """The names with one of the suffixes, in capitals or not."""
    paths = map(pathlib.PurePosixPath, names)
    return [path for path in paths if path.suffix.lower() in suffixes]


def others(names: Iterable[str], suffixes: tuple[str, ...]) -> dict[str, int]:
    """How many files have other suffixes, {suffix: files}, sorted."""
    suffix = (pathlib.PurePosixPath(name).suffix.lower() for name in names)
    counts = collections.Counter(one or "no suffix" for one in suffix)
    return {one: n for one, n in sorted(counts.items()) if one not in suffixes}
