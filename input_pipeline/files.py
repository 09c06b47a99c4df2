"""Files and folders that appear whole or not at all, and replace an older one safely.

    with replacing(out) as unfinished:
        unfinished.write_text(text)

A path is a file or folder here, or an etils path in a store, as gs://bucket/run.
"""

import contextlib
import errno
import os
import pathlib
import shutil
from collections.abc import Iterator
from typing import Any


def in_store(path: str | os.PathLike) -> bool:
    """Whether it is an address, as gs://bucket/run, and no path of this machine."""
    return "://" in os.fspath(path)


@contextlib.contextmanager
def replacing(path: str | os.PathLike) -> Iterator[Any]:
    """The path of a file or folder beside `path`, to be made in the `with` block; at
    its end it takes the place of what is there.

    Nobody else writes under the name it has, and its suffix is that of `path`.  When
    the block or the replacement fails, the unfinished one is removed, and what was
    there before is there still; OSErrors are the caller's to explain.  A link is
    replaced itself; what it points to is left alone.
    """
    path = absolute(path)
    unfinished = beside(path)
    try:
        yield unfinished
        put_in_place(unfinished, path)
    except BaseException:
        with contextlib.suppress(Exception):  # the first error is the one to be told
            remove(unfinished)
        raise


def put_in_place(unfinished: Any, path: Any) -> None:
    """Renames a finished file or folder to `path`, in place of an older one.

    OSError: it is not possible; the older one is there still.  A folder replaces no
    file, and a file replaces neither a folder nor a device.
    """
    if unfinished.is_dir():
        _put_folder(unfinished, path)
    elif path.exists() and not path.is_file():
        raise FileExistsError(errno.EEXIST, "exists and is no file", str(path))
    else:
        unfinished.replace(path)


def _put_folder(unfinished: Any, path: Any) -> None:
    """No system call replaces a folder that is not empty: the older one is moved aside
    first, and back if the new one cannot be moved there."""
    aside = beside(path)
    try:
        if path.is_dir():
            path.rename(aside)
        unfinished.rename(path)
    except BaseException:
        if aside.exists() and not path.exists():
            aside.rename(path)
        raise
    finally:
        if path.exists():
            remove(aside)


def check_place(path: str | os.PathLike, *, parents: bool = False) -> None:
    """OSError: nothing can be written beside `path`.  To be asked before long work.

    parents: make the folder that `path` is to be in, where it is missing.
    """
    trial = beside(absolute(path))
    trial.mkdir(parents=parents)
    trial.rmdir()


def absolute(path: str | os.PathLike) -> Any:
    """As a path with a name, and with the methods of pathlib or, in a store, etils."""
    if not in_store(path):
        return pathlib.Path(path).absolute()
    from etils import epath

    return epath.Path(path)


def beside(path: Any) -> Any:
    """clip.mp4 -> clip.partial.1234-5f02ac.mp4, in the same folder.

    The number is the process's; the rest tells apart what one process writes at once,
    and processes of other machines or containers, whose numbers may be the same.
    """
    own = f"{os.getpid()}-{os.urandom(3).hex()}"
    return path.with_name(f"{path.stem}.partial.{own}{path.suffix}")


def remove(path: Any) -> None:
    """A file, a link or a whole folder, if it is there and as far as is possible."""
    if in_store(path):
        path.rmtree(missing_ok=True)
    elif path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
