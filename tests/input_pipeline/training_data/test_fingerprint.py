"""The fingerprint of data: the same for the same, another for whatever differs."""

import json

import pytest

from input_pipeline.clip import InputError
from input_pipeline.training_data.fingerprint import (
    check_same,
    check_template,
    fingerprint,
)
from input_pipeline.training_data.synthetic import SyntheticClips, write_dataset


def written(folder, **changes):
    clips = SyntheticClips(**{"num_clips": 3, "num_frames": 12} | changes)
    write_dataset(folder, train=clips)
    return folder


def test_the_same_clips_in_another_folder_are_the_same_data(tmp_path):
    first, second = (fingerprint(written(tmp_path / name)) for name in ("a", "b"))
    assert first == second == json.loads(json.dumps(first))
    assert list(first["clips"]) == ["folder"]
    check_same(first, second, "x:", "y")


@pytest.mark.parametrize("change", [{"num_clips": 4}, {"num_frames": 13}, {"seed": 1}])
def test_other_clips_are_other_data(tmp_path, change):
    """A seed changes neither names nor lengths, but faces, and so the PCA."""
    before = fingerprint(written(tmp_path / "a"))
    now = fingerprint(written(tmp_path / "b", **change))
    with pytest.raises(
        InputError, match=r"x: made with other data .another folder.; y"
    ):
        check_same(before, now, "x:", "y")


def test_other_options_are_other_data(tmp_path):
    folder = written(tmp_path / "a")
    before = fingerprint(folder)
    (path,) = folder.glob("*/*/*/options.json")
    options = json.loads(path.read_text())
    options["options"]["sigma"] = 2
    path.write_text(json.dumps(options))
    assert fingerprint(folder)["clips"] != before["clips"]


def test_one_more_corpus_is_no_other_data_but_a_missing_one_is(tmp_path):
    one = fingerprint(written(tmp_path / "a"))
    two = {**one, "clips": one["clips"] | {"portraits": "123"}}
    check_same(one, two, "x:", "y")
    with pytest.raises(InputError, match=r"x: made with other data .no portraits.; y"):
        check_same(two, one, "x:", "y")


def test_another_template_is_told(tmp_path):
    before = fingerprint(written(tmp_path / "a"))
    indices = before["template"]["indices"]
    moved = [[x + 0.1, y] for x, y in before["template"]["points"]]
    for template in (
        {"points": moved, "indices": indices},
        {"points": before["template"]["points"], "indices": indices[::-1]},
    ):
        with pytest.raises(InputError, match="x: made with faces that were aligned to"):
            check_template(before, {"template": template}, "x:", "y")
