"""`inspect`: its table, its pictures, and what it refuses."""

import subprocess
import sys

import numpy as np
import pytest

from input_pipeline.clip import InputError
from input_pipeline.faces import drawing
from input_pipeline.media.image import read_image
from input_pipeline.training_data import dataset, inspection, loader, sampling
from input_pipeline.training_data.synthetic import SyntheticClips, write_dataset
from tests.conftest import ROOT


@pytest.fixture(scope="module")
def made():
    return {
        "train": SyntheticClips(5, [50, 25, 75, 50, 50]),
        "test": SyntheticClips(1, 25, seed=1),
    }


@pytest.fixture(scope="module")
def data_dir(made, tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    write_dataset(folder, **made)
    return folder


def test_a_written_clip_reads_as_it_was_and_feeds_the_loader(made, data_dir):
    clips = dataset.open_clips(data_dir, "train")
    for clip, read in zip(made["train"], clips, strict=True):
        assert list(read.frames) == clip.frames
        np.testing.assert_array_equal(read.landmarks, clip.landmarks)
        np.testing.assert_array_equal(read.mfcc, clip.mfcc)
    assert clips.speakers == made["train"].speakers
    settings = {"batch_size": 3, "seed": 0, "pca": dataset.open_pca(data_dir, 6)}
    for kind in loader.KINDS:
        read = loader.training_batches(clips, kind, **settings)
        kept = loader.training_batches(made["train"], kind, **settings)
        for _ in range(3):
            for x, y in zip(next(read), next(kept), strict=True):
                np.testing.assert_array_equal(x, y)
        read.close(), kept.close()


def test_the_table_counts_clips_speakers_and_seconds(data_dir):
    lines = [line.split() for line in inspection.table(data_dir).splitlines()]
    assert ["train", "5", "4", "0.2", "2.00", "1.00", "3.00"] in lines
    assert ["test", "1", "1", "0.0", "1.00", "1.00", "1.00"] in lines
    assert not any(line[:1] == ["validation"] for line in lines)


def test_the_table_tells_what_the_pca_explains(data_dir):
    counts, shares = (
        line.split()[2:] for line in inspection.table(data_dir).splitlines()[-2:]
    )
    assert counts == ["1", "2", "3", "6", "10", "20"]
    shares = [float(share.rstrip("%")) for share in shares]
    assert shares == sorted(shares) and shares[-1] == 100
    clips = dataset.open_clips(data_dir, "train")
    x = np.concatenate([clip.landmarks.reshape(-1, 136) for clip in clips])
    pca = dataset.open_pca(data_dir, 2)
    left = np.square(pca.reconstruct(pca.project(x)) - x).sum()
    explained = 1 - left / np.square(x - x.mean(0)).sum()
    assert shares[1] == pytest.approx(100 * explained, abs=0.02)


def test_an_empty_split_has_a_row():
    assert inspection.summary(SyntheticClips(0)) == ["0", "0", "0.0", "-", "-", "-"]


def test_the_sheet_shows_first_and_last_frames_and_every_other_with_points(made):
    sheet = inspection.contact_sheet(made["train"])
    columns = inspection.SHEET[1]
    height = 128 + inspection.LABEL
    assert sheet.shape == (5 * height, columns * 128, 3)  # 4 speakers, one twice
    clip = made["train"][1]
    first, last = (
        sheet[height : height + 128, x : x + 128] for x in (0, (columns - 1) * 128)
    )
    frames = sampling.decode(clip, [0, 24])
    np.testing.assert_array_equal(first, frames[0])
    np.testing.assert_array_equal(last, frames[1])
    assert (sheet[:128, 128:256] == drawing.GREEN).all(axis=-1).sum() > 68
    assert (sheet[:128, :128] == drawing.GREEN).all(axis=-1).sum() == 0


def test_a_large_split_is_seen_from_end_to_end():
    assert inspection.spread(100, 5) == [0, 24, 49, 74, 99]
    assert inspection.spread(3, 5) == [0, 1, 2]
    assert inspection.choose([f"s{i}" for i in range(100)], 5) == [0, 24, 49, 74, 99]


def test_a_speaker_with_many_clips_does_not_hide_the_others():
    speakers = ["s1"] * 90 + ["s2"] * 9 + ["s3"]
    assert inspection.choose(speakers, 6) == [0, 89, 90, 98, 99]


def test_main_inspect_prints_the_table_and_writes_two_pictures(data_dir, tmp_path):
    out = tmp_path / "new" / "out"
    flags = [f"--data_dir={data_dir}", "--split=train", "--index=2", f"--out={out}"]
    done = subprocess.run(
        [sys.executable, ROOT / "main.py", "inspect", *flags],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert "train" in done.stdout and "variance explained" in done.stdout
    for name in ("contact_sheet.png", "example.png"):
        assert read_image(out / name).shape[1] > 1000


def test_words_and_a_single_frame_are_plotted_too(tmp_path):
    clip = SyntheticClips(1, 1)[0]._replace(words=(("bin", 0.0, 0.04),))
    inspection.plot_example(clip, tmp_path / "one.png")
    assert read_image(tmp_path / "one.png").std() > 0


def test_the_default_folder_is_inside_the_data_dir(data_dir):
    folder = inspection.default_folder(data_dir)
    assert folder.parent == data_dir
    folder.mkdir()
    dataset.open_clips(data_dir, "train")  # not taken for another dataset


@pytest.mark.parametrize(
    ("split", "index", "message"),
    [
        ("test", 1, "index=1: split test holds 1 clips; ask for 0..0"),
        ("test", -1, "index=-1"),
        ("validation", 0, "no split 'validation'"),
    ],
)
def test_a_split_or_clip_that_is_not_there_is_refused(
    data_dir, tmp_path, split, index, message
):
    with pytest.raises(InputError, match=message):
        inspection.inspect(data_dir, split, index, tmp_path)
    assert not list(tmp_path.iterdir())


def test_an_empty_split_is_refused(data_dir, tmp_path, monkeypatch):
    monkeypatch.setattr(dataset, "open_clips", lambda *_: SyntheticClips(0))
    with pytest.raises(InputError, match="split test holds no clips; name another"):
        inspection.inspect(data_dir, "test", 0, tmp_path)


def test_a_folder_without_a_dataset_is_refused(tmp_path):
    with pytest.raises(InputError, match="no prepared dataset"):
        inspection.inspect(tmp_path, "train", 0, tmp_path / "out")
