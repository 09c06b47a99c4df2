"""What a training run left is read back: experiment, weights, face model."""

import functools
import json
import math
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import at_small, smoke, vg_lrw
from input_pipeline.clip import AtBatch, InputError, Pca
from jax_atvg.inference.predict import first_state
from jax_atvg.training.at_step import at_step
from jax_atvg.training.checkpoint import BEST, SUMS, Checkpoints, saved_steps
from jax_atvg.training.config import flatten, from_flat
from jax_atvg.training.runs import Run, averaged, read_run
from jax_atvg.training.state import (
    AtState,
    NetState,
    VgState,
    from_stored,
    to_stored,
)
from jax_atvg.training.train_step import initial_state, make_nets
from jax_atvg.training.validation import variables_of
from jax_atvg.training.workdir import claim_workdir, open_workdir, save_pca
from tests.random_variables import random_variables

K = 6


def net_state(number: float) -> NetState:
    """Small arrays in the place of a network's."""
    return NetState(
        {"layer": {"kernel": jnp.full((2, 3), number)}},
        {"norm": {"mean": jnp.full((3,), number + 0.5)}},
        {"mu": jnp.zeros(7)},
    )


def at_state(number: float) -> AtState:
    return AtState(jnp.int32(0), net_state(number))


def vg_state(number: float) -> VgState:
    return VgState(jnp.int32(0), net_state(number), net_state(99.0))


def model() -> Pca:
    random = np.random.default_rng(0).normal
    return Pca(random(size=136).astype("f4"), random(size=(136, K)).astype("f4"))


def leave(workdir, config, states, losses=()):
    """What `train` leaves: states and losses by step."""
    workdir = open_workdir(workdir)
    with claim_workdir(workdir, config):
        pass
    save_pca(workdir / "pca.npz", model())
    checkpoints = Checkpoints(workdir, keep=9)
    for step, state in states.items():
        checkpoints.save(step, state, {"next_batch": step}, {})
    checkpoints.close()
    lines = [{"step": step, BEST: loss} for step, loss in losses]
    text = "".join(json.dumps(line) + "\n" for line in [{"step": 1}, *lines])
    (workdir / "metrics.jsonl").write_text(text + '{"step": 9, "vali')


@pytest.fixture(scope="module")
def at_run(tmp_path_factory):
    """Validation losses 2, 1, 3 at steps 2, 4, 6; step 4 was done twice."""
    workdir = tmp_path_factory.mktemp("at")
    losses = [(2, 2.0), (4, 9.0), (4, 1.0), (6, 3.0)]
    states = {step: at_state(step) for step in (2, 4, 6)}
    leave(workdir, smoke.get_config("at"), states, losses)
    return workdir


@pytest.fixture
def own_run(at_run, tmp_path):
    """A copy, to be spoilt."""
    return shutil.copytree(at_run, tmp_path / "run")


def assert_equal(found, expected):
    jax.tree.map(np.testing.assert_array_equal, found, jax.device_get(expected))
    assert {type(x) for x in jax.tree.leaves(found)} == {np.ndarray}


# --- what comes back ---


@pytest.mark.parametrize(
    "make",
    [vg_lrw.get_config, at_small.get_config, functools.partial(smoke.get_config, "at")],
)
def test_an_experiment_survives_json(make):
    experiment = make()
    flat = json.loads(json.dumps(flatten(experiment)))
    assert from_flat(flat) == experiment


def test_the_best_checkpoint_is_read(at_run):
    run = read_run(at_run, "at")
    assert run.step == 4
    assert run.experiment == smoke.get_config("at")
    assert_equal(run.variables, at_state(4).net.variables)
    assert_equal(run.pca, model())


def test_the_newest_checkpoint_is_read_where_asked_or_where_none_was_scored(
    at_run, own_run
):
    assert read_run(at_run, which="newest").step == 6
    (own_run / "metrics.jsonl").unlink()
    assert read_run(own_run).step == 6


def test_of_vg_net_and_its_discriminator_vg_net_is_read(tmp_path):
    state = vg_state(2)
    leave(tmp_path, smoke.get_config("vg"), {3: state})
    run = read_run(tmp_path, "vg")
    assert_equal(run.variables, variables_of(state))
    assert run.variables["params"]["layer"]["kernel"][0, 0] == 2


def test_a_checkpoint_has_the_names_of_the_first_versions():
    """So that runs of before resume, and this version's are read by those."""
    state = vg_state(2)
    tree = to_stored(state)
    assert list(tree) == ["step", "gen", "disc", "ema"] and tree["ema"] is None
    assert from_stored(tree) == state
    assert list(to_stored(at_state(1))) == ["step", "net"]
    assert type(from_stored(to_stored(at_state(1)))) is AtState


def test_a_generator_of_the_warm_up_is_not_the_best(tmp_path):
    """Its pixel loss is lowest because it is blurred."""
    config = smoke.get_config("vg")
    config.gan_loss.pixel_steps = 4
    states = {step: vg_state(step) for step in (4, 5, 6)}
    leave(tmp_path, config, states, [(4, 1.0), (5, 2.0), (6, 3.0)])
    assert read_run(tmp_path).step == 5


def test_the_best_generator_after_the_warm_up_is_kept_for_export(tmp_path):
    """Validation losses 1, 1.5 in the warm-up, then 4, 2, 3, 5; the newest stays."""
    config = smoke.get_config("vg")
    config.gan_loss.pixel_steps = 2
    losses = dict(enumerate([1.0, 1.5, 4.0, 2.0, 3.0, 5.0], 1))
    leave(tmp_path, config, {}, losses.items())
    folder, kept = open_workdir(tmp_path), []
    for step, loss in losses.items():
        checkpoints = Checkpoints(folder, keep=1, warm_up=2)
        checkpoints.save(step, vg_state(step), {"next_batch": step}, {BEST: loss})
        checkpoints.close()
        kept.append(saved_steps(folder))
    assert kept == [[1], [1, 2], [3], [4], [4, 5], [4, 6]]
    assert read_run(tmp_path).step == 4


def test_a_generator_of_the_warm_up_serves_while_there_is_no_other(tmp_path):
    config = smoke.get_config("vg")
    config.gan_loss.pixel_steps = 4
    leave(tmp_path, config, {4: vg_state(4)}, [(4, 1.0)])
    assert read_run(tmp_path).step == 4


# --- what is wrong is said ---


def test_no_run_is_an_error(tmp_path):
    with pytest.raises(InputError, match=r"no run there .* make one with `python main"):
        read_run(tmp_path)


def test_a_run_of_the_other_network_is_an_error(at_run):
    with pytest.raises(InputError, match=r"a run of AT-net, VG-net wanted .* exchange"):
        read_run(at_run, "vg")


def test_a_choice_that_does_not_exist_is_an_error(at_run):
    with pytest.raises(InputError, match=r"checkpoint=first: choose one of best, new"):
        read_run(at_run, which="first")


def test_a_run_without_checkpoints_is_an_error(tmp_path):
    with claim_workdir(open_workdir(tmp_path), smoke.get_config("at")):
        pass
    with pytest.raises(InputError, match=r"no checkpoint yet; let `train` reach its f"):
        read_run(tmp_path)


@pytest.mark.parametrize(
    ("components", "message"),
    [
        (np.zeros((136, K, 1), "f4"), "pca.npz: damaged"),
        (np.zeros((136, 0), "f4"), "pca.npz: damaged"),
        (np.zeros((136, K - 1), "f4"), "5 components, its networks 6; start `train`"),
    ],
)
def test_a_face_model_of_another_shape_is_an_error(own_run, components, message):
    save_pca(open_workdir(own_run) / "pca.npz", Pca(model().mean, components))
    with pytest.raises(InputError, match=message):
        read_run(own_run, "at")


def test_at_net_without_its_face_model_is_an_error(own_run):
    (own_run / "pca.npz").unlink()
    with pytest.raises(InputError, match=r"no pca.npz, .* start `train` there once m"):
        read_run(own_run, "at")
    assert read_run(own_run).pca is None


def test_a_damaged_face_model_is_an_error(own_run):
    (own_run / "pca.npz").write_bytes(b"PK")
    with pytest.raises(InputError, match=r"pca.npz: damaged .* copy pca.npz of the da"):
        read_run(own_run, "at")


def test_a_damaged_checkpoint_is_an_error(own_run):
    for path in (own_run / "checkpoints" / "4" / "state").rglob("*"):
        if path.is_file():
            path.write_bytes(b"")
    with pytest.raises(InputError, match=r"checkpoints/4: damaged checkpoint .* remov"):
        read_run(own_run)


def test_wrong_bytes_that_orbax_reads_are_an_error(tmp_path, monkeypatch):
    """The checksums are of other arrays than those that are read."""
    states = {3: vg_state(2)}
    leave(tmp_path, smoke.get_config("vg"), states)
    path = tmp_path / "checkpoints" / "3" / "data" / "metadata"
    data = json.loads(path.read_text())
    name = "gen/params/layer/kernel"
    path.write_text(json.dumps(data | {SUMS: data[SUMS] | {name: 1}}))
    with pytest.raises(InputError, match=rf"3: damaged .*{name} differs.*; remove"):
        read_run(tmp_path)
    path.write_text(json.dumps({"next_batch": 3}))  # of an earlier version
    assert_equal(read_run(tmp_path).variables, variables_of(states[3]))


def test_no_changed_byte_is_read_as_if_it_were_whole(tmp_path):
    """Every file of the state and the data, a random byte each."""
    random = np.random.default_rng(0)
    many = NetState({"kernel": random.normal(size=40_000).astype("f4")}, {}, {})
    state = AtState(jnp.int32(0), many)
    leave(tmp_path, smoke.get_config("at"), {4: state})
    files = [p for p in (tmp_path / "checkpoints" / "4").rglob("*") if p.is_file()]
    refused = 0
    for path in files:
        content = path.read_bytes()
        damaged = bytearray(content)
        damaged[len(damaged) // 2] ^= 1
        path.write_bytes(bytes(damaged))
        try:
            assert_equal(read_run(tmp_path).variables, many.variables)
        except InputError as error:
            assert "4: damaged checkpoint" in str(error)
            refused += "checksum of net/params/kernel differs" in str(error)
        path.write_bytes(content)
    assert refused


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"optimizer.lr": 1.0}, "unknown optimizer.lr"),
        ({"seed": None}, "config.seed=None: must be int; correct it"),
        ({"vg_net.compose": 1}, "config.vg_net.compose=1: must be bool"),
        ({"at_net.fc_widths": 3}, r"config.at_net.fc_widths=3: must be tuple"),
        ({"at_net.fc_widths": [16, math.nan]}, r"fc_widths=\(16, nan\): must be whole"),
        ({"steps": -1}, "config.steps=-1: must be 1 at least"),
    ],
)
def test_a_config_of_another_version_is_an_error(change, complaint, own_run):
    path = own_run / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(InputError, match=rf"not an experiment .*{complaint}.*train ag"):
        read_run(own_run)


def test_a_field_left_out_is_named(own_run):
    flat = flatten(smoke.get_config("at"))
    del flat["data.augment.warp"], flat["keep"]
    with pytest.raises(
        InputError, match=r"without data.augment.warp, without keep; give ev"
    ):
        from_flat(flat)
    (own_run / "config.json").write_text("{")
    with pytest.raises(InputError, match="not an experiment of this version"):
        read_run(own_run)


def test_an_integer_serves_as_a_number():
    flat = flatten(smoke.get_config("at")) | {"optimizer.clip_norm": 1}
    assert from_flat(flat).optimizer.clip_norm == 1.0


def test_a_face_model_that_cannot_be_written_is_an_error(tmp_path):
    with pytest.raises(InputError, match=r"pca.npz: cannot be written .* make room"):
        save_pca(open_workdir(tmp_path) / "none" / "pca.npz", model())


# --- the mean of several AT-nets ---


def member(seed: int, pca: Pca, **sizes) -> Run:
    """Random weights in the shapes of the smoke config."""
    experiment = smoke.get_config("at")
    for name, value in sizes.items():
        setattr(experiment.at_net, name, value)
    inputs = (np.zeros(shape, np.float32) for shape in ((1, K), (1, 1, 28, 12)))
    variables = random_variables(make_nets(experiment).net, *inputs, seed=seed)
    return Run(experiment, variables, pca, 6)


def test_an_average_says_the_mean_of_its_members_window_by_window():
    runs = [member(seed, model()) for seed in range(3)]
    mean = averaged(runs)
    random = np.random.default_rng(1).normal
    photo, sound = random(size=(2, K)), random(size=(2, 5, 28, 12))
    inputs = photo.astype("f4"), sound.astype("f4")
    apply = jax.jit(make_nets(runs[0].experiment).net.apply)
    each = [apply(run.variables, *inputs).coefficients for run in runs]
    assert np.ptp(each, axis=0).max() > 0.1
    net = make_nets(mean.experiment).net
    apply = jax.jit(net.apply)
    whole = apply(mean.variables, *inputs)
    np.testing.assert_allclose(whole.coefficients, np.mean(each, 0), atol=1e-5)
    photo, sound = inputs
    first = apply(mean.variables, photo, sound[:, :2])
    rest = apply(mean.variables, photo, sound[:, 2:], state=first.state)
    np.testing.assert_allclose(rest.coefficients, whole.coefficients[:, 2:], atol=1e-5)
    state = first_state(net, make_nets(smoke.get_config("vg")).vg_net).at_net
    alone = apply(mean.variables, photo[:1], sound[:1], state=state)
    np.testing.assert_allclose(alone.coefficients, whole.coefficients[:1], atol=1e-5)


def test_the_average_of_one_run_is_that_run():
    run = member(0, model())
    assert averaged([run]) is run


def test_an_average_can_be_trained_as_one():
    """Every member's gradient and running statistics are its own."""
    experiment = smoke.get_config("at")
    experiment.at_net.members = 2
    nets = make_nets(experiment, model())
    random = np.random.default_rng(2).normal
    shapes = (2, K), (2, 4, 28, 12), (2, 4, K)
    batch = AtBatch(*(random(size=shape).astype("f4") for shape in shapes))
    state = jax.jit(functools.partial(initial_state, nets, batch))(0)
    assert {len(x) for x in jax.tree.leaves(state.net.params)} == {2}
    after, _ = jax.jit(functools.partial(at_step, nets))(state, batch)

    def moved(old, new) -> bool:
        return all(np.any(a != b) for a, b in zip(old, new, strict=True))

    learnt = (state.net.params, state.net.batch_stats)
    now = (after.net.params, after.net.batch_stats)
    assert all(jax.tree.leaves(jax.tree.map(moved, learnt, now)))


def test_no_average_of_other_sizes_other_faces_or_of_averages():
    run = member(0, model())
    wider = member(0, model(), lstm_width=run.experiment.at_net.lstm_width + 1)
    with pytest.raises(InputError, match=r"other sizes: lstm_width=\d+ \(now \d+\)"):
        averaged([run, wider])
    other = Pca(model().mean + 1, model().components)
    with pytest.raises(InputError, match="of other face models"):
        averaged([run, run._replace(pca=other)])
    pair = member(0, model(), members=2)
    with pytest.raises(InputError, match="runs of 2 members each; give one"):
        averaged([pair, pair])
