"""`prepare` as a whole: it is restartable and deterministic, and reports rejects."""

import errno
import fcntl
import json
import os
import pathlib
import subprocess
import sys
import time

import numpy as np
import pytest

from input_pipeline import workers
from input_pipeline.clip import InputError
from input_pipeline.faces import align, landmarks
from input_pipeline.media import image
from input_pipeline.preparation import prepare as job
from input_pipeline.preparation import results
from input_pipeline.preparation.prepare import prepare
from input_pipeline.preparation.recording import Options
from input_pipeline.training_data import dataset, records
from tests.conftest import ROOT
from tests.input_pipeline.face_videos import assert_same, contents

GRID = ["bbaf2n", "bbal6n", "lgbf8n"]


# What comes out


def test_lrw_becomes_a_dataset(prepared, lrw):
    train = dataset.open_clips(prepared, "train")
    assert train.clip_ids == [
        "ABOUT/train/ABOUT_00001",
        "YOUNG/train/YOUNG_00005",
        "YOUNG/train/YOUNG_00006",
    ]
    assert len(dataset.open_clips(prepared, "validation")) == 2
    assert len(dataset.open_clips(prepared, "test")) == 2
    clip = train[1]
    assert (len(clip.frames), clip.mfcc.shape) == (29, (140, 13))
    assert clip.words == (("YOUNG", pytest.approx(0.38), pytest.approx(0.78)),)
    assert list(train.lengths) == [29, 29, 29]
    assert sorted(path.name for path in prepared.parent.iterdir()) == [
        ".lock",
        records.VERSION,
    ]


def test_every_reject_is_on_record(prepared):
    lines = (prepared / "rejects.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == [
        {
            "path": "ABOUT/train/ABOUT_00002.mp4",
            "reason": "no face",
            "value": 29,
            "start": 0.0,
        }
    ]
    assert "| no face | 1 |" in (prepared / "README.md").read_text()


def test_the_pca_is_that_of_the_training_split_alone(prepared):
    train = dataset.open_clips(prepared, "train")
    rows = np.concatenate([clip.landmarks.reshape(-1, 136) for clip in train])
    pca, variance = landmarks.fit_pca([rows], 32)
    with np.load(prepared / "pca.npz") as stored:
        np.testing.assert_allclose(stored["mean"], pca.mean, atol=1e-6)
        np.testing.assert_allclose(stored["variance"], variance, atol=1e-8)
    opened = dataset.open_pca(prepared, 6)
    np.testing.assert_allclose(opened.components, pca.components[:, :6], atol=1e-4)


def test_the_template_is_known_to_who_must_align_a_photo_alike(prepared):
    template = align.Template(*dataset.open_template(prepared))
    np.testing.assert_array_equal(template.points, align.DEFAULT_TEMPLATE.points)
    assert template.indices == align.DEFAULT_TEMPLATE.indices


def test_statistics_are_those_of_the_clips(prepared):
    statistics = json.loads((prepared / "statistics.json").read_text())
    assert statistics["total"] == {"clips": 7, "frames": 203, "seconds": 8.12}
    assert statistics["speakers"]["unknown"]["clips"] == 7
    assert statistics["rejects"] == {"no face": 1}
    train = dataset.open_clips(prepared, "train")
    mfcc = np.concatenate([clip.mfcc for clip in train])
    points = np.concatenate([clip.landmarks.reshape(-1, 2) for clip in train])
    for name, rows in (("mfcc", mfcc), ("landmarks", points)):
        np.testing.assert_allclose(
            statistics["train"][name]["mean"], rows.mean(0), atol=1e-4
        )
        np.testing.assert_allclose(
            statistics["train"][name]["std"], rows.std(0), atol=1e-4
        )


def test_the_contact_sheet_has_a_row_a_speaker(prepared):
    assert image.read_image(prepared / "contact_sheet.png").shape == (256, 2048, 3)


def test_nothing_in_the_folder_says_where_it_was_made(prepared, lrw):
    for name, data in contents(prepared).items():
        assert str(lrw).encode() not in data, name
        assert str(prepared.parents[2]).encode() not in data, name


def test_many_clips_make_many_shards(lrw, prepared, tmp_path, monkeypatch):
    monkeypatch.setattr(job, "SHARD_BYTES", 200_000)
    folder = prepare("lrw", lrw, tmp_path, num_workers=2)
    assert len(list(folder.glob("*train.array_record*"))) > 1
    few, many = (
        dataset.open_clips(prepared, "train"),
        dataset.open_clips(folder, "train"),
    )
    assert [c.frames for c in few] == [c.frames for c in many]


# Restart


def test_the_result_does_not_depend_on_the_number_of_workers(lrw, prepared, tmp_path):
    assert_same(prepare("lrw", lrw, tmp_path, num_workers=3), prepared)


def start(lrw, data_dir):
    flags = ["--corpus=lrw", f"--source={lrw}", f"--data_dir={data_dir}", "--workers=2"]
    command = [sys.executable, "main.py", "prepare", *flags]
    return subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def wait_for(process, condition):
    """Until the condition holds or the process has ended."""
    while process.poll() is None and not condition():
        time.sleep(0.005)


def test_a_finished_dataset_is_left_alone(lrw, tmp_path, capsys):
    with pytest.warns(UserWarning, match="no clip for validation, which `train`"):
        folder = prepare("lrw", lrw, tmp_path, limit=2, num_workers=1)
    before = {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}
    (folder.parent / "work").mkdir()  # as a kill in the last moment leaves it
    assert prepare("lrw", lrw, tmp_path, limit=2, num_workers=1) == folder
    assert "already prepared; delete it" in capsys.readouterr().out
    assert before == {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}
    assert not (folder.parent / "work").exists()
    with pytest.raises(InputError, match=r"made with limit=2 \(now 3\).*; delete it"):
        prepare("lrw", lrw, tmp_path, limit=3)
    with pytest.raises(InputError, match=r"max_seconds=10.0 \(now 5.0\)"):
        prepare("lrw", lrw, tmp_path, Options(max_seconds=5.0), limit=2)
    mirrored = align.DEFAULT_TEMPLATE._replace(indices=(*range(27, 40),))
    with pytest.raises(InputError, match="made with another template; delete"):
        prepare("lrw", lrw, tmp_path, Options(template=mirrored), limit=2)
    first = sorted(lrw.rglob("*.mp4"))[0]
    content = first.read_bytes()
    first.write_bytes(content + b"x")
    try:
        with pytest.raises(InputError, match="made with files=2 files, "):
            prepare("lrw", lrw, tmp_path, limit=2)
    finally:
        first.write_bytes(content)


def test_an_unfinished_one_is_not_mixed_with_other_options(lrw, tmp_path, monkeypatch):
    monkeypatch.setattr(job.Local, "finish", interrupted)
    with pytest.raises(KeyboardInterrupt):
        prepare("lrw", lrw, tmp_path)
    with pytest.raises(InputError, match=r"several_faces=reject \(now largest\)"):
        prepare("lrw", lrw, tmp_path, Options(several_faces="largest"))


@pytest.mark.parametrize("text", ["", "[]", '{"flags": {}}', '{"flags": 3}', None])
def test_damaged_options_are_an_error(tmp_path, text):
    settings = {"flags": {"limit": 2}, "options": {}, "files": "2 files"}
    path = tmp_path / "options.json"
    path.write_text(json.dumps(settings))
    job._compare(settings, tmp_path, list(settings))
    path.unlink() if text is None else path.write_text(text)
    with pytest.raises(
        InputError, match=r"options.json: damaged .*; delete .* to prep"
    ):
        job._compare(settings, tmp_path, list(settings))


def interrupted(*_):
    raise KeyboardInterrupt


def test_a_second_run_into_the_same_folder_stops(lrw, tmp_path):
    home = tmp_path / records.NAME / "lrw"
    home.mkdir(parents=True)
    with open(home / ".lock", "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(InputError, match="another run is preparing it; wait"):
            prepare("lrw", lrw, tmp_path)
    assert not (home / "work").exists()


def test_two_processes_at_once_one_result(lrw, prepared, tmp_path):
    one = start(lrw, tmp_path)
    wait_for(one, (tmp_path / records.NAME / "lrw" / "work").exists)
    other = start(lrw, tmp_path)
    _, error = other.communicate()
    assert other.returncode == 2
    assert "another run is preparing it" in error
    assert len(error.strip().splitlines()) == 1
    assert one.wait() == 0, one.communicate()
    assert_same(tmp_path / records.NAME / "lrw" / records.VERSION, prepared)


def full(*_, **__):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_full_disk_is_one_line_and_loses_nothing(
    lrw, prepared, tmp_path, monkeypatch
):
    """Full after two files; then full while the shards are written."""

    def two_then_full(function, items, _):
        for item in items[:2]:
            yield item, function(item)
        full()

    work = tmp_path / records.NAME / "lrw" / "work"
    message = "the disk is full; make room and run the same command again"
    with monkeypatch.context() as patched:
        patched.setattr(workers, "for_each", two_then_full)
        with pytest.raises(InputError, match=message):
            prepare("lrw", lrw, tmp_path)
    assert len(list(work.glob("clips/*/*"))) == 2
    with monkeypatch.context() as patched:
        patched.setattr(job.records, "write_shards", full)
        with pytest.raises(InputError, match=message):
            prepare("lrw", lrw, tmp_path, num_workers=2)
    assert len(list(work.glob("clips/*/*"))) == 8
    assert_same(prepare("lrw", lrw, tmp_path), prepared)


def test_a_write_that_fails_leaves_no_partial_file(tmp_path, monkeypatch):
    monkeypatch.setattr(pathlib.Path, "replace", full)
    with pytest.raises(OSError, match="No space"):
        results.write_atomically(tmp_path / "a" / "b", b"data")
    assert list((tmp_path / "a").iterdir()) == []


def test_a_folder_that_cannot_be_written_is_an_input_error(lrw, tmp_path, monkeypatch):
    def refused(*_, **__):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(results, "write_atomically", refused)
    monkeypatch.setattr(job, "write_atomically", refused)
    with pytest.raises(InputError, match="cannot be written"):
        prepare("lrw", lrw, tmp_path)


def test_a_damaged_result_is_made_again(lrw, prepared, tmp_path, monkeypatch):
    """Cut off, as after a power failure."""
    real = job.Local.finish

    def damaged(self, work, sources):
        real(self, work, sources)
        for path, size in zip(work.work.glob("clips/*/*"), (0, 50, 1000), strict=False):
            path.write_bytes(path.read_bytes()[:size])
        real(self, work, sources)

    monkeypatch.setattr(job.Local, "finish", damaged)
    assert_same(prepare("lrw", lrw, tmp_path, num_workers=1), prepared)


# What cannot be prepared


def test_no_training_clip_is_an_input_error(lrw, tmp_path):
    nobody = tmp_path / "ABOUT" / "train"
    nobody.mkdir(parents=True)
    (nobody / "ABOUT_00002.mp4").symlink_to(lrw / "ABOUT/train/ABOUT_00002.mp4")
    with pytest.raises(InputError, match=r"no clip for training .* \(rejects: no face"):
        prepare("lrw", tmp_path, tmp_path / "out", num_workers=1)


def test_a_link_to_nowhere_is_a_reject(lrw, tmp_path):
    train = tmp_path / "ABOUT" / "train"
    train.mkdir(parents=True)
    good = lrw / "ABOUT/train/ABOUT_00001.mp4"
    (train / "ABOUT_00001.mp4").symlink_to(good)
    (train / "ABOUT_00007.mp4").symlink_to(tmp_path / "nowhere.mp4")
    folder = prepare("lrw", tmp_path, tmp_path / "out", num_workers=1)
    (line,) = (folder / "rejects.jsonl").read_text().splitlines()
    assert json.loads(line)["reason"] == "undecodable"
    assert "no such file" in json.loads(line)["value"]


def test_a_file_that_changes_meanwhile_is_an_input_error(lrw, tmp_path, monkeypatch):
    def nothing_done(*_):
        pass

    monkeypatch.setattr(job.Local, "finish", nothing_done)
    with pytest.raises(InputError, match="changed while it was prepared; run the same"):
        prepare("lrw", lrw, tmp_path)


def test_a_data_dir_that_is_a_file_is_an_input_error(lrw, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=r"cannot be written \(Not a directory\)"):
        prepare("lrw", lrw, tmp_path / "file")


def test_wrong_numbers_are_input_errors(lrw, tmp_path):
    with pytest.raises(InputError, match="runner=spark: choose one of"):
        prepare("lrw", lrw, tmp_path, runner="spark")
    with pytest.raises(InputError, match="workers=0 limit=0: must be 1 and 0 at least"):
        prepare("lrw", lrw, tmp_path, num_workers=0)
    with pytest.raises(InputError, match="workers=1 limit=-1: must be 1 and 0 at"):
        prepare("lrw", lrw, tmp_path, num_workers=1, limit=-1)


def test_the_command_names_the_flags_left_out():
    command = [sys.executable, "main.py", "prepare", "--corpus=grid"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.startswith("error: prepare: --source --data_dir missing")


# GRID from the command line


def test_a_few_grid_clips_from_the_command_line(shared, tmp_path):
    """One of them begins with twelve broken frames, and is rejected for that."""
    for name in GRID:
        original = shared("data", "grid", "s1") / f"{name}.mpg"
        place = tmp_path / "corpus" / "s1" / "video" / "mpg_6000" / original.name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.symlink_to(original)
    flags = [f"--source={tmp_path / 'corpus'}", f"--data_dir={tmp_path}"]
    command = [sys.executable, "main.py", "prepare", "--corpus=grid", *flags]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert "| train | 2 | 150 | 6 |" in done.stdout
    assert "| face lost | 1 |" in done.stdout
    assert "rejects 1" in done.stderr
    assert "files/s" in done.stderr
