"""The networks as programs of their own: they run without this package."""

import dataclasses
import json
import subprocess
import sys
import textwrap

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import export as jax_export

from input_pipeline.clip import InputError
from jax_atvg.inference import stablehlo
from jax_atvg.inference.bundle import SeenFaces, load_bundle
from jax_atvg.inference.predict import with_lids
from jax_atvg.models.at_net import ATNet
from tests.random_variables import random_variables
from tests.small_bundle import small_bundle


def zeros(*shapes):
    return [np.zeros(shape, np.float32) for shape in shapes]


ELSEWHERE = """
import importlib.util, json, sys
import numpy as np
import jax.export

for name in ("jax_atvg", "input_pipeline", "flax"):
    assert name not in sys.modules
for name in ("jax_atvg", "input_pipeline"):
    assert importlib.util.find_spec(name) is None
signature = json.load(open("signature.json"))
results = {}
for name in ("at_net", "vg_net"):
    with open(name + ".stablehlo", "rb") as file:
        program = jax.export.deserialize(bytearray(file.read()))
    assert program.platforms == ("cpu", "cuda", "tpu")
    for b, t in ((1, 3), (2, 5)):
        inputs = []
        for i, shape in enumerate(signature[name]["inputs"].values()):
            shape = [{"b": b, "t": t}.get(n, n) for n in shape]
            random = np.random.default_rng([b, i])
            inputs.append(np.tanh(random.normal(size=shape)).astype(np.float32))
        outputs = program.call(*inputs)
        names = signature[name]["outputs"]
        assert len(outputs) == len(names)
        for i, x in enumerate(inputs):
            results[f"{name}/{b}/in/{i}"] = x
        for key, x in zip(names, outputs):
            results[f"{name}/{b}/out/{key}"] = x
np.savez(sys.argv[1], **results)
"""


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """(bundle, its folder)."""
    folder, bundle = tmp_path_factory.mktemp("export") / "bundle", small_bundle()
    stablehlo.write_bundle(bundle, folder, stablehlo=True)
    return bundle, folder


def test_programs_run_elsewhere_without_this_package(exported, tmp_path):
    """At two batch sizes and two lengths, state given: what apply gives, to 1e-5."""
    bundle, folder = exported
    (tmp_path / "run.py").write_text(ELSEWHERE)
    done = subprocess.run(
        [sys.executable, "-P", tmp_path / "run.py", tmp_path / "results.npz"],
        cwd=folder / "stablehlo",
        env={"PATH": "", "JAX_PLATFORMS": "cpu", "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    found = np.load(tmp_path / "results.npz")
    for name, size in (("at_net", 2), ("vg_net", 3)):
        net = getattr(bundle, name)
        apply, weights = jax.jit(net.apply), bundle.variables[name]
        for b in (1, 2):
            inputs = [x for key, x in found.items() if f"{name}/{b}/in/" in key]
            given, state = inputs[:size], inputs[size:]
            shapes = jax.eval_shape(net.apply, weights, *given).state
            state = jax.tree.unflatten(jax.tree.structure(shapes), state)
            expected = apply(weights, *given, state=state)
            for key in (*stablehlo.OUTPUTS[name],):
                np.testing.assert_allclose(
                    found[f"{name}/{b}/out/{key}"],
                    getattr(expected, key),
                    atol=1e-5,
                    err_msg=key,
                )
            states = jax.tree.leaves(expected.state)
            for key, leaf in zip(stablehlo.STATES[name], states, strict=True):
                np.testing.assert_allclose(
                    found[f"{name}/{b}/out/{key}"], leaf, atol=1e-5, err_msg=key
                )


def test_what_lies_beside_the_programs(exported):
    bundle, folder = exported
    folder = folder / "stablehlo"
    settings = np.load(folder / "settings.npz")
    np.testing.assert_array_equal(settings["boost"], bundle.boost)
    np.testing.assert_array_equal(settings["components"], bundle.pca.components)
    signature = json.loads((folder / "signature.json").read_text())
    assert signature["at_net"]["outputs"]["coefficients"] == ["b", "t", 4]
    assert signature["vg_net"]["inputs"] == {
        "image": ["b", 32, 32, 3],
        "landmarks": ["b", "t", 136],
        "example": ["b", 136],
        "gru": ["b", 2, 2, 32],
    }
    assert "jax.export.deserialize" in (folder / "README.txt").read_text()
    load_bundle(folder.parent)


def test_photo_landmarks_of_the_authors_networks_are_kept(tmp_path):
    bundle = small_bundle(photo_landmarks=np.arange(136, dtype=np.float32))
    stablehlo.save_settings(tmp_path / "settings.npz", bundle)
    settings = np.load(tmp_path / "settings.npz")
    np.testing.assert_array_equal(settings["photo_landmarks"], np.arange(136))


@pytest.mark.parametrize("from_rest", [False, True])
def test_the_lines_in_the_readme_compute_what_animate_gives_the_networks(
    tmp_path, from_rest
):
    bundle = small_bundle()
    random = np.random.default_rng(0)
    seen = SeenFaces(-np.ones(4), np.ones(4), 0.01, random.normal(size=136))
    at_net = bundle.at_net.clone(from_rest=from_rest)
    bundle = dataclasses.replace(bundle, at_net=at_net, seen=seen)
    stablehlo.save_settings(tmp_path / "settings.npz", bundle)
    p = (bundle.pca.mean + 0.05 * random.normal(size=(3, 136))).astype(np.float32)
    p[:, [131, 133, 135]] += 0.2  # open lips
    given = {}

    class Program:
        def __init__(self, name):
            self.name = name

        def call(self, *arrays):
            given[self.name] = arrays
            return [np.zeros((3, 2, 4)), 0, 0] if self.name == "at_net" else [0] * 4

    code = stablehlo.README.split('np.load("settings.npz")\n')[1]
    scope = {"np": np, "p": p, "s": np.load(tmp_path / "settings.npz")}
    scope |= {name: Program(name) for name in ("at_net", "vg_net")}
    scope["down"] = down = random.uniform(0, 1, (3, 2))
    scope |= {"audio": None, "image": None, "at_zeros": (), "vg_zeros": ()}
    exec(textwrap.dedent(code), scope)
    h, example, own = bundle.recognise(p)
    np.testing.assert_allclose(given["at_net"][0], h, atol=1e-5)
    np.testing.assert_allclose(given["vg_net"][2], example, atol=1e-5)
    landmarks = bundle.pca.mean + own[:, None] + np.zeros((1, 2, 1))
    blinking = with_lids(jnp.asarray(landmarks, np.float32), down.astype(np.float32))
    np.testing.assert_allclose(given["vg_net"][1], blinking, atol=1e-5)
    plain = dataclasses.replace(bundle, at_net=bundle.at_net.clone(from_rest=False))
    assert np.allclose(h, plain.recognise(p)[0]) != from_rest


def test_a_full_disk_leaves_the_bundle_and_no_half_of_the_programs(
    tmp_path, monkeypatch
):
    def full(path, bundle):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(stablehlo, "program_files", lambda bundle: {"a": b""})
    monkeypatch.setattr(stablehlo, "save_settings", full)
    with pytest.raises(InputError, match=r"stablehlo: cannot be written .*No space.*m"):
        stablehlo.write_bundle(small_bundle(), tmp_path / "bundle", stablehlo=True)
    assert {path.name for path in (tmp_path / "bundle").iterdir()} == {
        "bundle.json",
        "arrays",
    }


def test_the_mean_of_several_at_nets_is_a_program_too():
    net = ATNet((16, 16), (4, 4, 8, 8, 8), (16, 16), 16, 1, members=2)
    variables = random_variables(net, *zeros((1, 6), (1, 1, 28, 12)))
    inputs = {"example": ("b", 6), "audio": ("b", "t", 28, 12)}
    code, signature = stablehlo.program(
        net, variables, inputs, stablehlo.OUTPUTS["at_net"], stablehlo.STATES["at_net"]
    )
    random = np.random.default_rng(0).normal
    example, audio = (random(size=s).astype("f4") for s in ((2, 6), (2, 3, 28, 12)))
    shape = (net.lstm_layers, 2, 2, net.lstm_width)
    assert signature["inputs"]["hidden"] == [shape[0], "b", *shape[2:]]
    program = jax_export.deserialize(bytearray(code))
    found, *_ = program.call(example, audio, *zeros(shape, shape))
    expected = net.apply(variables, example, audio).coefficients
    np.testing.assert_allclose(found, expected, atol=1e-5)
