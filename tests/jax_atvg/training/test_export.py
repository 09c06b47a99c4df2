"""Two runs become a bundle; its networks run without this package's code."""

import jax
import numpy as np
import pytest

from configs import smoke
from input_pipeline.clip import InputError, Pca
from input_pipeline.faces import align, landmarks
from input_pipeline.faces.landmarks import as_points, opening
from input_pipeline.training_data import loader, sampling, synthetic
from input_pipeline.training_data.fingerprint import CLIPS as HASHES
from input_pipeline.training_data.fingerprint import TEMPLATE
from jax_atvg.inference.bundle import load_bundle
from jax_atvg.training import export
from jax_atvg.training.runs import Run
from jax_atvg.training.train_step import make_nets
from tests.random_variables import random_variables
from tests.small_bundle import LANDMARK_TO_CROP

ALIGNMENT = {
    "landmark_to_crop": LANDMARK_TO_CROP,
    "template": align.DEFAULT_TEMPLATE.points,
    "template_indices": align.DEFAULT_TEMPLATE.indices,
}
CLIPS = synthetic.SyntheticClips(3, [12, 10, 7])


def zeros(*shapes):
    return [np.zeros(shape, np.float32) for shape in shapes]


@pytest.fixture(scope="module")
def runs():
    """(AT-net's, VG-net's): random weights in the shapes of the smoke configs."""
    at, vg = (smoke.get_config(network) for network in ("at", "vg"))
    vg.vg_net.remat = True
    inputs = zeros((1, 6), (1, 1, 28, 12))
    at_weights = random_variables(make_nets(at).net, *inputs)
    inputs = zeros((1, 128, 128, 3), (1, 1, 136), (1, 136))
    vg_weights = random_variables(make_nets(vg).vg_net, *inputs)
    return Run(at, at_weights, CLIPS.pca(6), 6), Run(vg, vg_weights, None, 6)


def test_a_bundle_holds_what_both_runs_have_learnt(runs, tmp_path):
    at, vg = runs
    w = np.linspace(1, 2, 6).astype(np.float32)
    export.write_bundle(export.make_bundle(at, vg, w, **ALIGNMENT), tmp_path / "bundle")
    bundle = load_bundle(tmp_path / "bundle")
    stored = bundle.variables["at_net"], bundle.variables["vg_net"], bundle.pca
    learnt = at.variables, vg.variables, at.pca
    jax.tree.map(np.testing.assert_array_equal, stored, learnt)
    np.testing.assert_array_equal(bundle.boost, w)
    assert bundle.at_net == make_nets(at.experiment).net
    assert bundle.vg_net == make_nets(vg.experiment).vg_net.clone(remat=False)
    assert bundle.photo_landmarks is None
    points = landmarks.to_pixels(at.pca.mean)
    in_crop = align.transform(bundle.landmark_to_crop, at.pca.mean.reshape(68, 2))
    np.testing.assert_allclose(in_crop, points, atol=1e-4)
    assert {path.name for path in (tmp_path / "bundle").iterdir()} == {
        "bundle.json",
        "arrays",
    }


def test_without_a_calibration_the_boost_is_one(runs):
    np.testing.assert_array_equal(
        export.make_bundle(*runs, **ALIGNMENT).boost, np.ones(6)
    )


def test_half_weights_differ_by_float16s_rounding_and_take_half_the_room(
    runs, tmp_path
):
    for half in (False, True):
        bundle = export.make_bundle(*runs, half=half, **ALIGNMENT)
        export.write_bundle(bundle, tmp_path / str(half))
    whole, half = (load_bundle(tmp_path / name) for name in ("False", "True"))
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(b, a, rtol=2**-11, atol=2**-24),
        whole.variables,
        half.variables,
    )
    sizes = [
        sum(path.stat().st_size for path in (tmp_path / name).rglob("*"))
        for name in ("False", "True")
    ]
    assert sizes[1] < 0.75 * sizes[0]


def test_a_weight_beyond_float16_is_an_error():
    tree = {"at_net": {"params": {"head": {"kernel": np.float32([1, -7e4])}}}}
    with pytest.raises(
        InputError, match=r"at_net/params/head/kernel reaches 70000, .*without --half"
    ):
        export.to_half(tree)


# --- where the face lies in the crop ---

AUTHORS = align.Template(align.DEFAULT_TEMPLATE.points[1:] + 3, (*range(27, 39),))


def noted(template):
    """What a run notes of its data."""
    return {HASHES: {"grid": "1"}, TEMPLATE: align.template_as_json(template)}


@pytest.fixture
def exported(runs, tmp_path, monkeypatch):
    """(AT-net's data, VG-net's, template) -> the bundle that export makes of runs."""

    def make(at_data, vg_data, template=None, **options):
        at, vg = runs
        experiment = smoke.get_config("at")
        experiment.data.synthetic = 0
        found = {
            "at": at._replace(experiment=experiment, data=at_data),
            "vg": vg._replace(data=vg_data),
        }
        monkeypatch.setattr(export, "read_run", lambda _, network, __: found[network])
        return export.export(
            "at", "vg", tmp_path / "bundle", template=template, **options
        )

    return make


@pytest.mark.parametrize(
    ("at", "vg", "given", "expected"),
    [
        (AUTHORS, AUTHORS, None, AUTHORS),
        (AUTHORS, None, AUTHORS, AUTHORS),
        (None, AUTHORS, None, AUTHORS),
        (None, None, AUTHORS, AUTHORS),
        (None, None, None, align.DEFAULT_TEMPLATE),
    ],
)
def test_the_face_lies_in_the_crop_as_in_the_data_of_the_runs(
    exported, at, vg, given, expected
):
    bundle = exported(at and noted(at), vg and noted(vg), given)
    np.testing.assert_allclose(bundle.template, expected.points, atol=1e-6)
    assert tuple(bundle.template_indices) == expected.indices
    assert bundle.data == (at and {"grid": "1"})


def test_another_template_than_the_runs_is_an_error(exported, tmp_path):
    ours, other = noted(AUTHORS), noted(align.DEFAULT_TEMPLATE)
    with pytest.raises(InputError, match=r"--template: the runs were .* leave --templ"):
        exported(ours, ours, align.DEFAULT_TEMPLATE)
    with pytest.raises(InputError, match=r"--at: the run was .* with one --template"):
        exported(ours, other)
    assert not (tmp_path / "bundle").exists()


@pytest.mark.parametrize("half", [False, True])
def test_the_bundle_that_is_returned_is_that_which_is_loaded(exported, tmp_path, half):
    """In float32, also where the files hold float16."""

    def same(returned, loaded):
        assert returned.dtype == loaded.dtype == np.float32
        np.testing.assert_array_equal(returned, loaded)

    bundle = exported(None, None, half=half)
    jax.tree.map(same, bundle.variables, load_bundle(tmp_path / "bundle").variables)


# --- the faces of the training clips ---


def test_seen_faces_are_the_range_of_all_frames_and_their_distance_from_the_pca():
    random = np.random.default_rng(0).normal
    axes = np.linalg.qr(random(size=(136, 3)))[0].astype(np.float32)
    pca = Pca(random(size=136).astype(np.float32), axes[:, :2])
    h = np.linspace([-1, 0], [1, 6], 1001, dtype=np.float32)
    frames = pca.reconstruct(h) + 0.5 * axes[:, 2]
    seen = export.seen_faces(pca, [frames[:300], frames[300:]])
    np.testing.assert_allclose(seen.low, [-0.99, 0.03], atol=1e-5)
    np.testing.assert_allclose(seen.high, [0.99, 5.97], atol=1e-5)
    np.testing.assert_allclose(seen.residual, 0.25, rtol=1e-4)


def test_the_direction_of_opening_is_that_of_the_lips_whatever_the_clips_faces():
    """Clips of faces that move along one direction d, differently far."""
    random = np.random.default_rng(3).normal
    d = random(size=136)
    d /= opening(as_points(d[None]))
    clips = [random(size=136) + np.outer(random(size=40), d) for _ in range(3)]
    pca = Pca(np.zeros(136, np.float32), np.eye(136, 2, dtype=np.float32))
    seen = export.seen_faces(pca, [clip.astype(np.float32) for clip in clips])
    np.testing.assert_allclose(seen.opening, d, atol=1e-4)


def test_seen_faces_in_one_pass_are_those_of_all_frames_at_once():
    random = np.random.default_rng(4).normal
    axes = np.linalg.qr(random(size=(136, 6)))[0].astype(np.float32)
    pca = Pca(random(size=136).astype(np.float32), axes)
    clips = [random(size=(n, 136)).astype(np.float32) for n in (30, 1, 80)]
    seen = export.seen_faces(pca, iter(clips))
    p = np.concatenate(clips)
    h = (p - pca.mean) @ axes
    np.testing.assert_allclose(seen.low, np.quantile(h, 0.005, axis=0), rtol=1e-5)
    np.testing.assert_allclose(seen.high, np.quantile(h, 0.995, axis=0), rtol=1e-5)
    apart = np.sum((p - h @ axes.T - pca.mean) ** 2, 1).mean()
    np.testing.assert_allclose(seen.residual, apart, rtol=1e-5)
    moved = np.concatenate([clip - clip.mean(0) for clip in clips])
    opened = opening(as_points(moved))
    regression = opened @ moved / (opened @ opened)
    np.testing.assert_allclose(seen.opening, regression, atol=1e-5)


# --- the boost ---


def test_calibrated_spreads_are_equal():
    """std(w predicted) = std(true)."""
    random = np.random.default_rng(0).normal
    predicted = random(size=(500, 3)) * (1, 2, 3)
    true = random(size=(500, 3)) * (2, 1.5, 6)
    w = export.calibrate(predicted, true)
    np.testing.assert_allclose((w * predicted).std(0), true.std(0), rtol=1e-5)


def test_the_boost_is_one_where_nothing_moves_and_stays_in_its_range():
    move = np.linspace(-1, 1, 9)
    predicted = np.stack([0 * move, 0 * move + 0.1, move, move, move], 1)
    true = np.stack([move, move, 9 * move, 0 * move, 2 * move], 1)
    w = export.calibrate(predicted.astype("f4"), true.astype("f4"))
    np.testing.assert_allclose(w, [1, 1, 3, 0.5, 2], rtol=1e-6)


def test_coefficients_are_of_all_valid_frames_and_no_others(runs):
    """Clip by clip, without padding or batches."""
    at = runs[0]
    batches = loader.evaluation_batches(
        CLIPS, batch_size=2, pca=at.pca, frames=False, num_threads=1
    )
    predicted, true = export.coefficients(at, batches)
    expected = [at.pca.project(clip.landmarks.reshape(-1, 136)) for clip in CLIPS]
    np.testing.assert_allclose(true, np.concatenate(expected), atol=1e-6)
    example, audio = expected[2][:1], sampling.audio_windows(CLIPS[2])[None]
    net = make_nets(at.experiment).net
    alone = net.apply(at.variables, example, audio).coefficients[0]
    np.testing.assert_allclose(predicted[22:], alone, atol=1e-5)
    assert predicted.shape == (29, 6)


def test_mouth_error_is_the_mean_distance_in_pixels():
    pca = CLIPS.pca(4)
    random = np.random.default_rng(0).normal
    predicted, true = (0.1 * random(size=(5, 4)) for _ in range(2))
    points = (landmarks.to_pixels(pca.reconstruct(h)) for h in (predicted, true))
    apart = np.subtract(*points)[:, 48:]
    expected = np.hypot(apart[..., 0], apart[..., 1]).mean()
    assert export.mouth_error(pca, predicted, true) == pytest.approx(expected, 1e-4)
