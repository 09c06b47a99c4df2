"""Several corpora in one data_dir: read one after the other, and described as one."""

import json
import pickle

import numpy as np
import pytest

from input_pipeline.clip import InputError
from input_pipeline.faces.landmarks import fit_pca, moments
from input_pipeline.training_data import dataset, loader, records
from tests.input_pipeline.training_data.test_dataset import assert_equal, clips, index

TEMPLATE = {"points": [[1.0, 2.0]], "indices": [30]}


def write(home, corpus, template=TEMPLATE, **splits):
    """A dataset of these clips, as `prepare` leaves it."""
    shards = {name: [lambda some=some: iter(some)] for name, some in splits.items()}
    folder = records.write_shards(home, corpus, shards)
    np.savez(folder / "index.npz", **index(**splits))
    settings = {"flags": {"corpus": corpus}, "options": {"template": template}}
    (folder / "options.json").write_text(json.dumps(settings))
    flat = [clip.landmarks.reshape(-1, 136) for clip in splits["train"]]
    dataset.write_pca(folder / "pca.npz", flat, 8)
    return folder


def some(corpus, count, speaker):
    return [clip._replace(corpus=corpus) for clip in clips(count, speaker)]


PARTS = {
    "folder": {"train": some("folder", 2, "a/b"), "validation": some("folder", 1, "c")},
    "grid": {"train": some("grid", 3, "s1"), "test": some("grid", 2, "s3")},
    "portraits": {"train": some("portraits", 4, "ann")},
}


@pytest.fixture
def data_dir(tmp_path):
    for corpus, splits in PARTS.items():
        write(tmp_path, corpus, **splits)
    return tmp_path


def test_clips_lie_one_after_the_other(data_dir):
    """Videos unless photos are asked for; in the order of the corpora's names."""
    joined = dataset.open_clips(data_dir, "train")
    expected = PARTS["folder"]["train"] + PARTS["grid"]["train"]
    assert len(joined) == 5
    assert joined.clip_ids == [clip.clip_id for clip in expected]
    assert joined.corpora == ["folder"] * 2 + ["grid"] * 3
    assert joined.speakers == ["a/b"] * 2 + ["s1"] * 3
    np.testing.assert_array_equal(joined.lengths, [17, 18, 17, 18, 19])
    copy = pickle.loads(pickle.dumps(joined))
    for i in (4, 0, 2, 1, -1, np.int64(3)):
        assert_equal(joined[i], expected[i])
        assert_equal(copy[i], expected[i])
    with pytest.raises(IndexError):
        joined[5]
    several = dataset.open_clips(data_dir, "train", ["portraits", "grid"])
    assert several.corpora == ["grid"] * 3 + ["portraits"] * 4
    alone = dataset.open_clips(data_dir, "train", ["portraits"])
    assert alone.speakers == ["ann"] * 4


def test_a_split_need_not_be_in_every_corpus(data_dir):
    assert dataset.open_clips(data_dir, "validation").speakers == ["c"]
    assert dataset.open_clips(data_dir, "test").speakers == ["s3"] * 2
    with pytest.raises(InputError, match="no split 'elsewhere'; it has train, valid"):
        dataset.open_clips(data_dir, "elsewhere")


def test_photos_alone_are_read_where_there_is_nothing_else(tmp_path):
    write(tmp_path, "portraits", **PARTS["portraits"])
    assert len(dataset.open_clips(tmp_path, "train")) == 4


def test_the_pca_is_that_of_the_videos_together(data_dir):
    """As if all their landmarks had been given to it at once; photos do not count."""
    every = [
        clip.landmarks.reshape(-1, 136)
        for corpus in ("folder", "grid")
        for clip in PARTS[corpus]["train"]
    ]
    expected, variance = fit_pca(every, 8)
    found, its = dataset.pca_with_variance(data_dir)
    np.testing.assert_allclose(found.mean, expected.mean, atol=1e-6)
    np.testing.assert_allclose(its, variance, atol=1e-9)
    same = np.abs(np.sum(found.components[:, :8] * expected.components, 0))
    np.testing.assert_allclose(same, 1, atol=1e-4)


def test_moments_add_up(data_dir):
    rows = np.random.default_rng(0).normal(size=(50, 136)) * 3 + 7
    whole = moments([rows])
    added = moments([rows[:11]]) + moments([]) + moments([rows[11:]])
    assert added.count == 50
    np.testing.assert_allclose(added.mean, whole.mean)
    np.testing.assert_allclose(added.scatter, whole.scatter)
    np.testing.assert_allclose(whole.scatter / 50, np.cov(rows.T, bias=True))


def test_one_of_an_earlier_version_must_be_prepared_again(data_dir):
    folder = dataset.find_datasets(data_dir)["grid"]
    with np.load(folder / "pca.npz") as arrays:
        kept = {name: x for name, x in arrays.items() if "moments" not in name}
    np.savez(folder / "pca.npz", **kept)
    with pytest.raises(InputError, match=r"grid.*: prepared by an earlier version"):
        dataset.open_pca(data_dir)
    assert dataset.open_pca(folder).components.shape == (136, 8)  # alone it is enough


@pytest.mark.parametrize(
    "changes",
    [
        {"moments/count": np.array(2.5)},
        {"moments/count": np.array([3])},
        {"moments/count": np.array(-1)},
        {"moments/mean": np.zeros((136, 1))},
        {"moments/scatter": np.zeros(136)},
        {"moments/scatter": np.full((136, 136), np.nan)},
    ],
    ids=str,
)
def test_damaged_moments_are_an_error(data_dir, changes):
    path = dataset.find_datasets(data_dir)["grid"] / "pca.npz"
    with np.load(path) as arrays:
        kept = dict(arrays.items()) | changes
    np.savez(path, **kept)
    with pytest.raises(InputError, match=r"grid.*: damaged dataset"):
        dataset.open_pca(data_dir)


def test_all_corpora_share_one_template(data_dir):
    points, indices = dataset.open_template(data_dir)
    np.testing.assert_array_equal(points, [[1.0, 2.0]])
    assert indices == (30,)
    other = {"points": [[1.0, 2.5]], "indices": [30]}
    write(data_dir, "lrw", other, train=some("lrw", 1, "x"))
    with pytest.raises(InputError, match="folder and lrw were aligned to different"):
        dataset.open_template(data_dir)


def test_a_mix_draws_each_corpus_in_its_share(data_dir):
    """Batches of the loader, over several epochs; the order goes on where it was."""
    mix = {"grid": 1.0, "portraits": 3.0}
    joined = dataset.open_clips(data_dir, "train", list(mix))
    order = loader.Order(joined, np.arange(len(joined)), 0, "clips", mix)
    drawn = np.concatenate([order(epoch) for epoch in range(40)])
    share = np.mean([joined.corpora[i] == "portraits" for i in drawn])
    assert share == pytest.approx(0.75, abs=0.03)
    assert set(drawn) == set(range(7))


@pytest.mark.parametrize("mix", [{"grid": 1.0}, {"grid": 1.0, "lrw": 1.0}])
def test_a_mix_names_the_corpora_that_are_there(data_dir, mix):
    joined = dataset.open_clips(data_dir, "train", ["grid", "portraits"])
    with pytest.raises(InputError, match="must name the corpora of the clips"):
        loader.Order(joined, np.arange(len(joined)), 0, "sqrt", mix)
