"""A bundle comes back as it was, or says what is wrong with it."""

import dataclasses
import json
import pathlib
import tracemalloc

import jax
import numpy as np
import pytest

from input_pipeline.clip import InputError, Pca
from input_pipeline.faces.align import DEFAULT_TEMPLATE
from input_pipeline.faces.landmarks import as_points, opening
from jax_atvg.inference.bundle import (
    Bundle,
    SeenFaces,
    expected_arrays,
    load_bundle,
    save_bundle,
)
from jax_atvg.models.at_net import ATNet
from jax_atvg.models.vg_net import VGNet


@pytest.fixture(scope="module")
def bundle():
    at_net = ATNet(
        num_coefficients=3,
        example_widths=(8, 8),
        audio_widths=(4, 4, 4, 4, 4),
        fc_widths=(8, 8),
        lstm_width=8,
        lstm_layers=1,
    )
    vg_net = VGNet(recurrence="batch", width=4, num_blocks=1, image_size=16)
    template, indices = DEFAULT_TEMPLATE
    random = np.random.default_rng(0).normal
    filled = jax.tree.map(
        lambda leaf: random(size=leaf.shape).astype(np.float32),
        expected_arrays(at_net, vg_net, len(indices), True, True),
    )
    return Bundle(
        at_net,
        vg_net,
        {"at_net": filled["at_net"], "vg_net": filled["vg_net"]},
        Pca(**filled["pca"]),
        filled["boost"],
        filled["landmark_to_crop"],
        template,
        indices,
        filled["photo_landmarks"],
        SeenFaces(**filled["seen"]),
    )


def assert_equal(a: Bundle, b: Bundle):
    for field in dataclasses.fields(Bundle):
        x, y = getattr(a, field.name), getattr(b, field.name)
        if field.name in ("at_net", "vg_net", "template_indices"):
            assert x == y
        else:
            jax.tree.map(np.testing.assert_array_equal, x, y)


@pytest.mark.parametrize("own_landmarks", [True, False])
def test_a_bundle_comes_back_bit_for_bit(bundle, tmp_path, own_landmarks):
    if own_landmarks:
        bundle = dataclasses.replace(bundle, photo_landmarks=None, seen=None)
    save_bundle(bundle, tmp_path / "new" / "bundle")
    assert_equal(load_bundle(tmp_path / "new" / "bundle"), bundle)
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["bundle"]


# --- a photo's landmarks ---


def faces_of(bundle: Bundle, residual: float):
    """(the bundle, without landmarks of its own; orthonormal PCA; coefficients within
    +-1; three faces: inside the PCA, a little and far outside it)."""
    random = np.random.default_rng(1).normal
    axes = np.linalg.qr(random(size=(136, 4)))[0].astype(np.float32)
    pca = Pca(random(size=136).astype(np.float32), axes[:, :3])
    one = np.ones(3, np.float32)
    seen = SeenFaces(-one, one, np.float32(residual), np.zeros(136, np.float32))
    h = np.array([[0.5, -0.2, 0.1]], np.float32)
    inside = pca.reconstruct(h)
    beside = [inside + distance * axes[:, 3] for distance in (0, 0.5, 3)]
    bundle = dataclasses.replace(bundle, pca=pca, seen=seen, photo_landmarks=None)
    return bundle, h, np.concatenate(beside), inside[0]


def test_what_is_outside_the_pca_is_kept_as_far_as_it_is_unusual(bundle):
    """(1 - residual / |r|^2) r of distances r = 0, 0.5, 3 with residual 1."""
    bundle, h, faces, inside = faces_of(bundle, 1.0)
    coefficients, landmarks, own = bundle.recognise(faces)
    np.testing.assert_allclose(coefficients, np.repeat(h, 3, 0), atol=1e-6)
    apart = np.linalg.norm(landmarks - inside, axis=-1)
    np.testing.assert_allclose(apart, [0, 0, (1 - 1 / 9) * 3], atol=1e-5)
    np.testing.assert_allclose(own, landmarks - inside, atol=1e-5)


def test_coefficients_stay_in_the_range_and_the_face_keeps_its_landmarks(bundle):
    bundle, h, faces, _ = faces_of(bundle, 0.0)
    far = faces[:1] + 5 * bundle.pca.components[:, 1]
    coefficients, landmarks, _ = bundle.recognise(far)
    np.testing.assert_allclose(coefficients, [[h[0, 0], 1, h[0, 2]]], atol=1e-5)
    np.testing.assert_allclose(landmarks, far, atol=1e-5)


def test_without_knowledge_of_the_training_faces_the_pca_decides(bundle):
    """The paper's p_p."""
    bundle, _, faces, inside = faces_of(bundle, 1.0)
    _, landmarks, own = dataclasses.replace(bundle, seen=None).recognise(faces)
    np.testing.assert_allclose(landmarks, [inside] * 3, atol=1e-5)
    np.testing.assert_array_equal(own, np.zeros((3, 136)))


def test_a_face_keeps_its_shape_and_not_its_open_lips(bundle):
    """The photo's landmarks stay as they are; its own have the lips' height of the PCA,
    and differ in nothing else than along the direction of opening."""
    bundle, _, faces, _ = faces_of(bundle, 0.0)
    direction = np.random.default_rng(2).normal(size=136).astype(np.float32)
    direction /= opening(as_points(direction[None]))
    seen = bundle.seen._replace(opening=direction)
    bundle = dataclasses.replace(bundle, seen=seen)
    h, landmarks, own = bundle.recognise(faces)
    np.testing.assert_allclose(landmarks, faces, atol=1e-5)
    np.testing.assert_allclose(opening(as_points(own)), 0, atol=1e-5)
    removed = landmarks - bundle.pca.reconstruct(h) - own
    along = removed @ direction / (direction @ direction)
    np.testing.assert_allclose(removed, along[:, None] * direction, atol=1e-5)


# --- saving and loading ---


def test_half_precision_weights_come_back_as_float32(bundle, tmp_path):
    halved = jax.tree.map(lambda x: x.astype(np.float16), bundle.variables)
    save_bundle(dataclasses.replace(bundle, variables=halved), tmp_path / "b")
    leaves = jax.tree.leaves(load_bundle(tmp_path / "b").variables)
    assert {leaf.dtype for leaf in leaves} == {np.dtype(np.float32)}


def test_saving_again_replaces_a_bundle_but_nothing_else(bundle, tmp_path):
    save_bundle(bundle, tmp_path / "b")
    other = dataclasses.replace(bundle, boost=2 * bundle.boost)
    save_bundle(other, tmp_path / "b")
    assert_equal(load_bundle(tmp_path / "b"), other)
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.tex").write_text("precious")
    with pytest.raises(InputError, match=r"thesis: exists and is no bundle; choose"):
        save_bundle(bundle, tmp_path / "thesis")
    assert (tmp_path / "thesis" / "chapter.tex").read_text() == "precious"


def test_a_failed_save_leaves_the_older_bundle(bundle, tmp_path, monkeypatch):
    import orbax.checkpoint as ocp

    save_bundle(bundle, tmp_path / "b")

    def fail(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(ocp.PyTreeCheckpointer, "save", fail)
    with pytest.raises(InputError, match=r"b: cannot be written .*No space left"):
        save_bundle(bundle, tmp_path / "b")
    assert_equal(load_bundle(tmp_path / "b"), bundle)
    assert [path.name for path in tmp_path.iterdir()] == ["b"]


def test_a_bundle_that_cannot_be_moved_to_its_place_leaves_the_older_one(
    bundle, tmp_path, monkeypatch
):
    save_bundle(bundle, tmp_path / "b")
    rename = pathlib.Path.rename

    def refuse(self, target):
        if self.name == "b":
            return rename(self, target)  # the older one moves aside
        monkeypatch.undo()
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(pathlib.Path, "rename", refuse)
    with pytest.raises(InputError, match=r"b: cannot be written .*No space left"):
        save_bundle(dataclasses.replace(bundle, boost=2 * bundle.boost), tmp_path / "b")
    assert_equal(load_bundle(tmp_path / "b"), bundle)
    assert [path.name for path in tmp_path.iterdir()] == ["b"]


def test_a_folder_that_cannot_be_made_is_an_error(bundle, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"cannot be written \(.*\); choose another"):
        save_bundle(bundle, tmp_path / "file" / "b")


def test_a_missing_bundle_is_an_error(tmp_path):
    with pytest.raises(InputError, match=r"no bundle there .* main.py export`, or"):
        load_bundle(tmp_path / "nowhere")


@pytest.fixture
def saved(bundle, tmp_path):
    save_bundle(bundle, tmp_path / "b")
    return tmp_path / "b"


def edit(path: pathlib.Path, **changes):
    description = json.loads((path / "bundle.json").read_text())
    (path / "bundle.json").write_text(json.dumps(description | changes))


def test_another_format_version_is_an_error(saved):
    edit(saved, format_version=99)
    with pytest.raises(InputError, match=r"format version 99, this program reads 1"):
        load_bundle(saved)


def test_other_audio_settings_are_an_error(saved):
    edit(saved, audio={"sample_rate": 8000})
    with pytest.raises(InputError, match=r"audio settings \{'sample_rate': 8000\}"):
        load_bundle(saved)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("at_net.params.head.bias", "at_net.params.head.bias is missing"),
        ("at_net.params.stranger", "at_net.params.stranger is of other networks"),
    ],
)
def test_arrays_of_other_networks_are_an_error(bundle, tmp_path, name, message):
    first, *rest, last = name.split(".")
    variables = jax.tree.map(lambda x: x, bundle.variables)
    tree = variables[first]
    for key in rest:
        tree = tree[key]
    if last in tree:
        del tree[last]
    else:
        tree[last] = np.zeros(3, np.float32)
    save_bundle(dataclasses.replace(bundle, variables=variables), tmp_path / "b")
    with pytest.raises(InputError, match=rf"damaged bundle \(ValueError: {message}\)"):
        load_bundle(tmp_path / "b")


def test_no_memory_is_taken_for_a_shape_that_cannot_be(bundle, tmp_path):
    variables = jax.tree.map(lambda x: x, bundle.variables)
    variables["at_net"]["params"]["head"]["bias"] = np.zeros(30_000_000, np.float32)
    save_bundle(dataclasses.replace(bundle, variables=variables), tmp_path / "b")
    del variables
    tracemalloc.start()
    with pytest.raises(InputError, match=r"bias is \(30000000,\), must be"):
        load_bundle(tmp_path / "b")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 60e6


def test_a_changed_byte_of_a_weight_is_an_error(bundle, saved):
    """The largest file holds the weights; its compression notices nothing."""
    largest = max(saved.joinpath("arrays").rglob("*"), key=lambda p: p.stat().st_size)
    whole, random, noticed = largest.read_bytes(), np.random.default_rng(0), 0
    for _ in range(20):
        damaged = bytearray(whole)
        damaged[random.integers(len(damaged))] ^= int(random.integers(1, 256))
        largest.write_bytes(bytes(damaged))
        try:
            assert_equal(load_bundle(saved), bundle)  # a byte that nobody reads
        except InputError as error:
            assert "damaged bundle" in str(error)
            noticed += 1
    assert noticed > 15
    largest.write_bytes(whole)
    assert_equal(load_bundle(saved), bundle)


def test_any_name_of_a_folder_will_do(bundle, tmp_path):
    path = tmp_path / "größe #1 50%?.b"
    save_bundle(bundle, path)
    assert_equal(load_bundle(path), bundle)


@pytest.mark.parametrize("text", ["{", "[]", "{}"])
def test_a_broken_description_is_an_error(saved, text):
    (saved / "bundle.json").write_text(text)
    with pytest.raises(InputError, match="damaged bundle"):
        load_bundle(saved)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("doubt", {}),
        ("doubt", None),
        ("relative", 1),
        ("lstm_width", 16.0),
        ("fc_widths", [16, [16]]),
        ("fc_widths", "16"),
    ],
)
def test_sizes_of_another_type_are_an_error(saved, name, value):
    description = json.loads((saved / "bundle.json").read_text())
    edit(saved, at_net=description["at_net"] | {name: value})
    with pytest.raises(InputError, match=f"damaged bundle .*{name}=.*: must be as "):
        load_bundle(saved)


@pytest.mark.parametrize("index", [1.5, None, [3], True, -1, 68, 36])
def test_a_template_of_what_are_no_points_is_an_error(saved, index):
    """36 is among them already."""
    indices = json.loads((saved / "bundle.json").read_text())["template_indices"]
    edit(saved, template_indices=[index, *indices[1:]])
    with pytest.raises(InputError, match=r"must be distinct, in 0\.\.67"):
        load_bundle(saved)


def test_sizes_that_the_arrays_do_not_have_are_an_error(saved):
    description = json.loads((saved / "bundle.json").read_text())
    edit(saved, at_net=description["at_net"] | {"lstm_width": 9})
    with pytest.raises(InputError, match="damaged bundle"):
        load_bundle(saved)


def test_a_truncated_file_is_an_error_or_does_no_harm(bundle, saved, capfd):
    """Of orbax's bookkeeping not all is read; a damaged array is never loaded, and
    nothing but the error is said."""
    noticed = 0
    for path in sorted(saved.joinpath("arrays").rglob("*")):
        whole = path.read_bytes() if path.is_file() else b""
        if len(whole) > 1:
            path.write_bytes(whole[: len(whole) // 2])
            try:
                assert_equal(load_bundle(saved), bundle)
            except InputError as error:
                assert "damaged bundle" in str(error)
                noticed += 1
            path.write_bytes(whole)
    assert noticed >= 2
    assert capfd.readouterr() == ("", "")
    assert_equal(load_bundle(saved), bundle)
