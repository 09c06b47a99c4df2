"""Clips to disk and back, in any order, without TensorFlow."""

import pickle
import subprocess
import sys

import numpy as np
import pytest

from input_pipeline.clip import Clip, InputError
from input_pipeline.training_data import dataset, records


def clips(count, speaker="s1"):
    """Clips of different lengths; their 'frames' are never decoded."""
    random = np.random.default_rng(count)

    def block(*shape):
        return random.normal(size=shape).astype(np.float32)

    for n in range(count):
        frames = 17 + n
        yield Clip(
            frames=[random.bytes(100 + t) for t in range(frames)],
            landmarks=block(frames, 68, 2),
            mfcc=block(4 * frames + 24, 13),
            transforms=block(frames, 2, 3),
            corpus="grid",
            speaker=speaker,
            clip_id=f"{speaker}/clip{n}",
            words=(("bin", 0.25, 0.5), ("blue", 0.5, 0.75)) if n % 2 else (),
        )


def index(**splits):
    arrays = {}
    for split, some in splits.items():
        arrays[f"{split}/clip_ids"] = np.array([clip.clip_id for clip in some])
        arrays[f"{split}/speakers"] = np.array([clip.speaker for clip in some])
        arrays[f"{split}/lengths"] = np.array([len(clip.frames) for clip in some])
    return arrays


@pytest.fixture
def folder(tmp_path):
    """Two shards for training, one for testing."""
    train, test = list(clips(5)), list(clips(2, "s2"))
    shards = {
        "train": [lambda: iter(train[:3]), lambda: iter(train[3:])],
        "test": [lambda: iter(test)],
    }
    folder = records.write_shards(tmp_path, "grid", shards)
    np.savez(folder / "index.npz", **index(train=train, test=test))
    return folder


def assert_equal(a: Clip, b: Clip):
    for name, x, y in zip(Clip._fields, a, b, strict=True):
        np.testing.assert_array_equal(x, y, err_msg=name, strict=True)


def test_what_is_read_is_what_was_written_in_any_order(folder):
    expected = list(clips(5))
    opened = dataset.open_clips(folder, "train")
    assert len(opened) == 5
    for i in [3, 0, 4, 1, 2, -1, np.int64(2)]:
        assert_equal(opened[i], expected[i])
    assert [clip.clip_id for clip in opened] == opened.clip_ids
    assert opened.speakers == ["s1"] * 5
    np.testing.assert_array_equal(opened.lengths, [17, 18, 19, 20, 21])
    with pytest.raises(IndexError):
        opened[5]


def test_a_pickled_copy_reads_for_itself(folder):
    opened = dataset.open_clips(folder, "test")
    first = opened[0]
    assert_equal(pickle.loads(pickle.dumps(opened))[0], first)


@pytest.mark.parametrize("how", ["opened", "pickled"])
def test_readers_are_imported_before_there_are_threads(folder, how, tmp_path):
    """Threads that import TFDS at the same time can wait for each other for ever: a
    training run hung before its first step, once in thirty starts on a busy machine."""
    opened = f"dataset.open_clips({str(folder)!r}, 'test')"
    if how == "pickled":
        (tmp_path / "clips").write_bytes(
            pickle.dumps(dataset.open_clips(folder, "test"))
        )
        opened = f"pickle.load(open({str(tmp_path / 'clips')!r}, 'rb'))"
    program = (
        "import pickle, sys; from input_pipeline.training_data import dataset; "
        "assert 'tensorflow_datasets' not in sys.modules; "
        f"clips = {opened}; before = set(sys.modules); clips[0]; "
        "print([m for m in set(sys.modules) - before if m.startswith('tensorflow')])"
    )
    run = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert run.stdout == "[]\n"


def test_the_dataset_is_found_from_where_prepare_was_sent(folder, tmp_path):
    for place in (folder, folder.parent, tmp_path, str(tmp_path)):
        assert dataset.find_datasets(place) == {"grid": folder}
    unfinished = tmp_path / records.NAME / "lrw" / "work"
    unfinished.mkdir(parents=True)
    (unfinished / "index.npz").touch()
    assert dataset.find_datasets(tmp_path) == {"grid": folder}
    with pytest.raises(InputError, match="no prepared dataset; run"):
        dataset.open_clips(tmp_path / "elsewhere", "train")
    with pytest.raises(InputError, match="no lrw, portraits; it holds grid; prepare"):
        dataset.open_clips(tmp_path, "train", ["portraits", "grid", "lrw"])
    other = tmp_path / "copy" / "grid" / records.VERSION
    other.mkdir(parents=True)
    (other / "index.npz").touch()
    with pytest.raises(InputError, match=r"two datasets of grid, .* give the folder"):
        dataset.open_clips(tmp_path, "train")


def test_a_split_that_is_not_there_is_an_input_error(folder):
    with pytest.raises(InputError, match="no split 'validation'; it has train, test"):
        dataset.open_clips(folder, "validation")


def test_the_pca_gives_as_many_components_as_asked_for(folder):
    components = np.linalg.qr(np.random.default_rng(0).normal(size=(136, 8)))[0]
    model = {"mean": np.zeros(136), "components": components}
    np.savez(folder / "pca.npz", variance=np.ones(136), **model)
    assert dataset.open_pca(folder).components.shape == (136, 8)
    pca = dataset.open_pca(folder, 3)
    np.testing.assert_array_equal(pca.components, components[:, :3])
    with pytest.raises(InputError, match=r"num_coefficients=9: .* has 8; ask for 1..8"):
        dataset.open_pca(folder, 9)


def test_tfds_reads_it_too_and_nothing_needs_tensorflow(folder):
    program = (
        "import sys, tensorflow_datasets as tfds\n"
        f"builder = tfds.builder_from_directory({str(folder)!r})\n"
        "assert builder.info.splits['train'].num_examples == 5\n"
        "assert builder.info.features['frames'].shape == (None, 128, 128, 3)\n"
        "from input_pipeline.training_data.dataset import open_clips\n"
        f"print(open_clips({str(folder)!r}, 'train')[2].clip_id)\n"
        "assert 'tensorflow' not in sys.modules\n"
    )
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "s1/clip2"


def test_the_bytes_do_not_depend_on_the_process(tmp_path):
    """TFDS alone writes the fields in an order that differs from run to run."""
    program = (
        "import sys, pathlib\n"
        "from input_pipeline.training_data.records import write_shards\n"
        "from tests.input_pipeline.training_data.test_dataset import clips\n"
        "write_shards(pathlib.Path(sys.argv[1]), 'grid', {'train': [lambda: clips(3)]})"
    )
    written = []
    for name in "ab":
        place = tmp_path / name
        subprocess.run([sys.executable, "-c", program, str(place)], check=True)
        files = sorted(path for path in place.rglob("*") if path.is_file())
        written.append({p.relative_to(place): p.read_bytes() for p in files})
    assert written[0] == written[1]
