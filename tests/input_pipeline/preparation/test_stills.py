"""Photos become clips of talking faces: with whom they talk, and who is left out."""

import json
import shutil

import cv2
import numpy as np
import pytest

from input_pipeline import workers
from input_pipeline.clip import CROP_SIZE, RIGHT_EYE, InputError
from input_pipeline.faces import align, eyelids
from input_pipeline.faces.landmarks import opening, to_pixels
from input_pipeline.media import image
from input_pipeline.preparation import prepare as job
from input_pipeline.preparation import stills
from input_pipeline.preparation.prepare import prepare
from input_pipeline.preparation.recording import Options
from input_pipeline.training_data import dataset, sampling
from tests.input_pipeline.face_videos import assert_same, astronaut, picture

VALIDATION = "sue"  # a name that hashes into the tenth that is held out


def photos(folder):
    """Good ones: a smile, its mirror image, and a darker one.  Bad ones: REJECTS."""
    good = astronaut()[:240, 100:350]
    some = {
        "ann.png": good,
        "bea.png": np.ascontiguousarray(good[:, ::-1]),
        f"{VALIDATION}.png": (0.8 * good).astype(np.uint8),
        "grey.png": good.mean(2, keepdims=True).repeat(3, 2).astype(np.uint8),
        "nobody.png": np.full((200, 200, 3), 90, np.uint8),
        "small.png": cv2.resize(good, (175, 168), interpolation=cv2.INTER_AREA),
        "two.png": np.concatenate([picture(), picture()], 1),
    }
    folder.mkdir(parents=True)
    for name, pixels in some.items():
        image.write_image(folder / name, pixels)
    (folder / "broken.jpg").write_bytes(b"no picture")
    return folder


REJECTS = {
    "broken.jpg": "undecodable",
    "grey.png": "grey",
    "nobody.png": "no face",
    "small.png": "face too small",
    "two.png": "several faces",
}


@pytest.fixture(scope="module")
def album(tmp_path_factory):
    return photos(tmp_path_factory.mktemp("album") / "photos")


@pytest.fixture(scope="module")
def data_dir(prepared, tmp_path_factory):
    """With the videos that lend their movement, not yet with photos."""
    place = tmp_path_factory.mktemp("stills") / "atvg_clips" / "lrw"
    shutil.copytree(prepared, place / prepared.name)
    return place.parent.parent


@pytest.fixture(scope="module")
def talking(album, data_dir):
    return prepare("portraits", album, data_dir, num_workers=1)


def test_a_photo_becomes_a_clip_that_moves_as_its_driver(talking, data_dir):
    clips = dataset.open_clips(talking, "train")
    assert clips.clip_ids == ["ann.png", "bea.png"]
    clip = clips[0]
    assert (clip.corpus, clip.speaker) == ("portraits", "ann")
    drivers = dataset.open_clips(data_dir, "train", ("lrw",))
    (driver,) = [
        one
        for one in map(drivers.__getitem__, range(len(drivers)))
        if np.array_equal(one.mfcc, clip.mfcc)
    ]
    assert len(clip.frames) == len(driver.frames) == 29
    mine, its = opening(clip.landmarks)[1:], opening(driver.landmarks)[1:]
    assert np.corrcoef(mine, its)[0, 1] > 0.9


def test_the_first_frame_is_the_photo_as_it_is(talking, album):
    clip = dataset.open_clips(talking, "train")[0]
    whole = image.read_image(album / "ann.png")
    crop = align.warp(whole, clip.transforms[0].astype(np.float64))
    (first,) = sampling.decode(clip, [0])
    assert np.abs(first.astype(int) - crop).mean() < 4
    assert opening(clip.landmarks[:1])[0] * CROP_SIZE / 2 > 3  # her smile
    points = to_pixels(sampling.flat_landmarks(clip))
    fixed = slice(17, RIGHT_EYE.start)  # brows and nose
    assert np.ptp(points[:, fixed], axis=0).max() < 0.01


def test_it_blinks(talking):
    """Where the points of the eyes meet they are covered with skin."""
    clip = dataset.open_clips(talking, "train")[0]
    points = to_pixels(sampling.flat_landmarks(clip)).astype(np.float64)
    height = np.array([eyelids.openness(face) for face in points])
    shut = int(height.argmin())
    assert height[shut] < 0.1 * height[0] and (height > 0.99 * height[0]).mean() > 0.4
    before, after = (x.astype(float) for x in sampling.decode(clip, [0, shut]))
    eye = points[0][RIGHT_EYE]
    (left, top), (right, bottom) = np.round(eye.min(0)), np.round(eye.max(0))
    box = slice(int(top), int(bottom) + 1), slice(int(left), int(right) + 1)
    assert before[box].mean(2).std() > 1.5 * after[box].mean(2).std()


def test_lids_come_down_and_up_again():
    """Nothing in the first frame; every blink shuts the eyes and opens them."""
    for seed in range(20):
        down = stills.blinking(np.random.default_rng(seed), 75)
        assert len(down) == 75 and down[0] == 0 and down.min() == 0
        moving = np.flatnonzero(down)
        blinks = np.split(moving, np.flatnonzero(np.diff(moving) > 1) + 1)
        assert 2 <= len(blinks) <= 8
        for blink in blinks[:-1]:  # the end may cut the last one
            low, high = stills.BLINKS
            assert low <= len(blink) <= high and down[blink].max() == 1
            assert down[blink[0]] < 1 and down[blink[-1]] < 1


def test_photos_that_were_prepared_without_blinks_are_prepared_anew(
    talking, album, data_dir, tmp_path
):
    place = shutil.copytree(data_dir, tmp_path / "data") / "atvg_clips" / "portraits"
    (file,) = place.glob("*/options.json")
    settings = json.loads(file.read_text())
    del settings["options"]["blinks"]
    file.write_text(json.dumps(settings))
    with pytest.raises(
        InputError, match=r"made with blinks=False \(now True\); delete"
    ):
        prepare("portraits", album, tmp_path / "data")


def test_who_is_left_out_and_why(talking):
    lines = (talking / "rejects.jsonl").read_text().splitlines()
    found = {one["path"]: one["reason"] for one in map(json.loads, lines)}
    assert found == REJECTS


def test_a_fixed_tenth_is_for_validation(talking):
    """By their own names: the same people whoever else is in the folder."""
    assert dataset.open_clips(talking, "validation").speakers == [VALIDATION]


def test_a_turned_face_is_left_out(album):
    """How far she looks aside is measured; asked for less, she is left out."""
    path = str(album / "ann.png")
    strict = stills.StillOptions("reject", align.DEFAULT_TEMPLATE, most_turned=0.001)
    with pytest.raises(stills._Unusable) as raised:
        stills._read(path, "ann.png", strict)
    reason, value = raised.value.args
    assert (reason, 0.001 < value < 0.13) == ("turned", True)


def test_it_is_deterministic_and_restartable(
    talking, album, prepared, tmp_path, monkeypatch
):
    """Stopped after three photos and finished by two workers: the same bytes."""

    def three_then_stop(function, items, _):
        for item in items[:3]:
            yield item, function(item)
        raise KeyboardInterrupt

    shutil.copytree(prepared, tmp_path / "atvg_clips" / "lrw" / prepared.name)
    with monkeypatch.context() as patched:
        patched.setattr(workers, "for_each", three_then_stop)
        with pytest.raises(KeyboardInterrupt):
            prepare("portraits", album, tmp_path)
    work = tmp_path / "atvg_clips" / "portraits" / "work"
    assert len(list(work.glob("clips/*/*"))) == 3
    assert_same(talking, prepare("portraits", album, tmp_path, num_workers=2))


def test_without_videos_nobody_lends_movement(album, tmp_path):
    with pytest.raises(InputError, match="no videos prepared there"):
        prepare("portraits", album, tmp_path)


def test_photos_alone_lend_no_movement(talking, tmp_path):
    place = tmp_path / "atvg_clips" / "portraits" / talking.name
    shutil.copytree(talking, place)
    with pytest.raises(InputError, match="no videos prepared there"):
        stills.find_drivers(tmp_path)


def test_what_is_wrong_with_the_drivers_is_said(album, prepared, tmp_path):
    """A file is damaged; there are two datasets of one corpus."""
    place = tmp_path / "atvg_clips" / "lrw"
    shutil.copytree(prepared, place / prepared.name)
    shutil.copytree(prepared, place / "again")
    with pytest.raises(InputError, match=r"two datasets of lrw, .* one of them"):
        prepare("portraits", album, tmp_path)
    (place / "again" / "options.json").write_text("{")
    with pytest.raises(InputError, match=r"again: damaged dataset .* prepare it again"):
        prepare("portraits", album, tmp_path)


def test_videos_of_another_template_do_not_fit(album, data_dir, tmp_path):
    other = align.Template(
        align.DEFAULT_TEMPLATE.points + 1, align.DEFAULT_TEMPLATE.indices
    )
    with pytest.raises(InputError, match="aligned to another template"):
        prepare("portraits", album, data_dir, Options(template=other))


def test_closed_lips_borrow_teeth_that_exist(album, data_dir):
    """A photo whose lips are closed shows another's teeth; without any, the dark."""
    path, name = str(album / "ann.png"), "ann.png"
    chosen = stills.StillOptions("reject", align.DEFAULT_TEMPLATE)
    photo = stills._read(path, name, chosen)
    shut = photo._replace(p=stills.closed(photo.p))
    source = job.corpora.walk("portraits", album)[0]
    lenders = ((str(album / "broken.jpg"), "b"), (str(album / "bea.png"), "bea.png"))
    folders = stills.find_drivers(data_dir)
    lent = stills.Stills(chosen, folders, lenders)._behind(source, shut)
    dark = stills.Stills(chosen, folders, ())._behind(source, shut)
    own = stills.Stills(chosen, folders, lenders)._behind(source, photo)
    assert lent.picture.max() > 1.5 * dark.picture.max()
    assert own.picture.max() > 1.5 * dark.picture.max()
    assert not np.array_equal(own.picture, lent.picture)


def test_a_fault_of_ours_is_a_reject_that_says_so(album, data_dir, monkeypatch):
    def fail(*_):
        raise ZeroDivisionError("here")

    monkeypatch.setattr(stills, "_read", fail)
    make, source = maker(album, data_dir)
    (reject,) = make(source).rejects
    assert (reject.reason, reject.value) == ("error", "ZeroDivisionError: here")


def maker(album, data_dir):
    """(who prepares photos, the first photo)."""
    sources = job.corpora.walk("portraits", album)
    return job.stills_of(sources, data_dir, Options()), sources[0]


@pytest.mark.parametrize("error", [InputError("models are missing"), MemoryError()])
def test_a_lack_of_the_machine_is_not_the_photos_fault(
    album, data_dir, monkeypatch, error
):
    def fail(*_):
        raise error

    monkeypatch.setattr(stills, "_read", fail)
    make, source = maker(album, data_dir)
    with pytest.raises(type(error)):
        make(source)


def test_a_clip_that_cannot_be_kept_is_not_the_photos_fault(album, data_dir):
    def full(clip):
        raise OSError("no space")

    make, source = maker(album, data_dir)
    with pytest.raises(OSError, match="no space"):
        make(source, full)


def test_a_damaged_driver_is_not_the_photos_fault(album, data_dir, tmp_path):
    copy = shutil.copytree(data_dir, tmp_path / "data")
    for path in copy.rglob("*/lrw/*/*-train.array_record*"):
        path.write_bytes(path.read_bytes()[:1000])
    make, source = maker(album, copy)
    with pytest.raises(InputError, match=r"cannot be read .*; prepare it again"):
        make(source)
