"""Writes files and folders whole or not at all, without losing the ones they replace.

    with replacing(out) as unfinished:
        unfinished.write_text(text)

A path is one of the local file system or, in the form gs://bucket/run, one of a cloud
store, which is then accessed through etils.
"""

import contextlib
import errno
import os
import pathlib
import shutil
from collections.abc import Iterator
from typing import Any

from input_pipeline.clip import InputError


def in_store(path: str | os.PathLike) -> bool:
    """Whether `path` is in a cloud store, as gs://bucket/run, and not a local path."""
    return "://" in os.fspath(path)


@contextlib.contextmanager
def replacing(path: str | os.PathLike) -> Iterator[Any]:
    """Yields a temporary path to write to; the end of the block moves it to `path`.

    The temporary file or folder is beside `path`, under a name that nobody else uses,
    with the suffix of `path`.  If the block or the move fails, it is removed, and
    what was at `path` before is still there; an OSError is left for the caller to
    explain.  A symbolic link at `path` is replaced itself; its target is left alone.
    """
    path = absolute(path)
    unfinished = beside(path)
    try:
        yield unfinished
        put_in_place(unfinished, path)
    except BaseException:
        with contextlib.suppress(Exception):  # the first error is the one to report
            remove(unfinished)
        raise


def put_in_place(unfinished: Any, path: Any) -> None:
    """Renames a finished file or folder to `path`, in place of an older one.

    OSError: this is not possible; the older one is still there.  A folder does not
    replace a file, and a file replaces neither a folder nor a device.
    """
    if unfinished.is_dir():
        _put_folder(unfinished, path)
    elif path.exists() and not path.is_file():
        raise FileExistsError(errno.EEXIST, "exists and is no file", str(path))
    else:
        unfinished.replace(path)


def _put_folder(unfinished: Any, path: Any) -> None:
    """Moves a folder to `path`.  No system call replaces a folder that is not empty, so
    the older one is moved aside first, and back if the new one cannot be moved."""
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


@contextlib.contextmanager
def locked(folder: pathlib.Path, doing: str, flag: str) -> Iterator[None]:
    """Keeps other runs out of a local folder; the lock ends with this process.

    InputError: another run has it.  doing: what that run does, as "preparing it".
    flag: by which another folder can be chosen.
    """
    import fcntl

    with open(folder / ".lock", "w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InputError(
                f"{folder}: another run is {doing}; wait until it ends, or choose "
                f"another {flag}"
            ) from None
        yield


def same_place(a: str | os.PathLike, b: str | os.PathLike) -> bool:
    """Whether two paths lead to the same file or folder, also through links."""
    if in_store(a) or in_store(b):
        return os.fspath(a) == os.fspath(b)
    return pathlib.Path(a).resolve() == pathlib.Path(b).resolve()


def check_place(path: str | os.PathLike, *, parents: bool = False) -> None:
    """Checks, before long work, that `path` can be written.  OSError: it cannot.

    parents: create the folder that `path` is to be in, if it is missing.
    """
    trial = beside(absolute(path))
    trial.mkdir(parents=parents)
    trial.rmdir()


def absolute(path: str | os.PathLike) -> Any:
    """`path` as an absolute pathlib.Path or, in a cloud store, as an etils path."""
    if not in_store(path):
        return pathlib.Path(path).absolute()
    from etils import epath

    return epath.Path(path)


def beside(path: Any) -> Any:
    """A new name in the same folder: clip.mp4 -> clip.partial.1234-5f02ac.mp4.

    1234 is the process number.  The random rest tells apart files that one process
    writes at the same time, and processes on different machines or in different
    containers, which may have the same number.
    """
    own = f"{os.getpid()}-{os.urandom(3).hex()}"
    return path.with_name(f"{path.stem}.partial.{own}{path.suffix}")


def remove(path: Any) -> None:
    """Removes a file, a link or a whole folder as far as possible, if it exists."""
    if in_store(path):
        path.rmtree(missing_ok=True)
    elif path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
