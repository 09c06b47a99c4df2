"""Evaluation: scores by limiting cases, invariance of batches, the report's folder."""

import base64
import csv
import functools
import json
import pathlib
import re

import jax
import numpy as np
import pytest

from input_pipeline.clip import InputError
from input_pipeline.media.image import to_float, to_u8
from input_pipeline.training_data import sampling
from input_pipeline.training_data.synthetic import SyntheticClips
from jax_atvg.evaluation import evaluate as evaluation
from jax_atvg.evaluation import metrics, report, scoring, synthesis
from jax_atvg.evaluation.evaluate import evaluate, other_clips, read_take
from jax_atvg.evaluation.synthesis import Made, Synthesis
from jax_atvg.inference.predict import Photo, Weights, predict
from jax_atvg.sharding import data_mesh
from tests.small_bundle import small_bundle

LENGTHS = [20, 10, 12, 10]
MODES = [*report.AT_MODES, *report.FRAME_MODES]


@functools.cache
def clips():
    return SyntheticClips(4, LENGTHS)


bundle = functools.cache(small_bundle)


def one_device(count: int = 1):
    return data_mesh(jax.devices()[:count])


def test_every_metric_of_a_protocol_has_a_column_in_the_report():
    for names in metrics.PROTOCOLS["true"]:
        assert names.keys() <= {*report.PIXELS, *report.POINTS}
    for names in metrics.PROTOCOLS["atvg-compat"]:
        assert {f"compat/{name}" for name in names} <= report.COMPAT.keys()


@functools.cache
def takes():
    other = other_clips(clips().speakers, clips().clip_ids)
    return [read_take(clips(), i, other[i]) for i in range(3)]


@functools.cache
def made_alone():
    networks = Synthesis(bundle(), 1, one_device())
    return [networks([take])[0] for take in takes()]


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """(results, folder): a whole evaluation with the authors' definitions."""
    out = tmp_path_factory.mktemp("reports") / "grid"
    options = {"protocol": "atvg-compat", "mesh": one_device(), "title": "a <test>"}
    options["dub"] = True
    return evaluate(bundle(), clips(), out, **options), out


def perfect(take) -> Made:
    """Networks that make what really was."""
    frames = dict.fromkeys(["teacher", "end_to_end"], take.frames)
    return Made({"at": take.points}, frames, take.frames[..., 0])


# --- scores ---


def score(take, made):
    return scoring.score(evaluation.case_of(bundle(), take, made))


def test_perfect_prediction_scores_as_well_as_can_be():
    take = takes()[0]
    table = score(take, perfect(take))
    assert table["end_to_end"]["psnr"] == table["teacher"]["mouth_psnr"] == 100
    for mode in ("at", "teacher", "end_to_end"):
        assert table[mode]["lmd"] == table[mode]["f_lmd"] == 0
        assert table[mode]["lmd_to_static"] == table[mode]["velocity_error"] == 0
        assert table[mode]["r"] == pytest.approx(1)
        assert table[mode]["jitter_ratio"] == 1
    for metric in ("ssim", "mouth_ssim", "mouth_sharpness"):
        assert table["end_to_end"][metric] == pytest.approx(1)
    for metric in ("cpbd", "csim_dlib"):  # as the real frames have it
        assert table["end_to_end"][metric] == table["real"][metric]


def test_static_baseline_of_frames_that_do_not_change_is_perfect_but_unmoved():
    take = takes()[1]
    still = take._replace(
        frames=take.frames[:1].repeat(10, 0), points=take.points[:1].repeat(10, 0)
    )
    table = score(still, perfect(still))
    static = table["static"]
    assert static["psnr"] == 100 and static["lmd"] == table["at_static"]["lmd"] == 0
    assert static["csim_dlib"] == pytest.approx(1)
    assert np.isnan(static["r"]) and np.isnan(table["at_static"]["r"])


def test_the_photos_own_frame_is_in_no_score():
    take, made = takes()[1], made_alone()[1]

    def spoilt(sequences):
        return {k: np.concatenate([0 * x[:1], x[1:]]) for k, x in sequences.items()}

    other = Made(spoilt(made.at), spoilt(made.frames), made.attention)
    a, b = (score(take, m) for m in (made, other))
    np.testing.assert_equal(a, b)


# --- controls ---


@pytest.mark.parametrize(
    "speakers", ["ab", "aab", "aaaa", "aaab", "abab", "aabbcc", "abcabcabca", "aaabbc"]
)
def test_nobody_lends_himself_his_sound(speakers):
    other = other_clips(list(speakers), [f"clip {i}" for i in range(len(speakers))])
    assert sorted(other) == list(range(len(speakers)))
    assert all(i != j for i, j in enumerate(other))
    if max(map(speakers.count, speakers)) <= len(speakers) / 2:
        assert all(speakers[i] != speakers[j] for i, j in enumerate(other))


def test_a_lone_clip_has_no_control():
    assert other_clips(["a"], ["a/1"]) == [None]


def test_the_other_sound_has_nothing_to_do_with_the_order_of_a_corpus():
    lrw = [f"W{i // 50:02}/val/W{i // 50:02}_{i % 50:05}" for i in range(1500)]
    words = [name[:3] for name in lrw]  # 30, each said by 50 unknown people
    assert lent_the_same(["unknown"] * 1500, lrw, words) <= 2 * 1500 / 30
    grid = [f"s{i // 100}/{i % 100:03}" for i in range(200)]
    sentences = [name[-3:] for name in grid]  # 100, each said by two people
    assert lent_the_same([name[:2] for name in grid], grid, sentences) <= 2 * 200 / 100


def lent_the_same(speakers, clip_ids, said) -> int:
    """How many clips are given the sound of a clip in which the same is said."""
    other = other_clips(speakers, clip_ids)
    return sum(said[i] == said[j] for i, j in enumerate(other))


def test_the_other_sound_is_cut_or_its_last_window_repeats():
    long, short = takes()[0], takes()[1]
    windows = sampling.audio_windows(clips()[1])
    lent = read_take(clips(), 0, 1).other_sound
    np.testing.assert_array_equal(lent[:10], windows)
    np.testing.assert_array_equal(lent[10:], windows[-1:].repeat(10, 0))
    lent = read_take(clips(), 1, 0).other_sound
    np.testing.assert_array_equal(lent, long.sound[: len(short.sound)])


# --- networks ---


def test_chunks_give_what_predict_gives_in_one_piece():
    b, take = bundle(), takes()[0]
    weights = Weights(b.variables["at_net"], b.variables["vg_net"], b.pca, b.boost)
    image = to_float(synthesis.resized(take.frames[:1], 32))
    coefficients = b.pca.project(
        sampling.flat_landmarks(clips()[0])[:1].astype(np.float32)
    )
    points = b.pca.reconstruct(coefficients)
    photo = Photo(image, coefficients, points, np.zeros_like(points))
    whole = jax.jit(functools.partial(predict, b.at_net, b.vg_net, False))(
        weights, photo, take.sound[None]
    )
    points = (np.asarray(whole.landmarks[0]).reshape(-1, 68, 2) + 1) * 64 - 0.5
    np.testing.assert_allclose(made_alone()[0].at["at"], points, atol=2e-3)
    frames = np.asarray(to_u8(whole.frames[0]))
    frames = synthesis.resized(frames, 128)
    assert close(made_alone()[0].frames["end_to_end"], frames)


def close(a, b) -> bool:
    """Pictures that differ by rounding."""
    return a.shape == b.shape and np.abs(a.astype(int) - b).max() <= 1


@pytest.mark.parametrize(("batch_size", "devices"), [(3, 1), (3, 2)])
def test_neither_batch_nor_devices_nor_padding_change_what_is_made(batch_size, devices):
    networks = Synthesis(bundle(), batch_size, one_device(devices))
    assert networks.batch_size == {1: 3, 2: 4}[devices]
    for made, alone in zip(networks(takes()), made_alone(), strict=True):
        assert made.frames.keys() == alone.frames.keys()
        for mode in alone.frames:
            assert close(made.frames[mode], alone.frames[mode])
        for mode in alone.at:
            np.testing.assert_allclose(made.at[mode], alone.at[mode], atol=2e-3)
    # What only fills the batch is no speed.
    assert networks.made == sum(len(take.frames) for take in takes())


def test_clips_are_dubbed_one_by_one_whatever_the_batch():
    made = Synthesis(bundle(), 2, one_device(), dub=True)(takes()[1:])
    single = Synthesis(bundle(), 1, one_device(), dub=True)
    for both, take in zip(made, takes()[1:], strict=True):
        (alone,) = single([take])
        for name in report.DUBBED:
            assert close(both.frames[name], alone.frames[name])
            assert both.frames[name].shape == take.frames.shape
        own, other = (both.frames[name] for name in report.DUBBED)
        assert (own != other).any() and (own != take.frames).any()
        # The upper half is as it was.
        np.testing.assert_array_equal(own[:, :40], take.frames[:, :40])


def test_networks_that_know_one_face_alone_are_not_dubbed():
    theirs = small_bundle(photo_landmarks=bundle().pca.mean)
    with pytest.raises(InputError, match="one face's landmarks for all photos"):
        Synthesis(theirs, 1, one_device(), dub=True)


def test_a_recurrence_over_the_batch_sees_one_clip_at_a_time():
    networks = Synthesis(small_bundle(recurrence="batch"), 4, one_device(2))
    assert networks.batch_size == networks.networks.mesh.size == 1


def test_no_more_clips_at_a_time_than_there_are(monkeypatch):
    monkeypatch.setattr("jax_atvg.evaluation.synthesis.CPU_CLIPS", 16)
    sizes = [Synthesis(bundle(), 0, one_device(2), count=n).batch_size for n in (3, 99)]
    assert sizes == [4, 32]


def test_a_bundles_own_landmarks_of_every_photo_are_used():
    theirs = small_bundle(photo_landmarks=bundle().pca.mean + np.float32(0.1))
    made = Synthesis(theirs, 1, one_device())(takes()[1:2])[0]
    alone = made_alone()[1]
    assert not np.allclose(made.at["at"], alone.at["at"], atol=0.1)
    assert close(made.frames["teacher"], alone.frames["teacher"])


# --- the whole ---


def test_every_clip_has_every_mode_and_its_scored_frames(done):
    rows = done[0].rows
    assert sorted({row["mode"] for row in rows}) == sorted(MODES)
    assert len(rows) == 4 * len(MODES)
    assert {row["clip"]: row["frames"] for row in rows} == {
        name: length - 1 for name, length in zip(clips().clip_ids, LENGTHS, strict=True)
    }


def test_the_authors_definitions_stand_beside_the_true_ones(done):
    row = next(row for row in done[0].rows if row["mode"] == "static")
    take = takes()[0]
    static = np.broadcast_to(take.frames[0], take.frames[1:].shape)
    for name, f in metrics.find_protocol("atvg-compat").frames.items():
        assert row[f"compat/{name}"] == f(take.frames[1:], static).mean()
    assert row["psnr"] == metrics.psnr(take.frames[1:], static).mean()
    assert row["compat/cpbd"] == row["cpbd"] == metrics.cpbd(take.frames[:1])[0]
    assert row["compat/lmd"] == pytest.approx(20 * row["lmd"])


def test_the_report_is_whole(done):
    results, out = done
    pictures = [f"picture_{i}.png" for i in range(5)]  # two plots, three strips
    names = ["clips.csv", "clips.json", *pictures]
    names += ["report.html", "report.md", "summary.json"]
    assert sorted(path.name for path in out.iterdir()) == names
    assert [path.name for path in out.parent.iterdir()] == ["grid"]
    rows = list(csv.DictReader((out / "clips.csv").open()))
    loaded = json.loads((out / "clips.json").read_text())
    for row, kept, written in zip(results.rows, loaded, rows, strict=True):
        assert kept["clip"] == written["clip"] == row["clip"]
        assert float(written["lmd"]) == kept["lmd"] == row["lmd"]
    summary = json.loads((out / "summary.json").read_text())
    psnr = [row["psnr"] for row in results.rows if row["mode"] == "teacher"]
    assert summary["overall"]["teacher"]["psnr"]["mean"] == pytest.approx(np.mean(psnr))
    assert list(summary["speakers"]) == sorted(set(clips().speakers))
    assert summary["clips"] == 4 and summary["frames_per_second"] > 0
    assert summary["overall"]["static"]["r"]["mean"] is None
    text = (out / "report.md").read_text()
    assert "| at_shuffled |" in text
    assert all(f"]({name})" in text for name in pictures)
    assert "end_to_end" in report.plain_text(results)
    assert "every 5th frame" in report.plain_text(results)
    assert "CPBD and CSIM-dlib are those of every 5th frame" in text


def test_the_page_holds_its_pictures_and_needs_no_other_file(done):
    import cv2

    page = (done[1] / "report.html").read_text()
    assert "a &lt;test&gt;" in page and "<test>" not in page
    sources = re.findall(r'src="([^"]*)"', page)
    assert len(sources) == 2 + 3 and 'href="' not in page
    for source in sources:
        data = base64.b64decode(source.removeprefix("data:image/png;base64,"))
        picture = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB)
        assert picture.std() > 1
    # The last strip: its first row is the worst clip's real frames.
    assert picture.shape == (5 * 128, 8 * 128, 3)
    worst = done[0].strips[-1][0].split()[1].rstrip(",")
    which = np.linspace(1, LENGTHS[clips().clip_ids.index(worst)] - 1, 8)
    take = read_take(clips(), clips().clip_ids.index(worst), None)
    real = np.concatenate(take.frames[which.round().astype(int)], axis=1)
    np.testing.assert_array_equal(picture[:128], real)


def test_best_median_and_worst_are_by_the_mouths_error():
    rows = [
        {"clip": name, "mode": mode, "lmd": lmd if mode == "end_to_end" else 0.0}
        for name, lmd in [("a", 3.0), ("b", 1.0), ("c", 2.0)]
        for mode in ("at", "end_to_end")
    ]
    assert [place for _, place in evaluation.best_median_worst(rows)] == [1, 2, 0]


def test_an_older_report_is_replaced_and_a_failure_leaves_it(
    done, tmp_path, monkeypatch
):
    results, out = done[0], tmp_path / "r"
    report.write_report(results._replace(about={"title": "old"}), out)
    report.write_report(results._replace(about={"title": "new"}), out)
    assert "# new" in (out / "report.md").read_text()

    def full(*_):
        raise OSError(28, "No space left on device")

    rename = pathlib.Path.rename

    def not_to_its_place(self, target):
        if self == out:
            return rename(self, target)  # the older one moves aside
        monkeypatch.undo()
        return full()

    for where, name, failing in [
        (report, "write_csv", full),
        (pathlib.Path, "rename", not_to_its_place),
    ]:
        monkeypatch.setattr(where, name, failing)
        with pytest.raises(InputError, match="No space left on device"):
            report.write_report(results._replace(about={"title": "newer"}), out)
        monkeypatch.undo()
        assert "# new\n" in (out / "report.md").read_text()
        assert [path.name for path in tmp_path.iterdir()] == ["r"]


def test_chosen_clips_are_the_speakers_evenly():
    speakers = ["a", "b", "a", "b", "b", "c", "b"]
    assert evaluation.choose(speakers, (), 0) == list(range(7))
    assert evaluation.choose(speakers, (), 3) == [0, 2, 4]
    assert evaluation.choose(speakers, ["b"], 0) == [1, 3, 4, 6]
    assert evaluation.choose(speakers, ["b"], 2) == [1, 4]
    assert evaluation.choose(speakers, ["c", "a"], 9) == [0, 2, 5]


def test_a_speakers_scores_are_those_of_the_whole_report(done, tmp_path):
    """The sound it is held against is any clip's of the split, too."""
    whole, name = done[0], clips().speakers[-1]
    options = {"protocol": "atvg-compat", "mesh": one_device(), "speakers": [name]}
    own = evaluate(bundle(), clips(), tmp_path / "r", dub=True, **options)
    np.testing.assert_equal(
        own.rows, [row for row in whole.rows if row["speaker"] == name]
    )


def test_end_to_end_alone_scores_as_beside_the_others(done, tmp_path):
    left_out = "teacher", "end_to_end_shuffled"
    whole = [row for row in done[0].rows if row["mode"] not in left_out]
    options = {"protocol": "atvg-compat", "mesh": one_device(), "dub": True}
    alone = evaluate(bundle(), clips(), tmp_path / "r", end_to_end_only=True, **options)
    np.testing.assert_equal(alone.rows, whole)
    for (_, fewer), (_, more) in zip(alone.strips, done[0].strips, strict=True):
        assert len(more) - len(fewer) == 128
    assert (tmp_path / "r" / "report.html").is_file()


def test_landmarks_alone_score_as_beside_frames(done, tmp_path):
    whole = [row for row in done[0].rows if row["mode"].startswith("at")]
    options = {"mesh": one_device(), "landmarks_only": True}
    alone = evaluate(bundle(), clips(), tmp_path / "r", **options)
    np.testing.assert_equal(alone.rows, whole)
    assert not alone.strips and "Landmarks from sound" in report.plain_text(alone)
    assert (tmp_path / "r" / "report.html").is_file()
