"""A dataset with a damaged file is an InputError that names the folder or the clip."""

import json
import zipfile

import numpy as np
import pytest

from input_pipeline.clip import InputError
from input_pipeline.training_data import dataset
from input_pipeline.training_data.synthetic import SyntheticClips, write_dataset


@pytest.fixture
def folder(tmp_path):
    write_dataset(tmp_path, train=SyntheticClips(3, 12))
    (path,) = tmp_path.glob("*/*/*/index.npz")
    return path.parent


def edit(path, **changes):
    """Replaces arrays of an .npz."""
    with np.load(path) as arrays:
        kept = dict(arrays.items()) | changes
    np.savez(path, **{name: x for name, x in kept.items() if x is not None})


def everything(folder):
    """All that training reads."""
    clips = dataset.open_clips(folder, "train")
    dataset.open_template(folder)
    dataset.open_pca(folder, 3)
    return [clips[i] for i in range(len(clips))]


@pytest.mark.parametrize(
    "changes",
    [
        {"train/speakers": np.array(["a"])},
        {"train/clip_ids": None},
        {"train/lengths": np.array([1.5, 2, 3])},
        {"train/lengths": np.array([12, 0, 12])},
        {"train/lengths": np.ones((3, 1), np.int64)},
        {"train/clip_ids": np.arange(3)},
        {"train/clip_ids": np.array([{}] * 3, object)},
    ],
)
def test_a_damaged_index_is_an_error(folder, changes):
    edit(folder / "index.npz", **changes)
    with pytest.raises(InputError, match=r"damaged dataset .* prepare it again"):
        everything(folder)


@pytest.mark.parametrize(
    "changes",
    [
        {"mean": np.zeros(3, np.float32)},
        {"components": None},
        {"mean": np.full(136, np.nan, np.float32)},
        {"components": np.zeros((136, 20), "U3")},
        {"components": np.zeros((136, 20, 1), np.float32)},
        {"components": np.zeros((136, 0), np.float32)},
        {"components": np.zeros((136, 137), np.float32)},
        {"variance": np.zeros(135)},
        {"variance": np.full(136, np.inf)},
    ],
)
def test_a_damaged_pca_is_an_error(folder, changes):
    edit(folder / "pca.npz", **changes)
    with pytest.raises(InputError, match="damaged dataset"):
        everything(folder)


@pytest.mark.parametrize(
    "text",
    [
        *("", "[]", "{}", "\0", '{"options": 3}', '{"options": {"template": {}}}'),
        '{"options": {"template": {"points": [[1, 2]], "indices": [{}]}}}',
    ],
)
def test_damaged_options_are_an_error(folder, text):
    (folder / "options.json").write_text(text)
    with pytest.raises(InputError, match="damaged dataset"):
        everything(folder)


def test_damaged_shards_name_the_clip(folder):
    (shard,) = folder.glob("*array_record*")
    whole = shard.read_bytes()
    for data in (b"", whole[:100], whole[: len(whole) // 2], bytes(len(whole))):
        shard.write_bytes(data)
        with pytest.raises(InputError, match=r"cartoon0/0000, clip 0 of .* cannot be"):
            everything(folder)
    shard.write_bytes(whole)
    (folder / "features.json").write_bytes(b"\xfd")
    with pytest.raises(InputError, match="cannot be read"):
        everything(folder)


def test_a_split_without_examples_is_an_error_and_no_warning(folder, caplog):
    path = folder / "dataset_info.json"
    text = json.loads(path.read_text())
    text["splits"][0] |= {"shardLengths": []}
    path.write_text(json.dumps(text))
    with pytest.raises(InputError, match=r"no examples of the split train\); prepare"):
        everything(folder)
    assert not caplog.records


def test_a_pickle_in_an_archive_is_not_opened(folder):
    """Nothing that comes in runs code."""
    with zipfile.ZipFile(folder / "index.npz", "w") as file:
        file.writestr("train/lengths.npy", b"cos\nsystem\n(S'true'\ntR.")
    with pytest.raises(InputError, match="damaged dataset"):
        everything(folder)
