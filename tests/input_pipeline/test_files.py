"""A file or folder appears whole or not at all, and what was there is never lost."""

import fnmatch
import os
import pathlib
import subprocess
import sys

import fsspec
import pytest
from etils import epath
from fsspec.implementations.memory import MemoryFileSystem

from input_pipeline.files import check_place, replacing

ROOT = pathlib.Path(__file__).resolve().parents[2]


@pytest.fixture(params=["here", "store"])
def place(request, tmp_path):
    """A folder of this machine, and one of gs:// in memory, as etils finds it."""
    if request.param == "here":
        yield tmp_path
        return
    for protocol in ("gs", "gcs"):
        fsspec.register_implementation(protocol, MemoryFileSystem, clobber=True)
    folder = epath.Path("gs://bucket/folder")
    folder.mkdir(parents=True)
    yield folder
    MemoryFileSystem.store.clear()
    MemoryFileSystem.pseudo_dirs[:] = [""]


def make_file(path, text):
    path.write_text(text)


def make_folder(path, text):
    """Two files, one in a folder of its own."""
    (path / "deep").mkdir(parents=True)
    (path / "a.txt").write_text(text)
    (path / "deep" / "b.txt").write_text(text)


MAKE = {"file": make_file, "folder": make_folder}


@pytest.fixture(params=MAKE)
def make(request):
    return MAKE[request.param]


def read(path):
    """The one text that all of its files have."""
    if not path.is_dir():
        return path.read_text()
    text = (path / "a.txt").read_text()
    assert (path / "deep" / "b.txt").read_text() == text
    return text


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def fail(*_, **__):
    raise OSError(28, "No space left on device")


# --- when all goes well ---


def test_a_new_one_appears_at_the_end(make, place):
    with replacing(place / "new.npz") as unfinished:
        make(unfinished, "new")
        assert not (place / "new.npz").exists()
    assert read(place / "new.npz") == "new"
    assert names(place) == ["new.npz"]


def test_an_older_one_is_there_until_the_end_and_then_replaced(make, place):
    make(place / "out", "old")
    if (place / "out").is_dir():
        (place / "out" / "of the old one only").write_text("")
    with replacing(place / "out") as unfinished:
        make(unfinished, "new")
        assert read(place / "out") == "old"
    assert read(place / "out") == "new"
    assert not (place / "out" / "of the old one only").exists()
    assert names(place) == ["out"]


@pytest.mark.parametrize("name", ["a.mp4", "a.b.npz", "folder", ".hidden", "v1.2"])
def test_the_unfinished_ones_name_keeps_the_suffix_and_git_ignores_it(name, tmp_path):
    with replacing(tmp_path / name) as unfinished:
        unfinished.touch()
        assert unfinished.parent == tmp_path
        assert unfinished.name.endswith(pathlib.Path(name).suffix)
        assert str(os.getpid()) in unfinished.name
        ignored = (ROOT / ".gitignore").read_text().split()
        assert any(fnmatch.fnmatch(unfinished.name, rule) for rule in ignored)
    assert names(tmp_path) == [name]


def test_a_relative_path_is_that_of_the_start(tmp_path, monkeypatch):
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path)
    with replacing("a.txt") as unfinished:
        unfinished.write_text("new")
        monkeypatch.chdir(tmp_path / "elsewhere")
    assert read(tmp_path / "a.txt") == "new"


def test_a_link_is_replaced_and_what_it_points_to_left_alone(make, tmp_path):
    make(tmp_path / "target", "old")
    (tmp_path / "link").symlink_to("target")
    with replacing(tmp_path / "link") as unfinished:
        make(unfinished, "new")
    assert not (tmp_path / "link").is_symlink()
    assert read(tmp_path / "link") == "new"
    assert read(tmp_path / "target") == "old"
    assert names(tmp_path) == ["link", "target"]


# --- when something fails ---


@pytest.mark.parametrize("older", [True, False])
@pytest.mark.parametrize("error", [OSError, KeyboardInterrupt])
@pytest.mark.parametrize("when", ["at once", "half-way", "at the end"])
def test_an_exception_leaves_what_was_there(make, place, when, error, older):
    if older:
        make(place / "out", "old")
    with pytest.raises(error, match="stop"), replacing(place / "out") as unfinished:
        if when == "half-way" and make is make_folder:
            unfinished.mkdir()
            (unfinished / "a.txt").write_text("new")
        elif when == "half-way":
            unfinished.write_text("n")
        elif when == "at the end":
            make(unfinished, "new")
        raise error("stop")
    assert names(place) == (["out"] if older else [])
    assert not older or read(place / "out") == "old"


def test_the_first_error_is_the_one_to_report(tmp_path):
    """Removing fails, too: with "Not a directory"."""
    make_file(tmp_path / "file", "old")
    with pytest.raises(RuntimeError, match="stop"), replacing(tmp_path / "file" / "b"):
        raise RuntimeError("stop")


def test_a_block_that_makes_nothing_is_an_error(place):
    make_file(place / "out", "old")
    with pytest.raises(FileNotFoundError), replacing(place / "out"):
        pass
    assert read(place / "out") == "old"


def test_a_file_that_cannot_be_renamed_leaves_the_older_one(tmp_path, monkeypatch):
    make_file(tmp_path / "out", "old")
    monkeypatch.setattr(pathlib.Path, "replace", fail)
    with pytest.raises(OSError, match="No space"), replacing(tmp_path / "out") as new:
        make_file(new, "new")
    assert read(tmp_path / "out") == "old"
    assert names(tmp_path) == ["out"]


def failing_renames(monkeypatch, kind, *numbers):
    """The renames of these numbers, counted from 1, fail."""
    real, count = kind.rename, 0

    def rename(self, target):
        nonlocal count
        count += 1
        return fail() if count in numbers else real(self, target)

    monkeypatch.setattr(kind, "rename", rename)


@pytest.mark.parametrize("number", [1, 2])
def test_a_folder_that_cannot_be_renamed_leaves_the_older_one(
    number, place, monkeypatch
):
    """Neither when the older one cannot be moved aside, nor when the new one cannot be
    moved to its place."""
    make_folder(place / "out", "old")
    failing_renames(monkeypatch, type(place), number)
    with pytest.raises(OSError, match="No space"), replacing(place / "out") as new:
        make_folder(new, "new")
    assert read(place / "out") == "old"
    assert names(place) == ["out"]


def test_a_first_folder_that_cannot_be_renamed_leaves_nothing(place, monkeypatch):
    failing_renames(monkeypatch, type(place), 1)
    with pytest.raises(OSError, match="No space"), replacing(place / "out") as new:
        make_folder(new, "new")
    assert names(place) == []


def test_an_older_folder_that_cannot_be_put_back_is_not_deleted(place, monkeypatch):
    make_folder(place / "out", "old")
    failing_renames(monkeypatch, type(place), 2, 3)
    with pytest.raises(OSError, match="No space"), replacing(place / "out") as new:
        make_folder(new, "new")
    (name,) = names(place)
    assert name.startswith("out.partial.")
    assert read(place / name) == "old"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may delete anything")
def test_an_older_folder_that_cannot_be_deleted_does_no_harm(tmp_path):
    make_folder(tmp_path / "out", "old")
    (tmp_path / "out" / "deep").chmod(0o500)
    with replacing(tmp_path / "out") as new:
        make_folder(new, "new")
    assert read(tmp_path / "out") == "new"
    for path in tmp_path.glob("*/deep"):
        path.chmod(0o700)


def test_a_folder_does_not_replace_a_file_nor_a_file_a_folder(place):
    make_file(place / "file", "old")
    make_folder(place / "folder", "old")
    with pytest.raises(OSError), replacing(place / "file") as unfinished:
        make_folder(unfinished, "new")
    with pytest.raises(OSError), replacing(place / "folder") as unfinished:
        make_file(unfinished, "new")
    assert read(place / "file") == read(place / "folder") == "old"
    assert names(place) == ["file", "folder"]


def test_a_device_is_not_replaced(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with (
        pytest.raises(FileExistsError, match="exists and is no file"),
        replacing(tmp_path / "pipe") as unfinished,
    ):
        make_file(unfinished, "new")
    assert (tmp_path / "pipe").is_fifo()
    assert names(tmp_path) == ["pipe"]


# --- two that write the same ---


def test_two_writers_do_not_mix_and_the_later_one_stays(make, place):
    make(place / "out", "old")
    with replacing(place / "out") as first:
        make(first, "first")
        with replacing(place / "out") as second:
            make(second, "second")
            assert read(first) == "first"
        assert read(place / "out") == "second"
    assert read(place / "out") == "first"
    assert names(place) == ["out"]


def test_one_that_comes_between_the_renames_is_left_whole(tmp_path, monkeypatch):
    """The older folder is aside, and another process puts its own there first."""
    make_folder(tmp_path / "out", "old")
    real = pathlib.Path.rename

    def rename(self, target):
        if read(self) == "new":
            make_folder(tmp_path / "out", "another's")
        return real(self, target)

    monkeypatch.setattr(pathlib.Path, "rename", rename)
    with pytest.raises(OSError), replacing(tmp_path / "out") as unfinished:
        make_folder(unfinished, "new")
    assert read(tmp_path / "out") == "another's"
    assert names(tmp_path) == ["out"]


@pytest.mark.skipif(sys.platform == "win32", reason="a folder in use is not renamed")
def test_processes_that_write_the_same_file_leave_one_whole(tmp_path):
    program = (
        "import sys\n"
        "from input_pipeline.files import replacing\n"
        "for _ in range(200):\n"
        f"    with replacing({str(tmp_path / 'out')!r}) as unfinished:\n"
        "        unfinished.write_text(10_000 * sys.argv[1])\n"
    )
    processes = [
        subprocess.Popen([sys.executable, "-c", program, letter], cwd=ROOT)
        for letter in "ab"
    ]
    assert [process.wait(60) for process in processes] == [0, 0]
    assert read(tmp_path / "out") in (10_000 * "a", 10_000 * "b")
    assert names(tmp_path) == ["out"]


# --- before and beside ---


def test_a_place_is_tried_without_a_trace(tmp_path):
    check_place(tmp_path / "a.npy")
    assert names(tmp_path) == []
    with pytest.raises(FileNotFoundError):
        check_place(tmp_path / "none" / "a.npy")
    check_place(tmp_path / "some" / "folders" / "out", parents=True)
    assert names(tmp_path / "some" / "folders") == []
    make_file(tmp_path / "file", "old")
    with pytest.raises(NotADirectoryError):
        check_place(tmp_path / "file" / "out", parents=True)


def test_it_imports_nothing_heavy():
    program = (
        "import sys, input_pipeline.files\n"
        "sys.exit(bool({'jax', 'numpy', 'etils'} & set(sys.modules)))\n"
    )
    assert subprocess.run([sys.executable, "-c", program], cwd=ROOT).returncode == 0
