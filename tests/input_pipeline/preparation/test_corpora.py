"""What is found in a folder, in which order, and how it is split."""

import random

import pytest

from input_pipeline.clip import InputError
from input_pipeline.preparation import corpora


def make(folder, names):
    """Empty files, made in a random order; each one byte longer than the one before."""
    for size, name in enumerate(random.sample(names, len(names))):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x" * size)
    return folder


def splits(found):
    return {one.clip_id: one.split for one in found}


# GRID


def test_the_shared_grid_is_split_as_its_readme_says(shared):
    found = corpora.walk("grid", shared("data", "grid"), validation_clips=["s1/p*"])
    assert len(found) == 303
    assert sum(bool(one.words) for one in found) == 298
    unseen = {"s20", "s23", "s32", "s3"}
    assert all((one.split == "test") == (one.speaker in unseen) for one in found)
    validation = {one.clip_id for one in found if one.split == "validation"}
    s1 = {one.clip_id for one in found if one.clip_id.startswith("s1/p")}
    assert s1 <= validation
    expected = set()
    for folder in shared("data", "grid").glob("s*"):
        names = sorted(path.stem for path in folder.glob("*.mpg"))
        if folder.name not in {"s1", *unseen} and len(names) >= 6:
            expected |= {f"{folder.name}/{name}" for name in names[-2:]}
    assert validation - s1 == expected


@pytest.mark.parametrize(
    "layout",
    [
        "s7/{}.mpg",
        "s7/video/{}.mpg",
        "s7/video/mpg_6000/{}.mpg",
        "s7.mpg_vcd/s7/{}.mpg",
        "s7.mpg_6000.part1/s7/video/mpg_6000/{}.mpg",
        "grid/data/s7/{}.MPG",
    ],
)
def test_every_layout_of_grid_gives_the_same_clips(tmp_path, layout):
    make(tmp_path, [layout.format(name) for name in ("bbaf2n", "id2_vcd_swwp2s")])
    found = corpora.walk("grid", tmp_path)
    assert [one.clip_id for one in found] == ["s7/bbaf2n", "s7/id2_vcd_swwp2s"]
    assert {one.speaker for one in found} == {"s7"}


def test_one_speakers_folder_alone_is_a_corpus(tmp_path):
    make(tmp_path / "s7", ["video/bbaf2n.mpg"])
    (one,) = corpora.walk("grid", tmp_path / "s7")
    assert (one.speaker, one.clip_id) == ("s7", "s7/bbaf2n")


def test_of_the_same_clip_in_two_qualities_the_larger_file_is_taken(tmp_path):
    make(tmp_path, ["s7/a.mpg", "s7/video/mpg_6000/a.mpg"])
    (tmp_path / "s7/video/mpg_6000/a.mpg").write_bytes(b"x" * 100)
    (one,) = corpora.walk("grid", tmp_path)
    assert one.name == "s7/video/mpg_6000/a.mpg"


@pytest.mark.parametrize(
    "place", ["s7/a.align", "s7/align/a.align", "align/s7/a.align"]
)
def test_words_are_found_beside_the_clip_or_in_an_align_folder(tmp_path, place):
    make(tmp_path, ["s7/a.mpg", place])
    text = "0 23750 sil\n23750 29500 bin\n29500 30000 sp\n30000 34000 blue\n"
    (tmp_path / place).write_text(text)
    (one,) = corpora.walk("grid", tmp_path)
    assert one.words == (("bin", 0.95, 1.18), ("blue", 1.2, 1.36))


def test_a_damaged_align_file_is_an_input_error(tmp_path):
    make(tmp_path, ["s7/a.mpg", "s7/a.align"])
    (tmp_path / "s7/a.align").write_text("0 100 sil\nnonsense\n")
    with pytest.raises(InputError, match="line 2 is 'nonsense'"):
        corpora.walk("grid", tmp_path)


def test_test_speakers_by_name_or_the_last_tenth(tmp_path):
    make(tmp_path, [f"s{n}/{c}.mpg" for n in range(50, 70) for c in "abcdefg"])
    found = corpora.walk("grid", tmp_path)
    test = {one.speaker for one in found if one.split == "test"}
    assert test == {"s68", "s69"}
    for speaker in {one.speaker for one in found} - test:
        mine = [one.split for one in found if one.speaker == speaker]
        assert mine == ["train"] * 5 + ["validation"] * 2
    found = corpora.walk("grid", tmp_path, "by_speaker", ["s51"])
    assert {one.speaker for one in found if one.split == "test"} == {"s51"}
    with pytest.raises(InputError, match="no clips of s99; choose from s50"):
        corpora.walk("grid", tmp_path, "by_speaker", ["s99"])


def test_validation_clips_by_pattern_and_else_the_last_two(tmp_path):
    make(tmp_path, [f"s{n}/{c}.mpg" for n in (51, 52, 60) for c in "abcdefg"])
    found = corpora.walk("grid", tmp_path, "by_speaker", ["s60"], ["s51/[ac]", "s60/*"])
    where = splits(found)
    assert [where[f"s51/{c}"] for c in "abcdefg"] == [
        *("validation", "train", "validation"),
        *["train"] * 4,
    ]
    assert [where[f"s52/{c}"] for c in "defg"] == ["train"] * 2 + ["validation"] * 2
    assert where["s60/a"] == "test"
    with pytest.raises(
        InputError, match=r"no clip is called p\*; they are called as s5"
    ):
        corpora.walk("grid", tmp_path, "by_speaker", validation_clips=["p*"])
    with pytest.raises(InputError, match="validation_clips=s51/a with split_rule=by_s"):
        corpora.walk("grid", tmp_path, "by_sentence", validation_clips=["s51/a"])


def test_a_loop_of_links_and_second_names_make_one_source_of_a_file(tmp_path):
    mine = make(tmp_path / "mine", ["anna/a.mp4", "anna/b.mp4", "zoe/c.mp4"])
    (mine / "anna" / "loop").symlink_to(mine)
    (mine / "all").symlink_to(mine / "zoe")
    (mine / "again.mp4").symlink_to(mine / "anna" / "a.mp4")
    (mine / "hard.mp4").hardlink_to(mine / "anna" / "b.mp4")
    elsewhere = make(tmp_path / "elsewhere", ["bob/d.mp4", "bob/e.mp4"])
    (mine / "more").symlink_to(elsewhere)
    (elsewhere / "back").symlink_to(mine)
    (mine / "gone.mp4").symlink_to(tmp_path / "nothing")
    names = [one.name for one in corpora.walk("folder", mine)]
    assert names == [
        "anna/a.mp4",
        "anna/b.mp4",
        "gone.mp4",  # a broken link, which becomes a reject
        "more/bob/d.mp4",
        "more/bob/e.mp4",
        "zoe/c.mp4",
    ]


def test_what_is_no_video_by_its_name_is_counted(tmp_path):
    make(tmp_path, ["a.mp4", "b.FLV", "c.wmv", "d.m4v", "e.ts", "f.txt", "g.JPG", "h"])
    found, others = corpora.survey("folder", tmp_path)
    assert len(found) == 5
    assert others == {".jpg": 1, ".txt": 1, "no suffix": 1}
    make(tmp_path / "lrw", ["A/train/A_1.mp4", "A/train/A_1.txt"])
    assert corpora.survey("lrw", tmp_path / "lrw")[1] == {}


def test_by_sentence_no_sentence_is_in_two_splits(shared):
    found = corpora.walk("grid", shared("data", "grid"), "by_sentence")
    where = {}
    for one in found:
        words = " ".join(word for word, _, _ in one.words) or one.clip_id
        where.setdefault(words, set()).add(one.split)
    assert all(len(splits) == 1 for splits in where.values())
    assert {one.split for one in found} == set(corpora.LRW_SPLITS.values())


def test_a_name_of_grids_form_gives_the_sentence_of_its_align_file(shared):
    for one in corpora.walk("grid", shared("data", "grid")):
        if one.words:
            spoken = " ".join(word for word, _, _ in one.words)
            assert corpora.spoken(one.clip_id) == spoken
    assert corpora.spoken("s2/new_data") == "new_data"
    assert corpora.spoken("s2/folder") == "folder"


# LRW


def test_lrw_has_its_own_splits_and_its_words(tmp_path):
    make(
        tmp_path,
        [f"lipread_mp4/ABOUT/{s}/ABOUT_00001.mp4" for s in ("train", "val", "test")],
    )
    text = tmp_path / "lipread_mp4/ABOUT/val/ABOUT_00001.txt"
    text.write_text("Disk reference: 6\nDuration: 0.40 seconds\n")
    for source in (tmp_path, tmp_path / "lipread_mp4"):
        found = corpora.walk("lrw", source)
        assert splits(found) == {
            "ABOUT/train/ABOUT_00001": "train",
            "ABOUT/val/ABOUT_00001": "validation",
            "ABOUT/test/ABOUT_00001": "test",
        }
        words = {one.split: one.words for one in found}
        assert words["train"] == (("ABOUT", 0, 1.16),)
        assert words["validation"] == (("ABOUT", pytest.approx(0.38), 0.78),)


# Any folder


def test_a_folder_at_any_depth_with_the_parent_as_speaker(tmp_path):
    names = ["a.mp4", "anna/b.MOV", "anna/deep/c.webm", "x.mkv", "y.avi", "z.mpg"]
    make(tmp_path / "mine", [*names, "notes.txt", ".hidden/d.mp4", ".e.mp4"])
    found = corpora.walk("folder", tmp_path / "mine")
    assert [one.clip_id for one in found] == sorted(names)
    speakers = {one.name: one.speaker for one in found}
    assert speakers["a.mp4"] == "mine"
    assert speakers["anna/b.MOV"] == "anna"
    assert speakers["anna/deep/c.webm"] == "deep"


def test_a_tenth_of_the_files_each_for_validation_and_test(tmp_path):
    make(tmp_path, [f"{n}.mp4" for n in range(40)])
    found = corpora.walk("folder", tmp_path)
    count = [one.split for one in found].count
    assert (count("train"), count("validation"), count("test")) == (32, 4, 4)
    assert splits(found) == splits(corpora.walk("folder", tmp_path))


@pytest.mark.parametrize(("files", "train"), [(1, 1), (2, 2), (3, 1), (5, 3)])
def test_few_files_still_train(tmp_path, files, train):
    make(tmp_path, [f"{n}.mp4" for n in range(files)])
    found = corpora.walk("folder", tmp_path)
    assert [one.split for one in found].count("train") == train


# What cannot be walked


def test_what_cannot_be_walked_is_an_input_error(tmp_path):
    make(tmp_path, ["one.mp4"])
    for arguments, message in [
        (("avspeech", tmp_path), "corpus='avspeech'; choose one of grid, lrw, folder"),
        (("grid", tmp_path / "none"), "no such folder"),
        (("lrw", tmp_path), "nothing found; looked for WORD/train"),
        (("folder", tmp_path, "by_sentence"), "folder has by_clip, by_speaker"),
        (("lrw", tmp_path, "by_speaker"), "lrw has own"),
        (("folder", tmp_path, "by_clip", ["anna"]), "only by_speaker holds them out"),
    ]:
        with pytest.raises(InputError, match=message):
            corpora.walk(*arguments)
