"""The public functions do what docs/api.md says of them."""

import ast
import functools
import inspect
import re
from unittest import mock

import jax
import numpy as np
import pytest

import jax_atvg
from input_pipeline.clip import InputError
from input_pipeline.training_data.synthetic import SyntheticClips, write_dataset
from jax_atvg.inference.bundle import save_bundle
from jax_atvg.inference.networks import Networks
from jax_atvg.resources import DEFAULT_BUNDLE
from jax_atvg.sharding import data_mesh
from jax_atvg.training.reporting import Reporter
from tests.conftest import ROOT
from tests.small_bundle import photo, photo_points, small_bundle, speech

PAGE = (ROOT / "docs" / "api.md").read_text("utf-8")
EXAMPLES = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
NAMES = [name for name in jax_atvg.__all__ if name != "__version__"]
FUNCTIONS = [name for name in NAMES if inspect.isfunction(getattr(jax_atvg, name))]
CALLED = [*FUNCTIONS, "Networks", "Talker"]  # all of whose arguments the page gives
SECONDS = 0.4


def parameters(name: str):
    return inspect.signature(getattr(jax_atvg, name)).parameters


# --- the page ---


def promised() -> dict[str, list[str]]:
    """{name: its arguments} of the page's table."""
    rows = re.findall(r"^\| `(\w+)(?:\((.*)\))?` \|", PAGE, re.MULTILINE)
    return {
        name: re.findall(r"\w+|\*", re.sub(r"=\"?\w+\"?|\.\.\.", "", text))
        for name, text in rows
    }


def test_the_page_names_every_public_name_and_no_other():
    assert sorted(promised()) == sorted(jax_atvg.__all__)


@pytest.mark.parametrize("name", CALLED)
def test_the_page_gives_the_arguments_of_a_call_in_their_order(name):
    arguments = promised()[name]
    positional = arguments[: arguments.index("*")] if "*" in arguments else arguments
    kinds = {p.name: p.kind for p in parameters(name).values()}
    assert [a for a in arguments if a != "*"] == list(kinds)
    assert positional == [n for n, k in kinds.items() if k != k.KEYWORD_ONLY]


@pytest.mark.parametrize("name", sorted(set(NAMES) - {"InputError", *CALLED}))
def test_the_page_gives_arguments_that_a_class_has(name):
    assert set(promised()[name]) <= set(parameters(name))


@pytest.mark.parametrize("example", EXAMPLES)
def test_the_page_calls_what_there_is(example):
    """Nothing is computed, but a wrong argument is an error."""
    known = {
        name: mock.create_autospec(getattr(jax_atvg, name))
        for name in NAMES
        if name != "load_config"
    }
    given = dict.fromkeys(["key", "image", "landmarks", "example", "samples"])
    given |= {"landmarks": np.zeros((1, 16, 136)), "samples": np.zeros(1600)}
    given |= {"jax_atvg": jax_atvg, "experiment": jax_atvg.Experiment()}
    with mock.patch.multiple(jax_atvg, create=True, **known):
        exec(example, given)
    if "Printer" in given:
        assert isinstance(given["Printer"](), Reporter)


# --- types ---


@pytest.mark.parametrize("name", FUNCTIONS)
def test_every_argument_and_result_has_a_type(name):
    signature = inspect.signature(getattr(jax_atvg, name))
    kinds = [p.annotation for p in signature.parameters.values()]
    assert inspect.Signature.empty not in (*kinds, signature.return_annotation)


def test_type_checkers_see_the_names_where_they_are_imported_from():
    tree = ast.parse(inspect.getsource(jax_atvg))
    seen = {
        alias.name: node.module
        for block in tree.body
        if isinstance(block, ast.If)
        for node in block.body
        for alias in node.names
    }
    assert seen == jax_atvg.HOMES
    assert (ROOT / "jax_atvg" / "py.typed").exists()


# --- animate ---


@pytest.fixture(scope="module")
def bundle_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bundles") / "mine"
    save_bundle(small_bundle(), folder)
    return folder


@pytest.fixture(scope="module")
def found():
    """The face is searched for once."""
    name = "input_pipeline.faces.detection.photo_points"
    with mock.patch(name, lambda *_: photo_points()):
        yield


def test_a_bundle_is_its_folder_or_itself_or_its_networks(bundle_folder, found):
    loaded = jax_atvg.load_bundle(bundle_folder)
    assert isinstance(loaded, jax_atvg.Bundle)
    kinds = [bundle_folder, str(bundle_folder), loaded, Networks(loaded)]
    first, *others = (
        jax_atvg.animate(photo(), (speech(SECONDS), 16000), kind) for kind in kinds
    )
    assert (first.shape, first.dtype) == ((10, 32, 32, 3), np.uint8)
    for frames in others:
        np.testing.assert_array_equal(frames, first)


def test_without_a_bundle_it_is_the_default_model(found):
    frames = jax_atvg.animate(photo(), (speech(SECONDS), 16000))
    assert frames.shape == (10, 128, 128, 3)
    for name in ("animate", "animate_file"):
        assert parameters(name)["bundle"].default == DEFAULT_BUNDLE


# --- train ---


def experiment(steps: int):
    one = jax_atvg.load_config("smoke:at")
    assert isinstance(one, jax_atvg.Experiment)
    one.steps, one.data.num_coefficients = steps, 3
    return one


train = functools.partial(jax_atvg.train, progress=False)


class Kept:
    """A reporter of one's own."""

    def __init__(self):
        self.steps, self.ended = [], False

    def scalars(self, step, values):
        self.steps.append(step)

    def picture(self, step, name, picture):
        pass

    def publish(self):
        pass

    def close(self):
        self.ended = True


def test_a_run_goes_on_where_it_stopped_and_returns_the_state(tmp_path, capfd):
    """That it is the same as without the stop: test_loop.py."""
    mesh, kept = data_mesh(jax.devices()[:1]), [Kept(), Kept()]
    for steps, reporter in zip((2, 4), kept, strict=True):
        state = train(experiment(steps), tmp_path, mesh=mesh, reporters=[reporter])
        assert int(state.step) == steps
    assert [set(reporter.steps) for reporter in kept] == [{2}, {4}]
    assert all(reporter.ended for reporter in kept)
    assert capfd.readouterr() == ("", "")


def test_a_finished_run_says_so_and_compiles_nothing(tmp_path, capfd):
    mesh = data_mesh(jax.devices()[:1])
    train(experiment(2), tmp_path, mesh=mesh)
    jax_atvg.train(experiment(2), tmp_path, mesh=mesh)
    said = capfd.readouterr().err
    assert "already at step 2, 2 were asked for" in said and "compiling" not in said


def test_training_without_data_says_what_to_give(tmp_path):
    one = experiment(2)
    one.data.synthetic = 0
    with pytest.raises(InputError, match="data_dir is missing"):
        train(one, tmp_path / "run")
    assert not (tmp_path / "run").exists()


# --- evaluate ---


def test_evaluate_takes_folders_or_what_is_in_them(bundle_folder, tmp_path):
    clips = SyntheticClips(2, 12)
    write_dataset(tmp_path / "data", train=clips, validation=clips)
    places = [
        (bundle_folder, tmp_path / "data"),
        (str(bundle_folder), str(tmp_path / "data")),
        (small_bundle(), clips),
    ]
    first, *others = (
        jax_atvg.evaluate(*place, tmp_path / str(i), landmarks_only=True).rows
        for i, place in enumerate(places)
    )
    assert {row["clip"] for row in first} == set(clips.clip_ids)
    assert all(rows == first for rows in others)
    assert (tmp_path / "0" / "report.html").exists()
