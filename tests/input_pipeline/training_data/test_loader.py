"""Batches: the same for any processes, threads and workers, and after any restart."""

import itertools
import json

import grain
import numpy as np
import orbax.checkpoint as ocp
import pytest

from input_pipeline.clip import InputError
from input_pipeline.training_data import dataset, loader, sampling
from input_pipeline.training_data.augment import Strength
from input_pipeline.training_data.batches import Batches
from input_pipeline.training_data.synthetic import SyntheticClips, write_dataset

N, B, T = 10, 4, 16  # clips, rows of the global batch, frames


@pytest.fixture(scope="module")
def clips():
    return SyntheticClips(N, [17, 18, 19, 20, 21, 22, 23, 24, 25, 26])


@pytest.fixture(scope="module")
def pca(clips):
    return clips.pca(6)


@pytest.fixture
def open_loader(clips, pca):
    """open_loader("at", seed=1, ...) -> Batches, closed after the test."""
    opened = []

    def open_it(kind="at", *, of=clips, **settings) -> Batches:
        settings = {"batch_size": B, "seed": 0, "num_frames": T, "pca": pca} | settings
        opened.append(loader.training_batches(of, kind, **settings))
        return opened[-1]

    yield open_it
    for iterator in opened:
        iterator.close()


def take(iterator, count: int) -> list:
    return list(itertools.islice(iterator, count))


def assert_same(batches, others):
    for batch, other in zip(batches, others, strict=True):
        for field, x, y in zip(batch._fields, batch, other, strict=True):
            np.testing.assert_array_equal(x, y, err_msg=field)


def row_of(batch, row: int):
    return batch._make(None if x is None else x[row] for x in batch)


# --- content ---


@pytest.mark.parametrize("kind", ["at", "vg"])
@pytest.mark.parametrize("balance", ["clips", "sqrt", "speakers"])
def test_batches_are_the_examples_in_the_order_of_the_epochs(
    open_loader, clips, pca, kind, balance
):
    corpora, speakers, want = clips.corpora, clips.speakers, []
    for epoch in range(2):
        if balance == "clips":
            order = sampling.shuffled(N, 5, epoch)
        else:
            exponent = {"sqrt": 0.5, "speakers": 0.0}[balance]
            groups = sampling.groups_of(corpora, speakers, exponent, {})
            order = sampling.in_shares(*groups, 5, epoch)
        for place, i in enumerate(map(int, order)):
            key = 5, epoch, place
            want.append(
                sampling.at_example(clips[i], pca, key, T)
                if kind == "at"
                else sampling.vg_example(clips[i], key, T)
            )
    got = take(open_loader(kind, seed=5, balance=balance), 2 * N // B)
    for row, example in enumerate(want):
        batch = got[row // B]
        assert_same([row_of(batch, row % B)], [example])


class Numbered(SyntheticClips):
    """Clip i's landmarks are all i."""

    def __getitem__(self, i):
        clip = super().__getitem__(i)
        return clip._replace(landmarks=np.full_like(clip.landmarks, i))


def test_an_epoch_covers_all_clips_and_the_next_differs(open_loader):
    batches = take(open_loader("vg", of=Numbered(N, 17), batch_size=5), 4)
    index = np.concatenate([batch.example[:, 0] for batch in batches]).tolist()
    assert sorted(index[:N]) == sorted(index[N:]) == list(range(N))
    assert index[:N] != index[N:]


@pytest.mark.parametrize("count", [2, 4])
def test_blocks_of_all_processes_in_order_are_the_global_batch(open_loader, count):
    parts = [
        take(open_loader(process_index=i, process_count=count), 6) for i in range(count)
    ]
    joined = [
        type(batch[0])(*map(np.concatenate, zip(*batch, strict=True)))
        for batch in zip(*parts, strict=True)
    ]
    assert_same(take(open_loader(), 6), joined)


@pytest.mark.parametrize("threads", [0, 1, 3, 16])
def test_threads_do_not_change_the_batches(open_loader, threads):
    assert_same(
        take(open_loader("vg"), 6), take(open_loader("vg", num_threads=threads), 6)
    )


# --- restart ---


@pytest.mark.parametrize("given", [0, 1, 2, 3, 5, 7])  # an epoch is 2.5 batches
def test_a_restored_loader_goes_on_bit_for_bit(open_loader, given):
    first = open_loader("vg")
    take(first, given)
    state = json.loads(json.dumps(first.get_state()))
    second = open_loader("vg", num_threads=2)
    take(second, 1)  # whatever it did before
    second.set_state(state)
    assert second.get_state() == state
    assert_same(take(first, 4), take(second, 4))
    assert second.get_state() == first.get_state()


def test_orbax_saves_and_restores_a_loader(open_loader, tmp_path):
    first, second = open_loader(), open_loader()
    take(first, 3)
    with ocp.CheckpointManager(tmp_path) as manager:
        manager.save(
            3, args=ocp.args.Composite(data=grain.checkpoint.CheckpointSave(first))
        )
        manager.wait_until_finished()
        restored = manager.restore(
            3,
            args=ocp.args.Composite(data=grain.checkpoint.CheckpointRestore(second)),
        )
    assert restored["data"] is second
    assert_same(take(first, 4), take(second, 4))


def test_the_state_holds_in_any_number_of_processes(open_loader):
    one = open_loader()
    take(one, 3)
    half = open_loader(process_index=1, process_count=2)
    half.set_state(one.get_state())
    (whole,), (part,) = take(one, 1), take(half, 1)
    assert_same([type(whole)(*(x[2:] for x in whole))], [part])


def test_a_million_batches_in_a_loader_goes_on_at_once(open_loader):
    iterator = open_loader()
    iterator.set_state(iterator.get_state() | {"next_batch": 10**6})
    take(iterator, 1)
    assert iterator.get_state()["next_batch"] == 10**6 + 1


# --- evaluation ---


@pytest.fixture
def evaluate(clips, pca):
    opened = []

    def run(batch_size, **settings) -> list:
        settings = {"pca": pca} | settings
        opened.append(
            loader.evaluation_batches(clips, batch_size=batch_size, **settings)
        )
        return list(opened[-1])

    yield run
    for iterator in opened:
        iterator.close()


@pytest.mark.parametrize("batch_size", [1, 4, 10, 16])
def test_evaluation_sees_each_clip_once_and_masks_the_rest(evaluate, clips, batch_size):
    batches = evaluate(batch_size)
    assert len(batches) == -(-N // batch_size)
    index = np.concatenate([b.index for b in batches])
    valid = np.concatenate([b.valid for b in batches])
    frame_valid = np.concatenate([b.frame_valid for b in batches])
    assert list(index[:N]) == list(range(N)) and set(index[N:]) <= {-1}
    assert list(valid) == [1] * N + [0] * (len(valid) - N)
    np.testing.assert_array_equal(frame_valid.sum(1)[:N], clips.lengths)
    assert not frame_valid[N:].any()
    frames = np.concatenate([b.vg.frames for b in batches])
    assert frames.shape[1:] == (26, 128, 128, 3)  # the longest clip's
    assert not frames[frame_valid == 0].any()
    np.testing.assert_array_equal(frames[3, :20], sampling.decode(clips[3], range(20)))


@pytest.mark.parametrize("count", [2, 4])
def test_evaluation_batches_do_not_depend_on_processes(evaluate, count):
    whole = evaluate(4, frames=False)
    parts = [
        evaluate(4, frames=False, process_index=i, process_count=count)
        for i in range(count)
    ]
    assert {len(p) for p in parts} == {len(whole)}
    for n, batch in enumerate(whole):
        for field in ("index", "valid", "frame_valid"):
            joined = np.concatenate([getattr(p[n], field) for p in parts])
            np.testing.assert_array_equal(joined, getattr(batch, field))
        audio = np.concatenate([p[n].at.audio for p in parts])
        np.testing.assert_array_equal(audio, batch.at.audio)


def test_evaluation_gives_only_what_is_asked_for(evaluate):
    assert evaluate(4, pca=None)[0].at is None
    assert evaluate(4, frames=False)[0].vg is None


def test_a_finished_pass_stays_finished(clips):
    iterator = loader.evaluation_batches(clips, batch_size=4, frames=False)
    assert len(list(iterator)) == 3
    assert list(iterator) == []
    iterator.set_state(iterator.get_state() | {"next_batch": 0})
    assert len(list(iterator)) == 3


# --- clips and records that cannot be used ---


def test_short_clips_are_left_out_with_a_count(open_loader, clips):
    with pytest.warns(
        UserWarning, match="3 of 10 clips are shorter than num_frames=20"
    ):
        iterator = open_loader(num_frames=20)
    take(iterator, 5)
    assert iterator.get_state()["num_clips"] == 7


class Damaged(SyntheticClips):
    """Clip 3 has a frame that is no JPEG; clip 4 cannot be read."""

    def __getitem__(self, i):
        if i == 4:
            raise OSError("bad checksum")
        clip = super().__getitem__(i)
        return clip._replace(frames=[b"junk"] * len(clip.frames)) if i == 3 else clip


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("vg", r"synthetic cartoon3/0003: frame \d+ is no whole JPEG"),
        ("at", r"cartoon0/0004: clip 4 of the split .*\(bad checksum\); prepare it"),
    ],
)
@pytest.mark.parametrize("threads", [0, 4])
def test_a_failure_names_the_record_and_repeats(open_loader, kind, message, threads):
    iterator = open_loader(
        kind,
        of=Damaged(4 if kind == "vg" else 5, 20),
        batch_size=1,
        num_threads=threads,
    )
    with pytest.raises(InputError, match=message):
        take(iterator, 5)
    state = iterator.get_state()
    with pytest.raises(InputError, match=message):
        next(iterator)
    assert iterator.get_state() == state


def test_a_flipped_bit_in_a_shard_is_found_and_the_clip_named(tmp_path, pca):
    """Most would still decode as a picture: the shards' checksums tell."""
    write_dataset(tmp_path, train=SyntheticClips(4, 20))
    (shard,) = tmp_path.rglob("*.array_record-*")
    data = bytearray(shard.read_bytes())
    data[len(data) // 2] ^= 1
    shard.write_bytes(data)
    clips = dataset.open_clips(tmp_path, "train")
    named = r"cartoon\d/000\d, clip \d of the split train, cannot be read"
    with pytest.raises(InputError, match=named):
        list(loader.evaluation_batches(clips, batch_size=1, pca=pca))


def test_a_damaged_evaluation_clip_is_named(pca):
    with pytest.raises(InputError, match="cartoon3/0003: frame 0"):
        list(loader.evaluation_batches(Damaged(4, 20), batch_size=2, pca=pca))


# --- invalid settings ---


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"kind": "av"}, "kind=av: say one of at vg"),
        ({"balance": "words"}, "balance=words: say one of clips sqrt speakers"),
        ({"pca": None}, "kind=at without pca"),
        ({"seed": -1}, "seed=-1"),
        ({"num_frames": 0}, "num_frames=0: must be"),
        ({"num_frames": 27}, "num_frames=27: the longest of 10 clips has 26"),
        ({"batch_size": 0}, "batch_size=0 must divide .*; try 1$"),
        ({"batch_size": 10, "process_count": 4}, "=10 must .*=4; try 8 or 12"),
        ({"batch_size": 3, "process_count": 4}, "try 4$"),
        (
            {"process_index": 2, "process_count": 2},
            "process_index=2 of process_count=2",
        ),
    ],
)
def test_settings_that_cannot_be_are_refused_at_once(open_loader, settings, message):
    with pytest.raises(InputError, match=message):
        open_loader(settings.pop("kind", "at"), **settings)


def test_an_empty_split_is_refused(open_loader):
    with pytest.raises(InputError, match="the split holds no clips"):
        open_loader(of=SyntheticClips(0))
    with pytest.raises(InputError, match="the split holds no clips"):
        loader.evaluation_batches(SyntheticClips(0), batch_size=1)


def test_strengths_of_another_version_that_did_nothing_do_not_matter(open_loader):
    """Its state names strengths that this one lacks, and the other way round."""
    ours, again = (open_loader(augment=Strength(mirror=0.5)) for _ in range(2))
    kept = {"mirror": 0.5, "smile": 0.0}
    take(ours, 3)
    state = ours.get_state() | {"augment": kept}
    again.set_state(state)
    assert_same(take(again, 2), take(ours, 2))
    with pytest.raises(InputError, match="the saved state is of augment="):
        again.set_state(state | {"augment": kept | {"smile": 0.5}})


def test_the_state_of_other_data_is_refused(open_loader):
    state = open_loader().get_state()
    with pytest.raises(InputError, match=r"saved state is of seed=0, this .* seed=1;"):
        open_loader(seed=1).set_state(state)
    other = open_loader(of=SyntheticClips(5, 20))
    with pytest.raises(InputError, match="num_clips=10, this loader of num_clips=5"):
        other.set_state(state)
    del state["next_batch"]
    with pytest.raises(InputError, match="next_batch=None"):
        open_loader().set_state(state)


def test_a_closed_loader_gives_no_more(open_loader):
    iterator = open_loader()
    take(iterator, 1)
    iterator.close()
    iterator.close()
    with pytest.raises(ValueError, match="closed"):
        next(iterator)
