"""The face embedding in JAX against dlib's own, and its file."""

import functools
import importlib.util

import numpy as np
import pytest

from input_pipeline.clip import InputError
from input_pipeline.faces import detection, recognition
from jax_atvg.evaluation import identity
from tests.small_bundle import photo, photo_points


@functools.cache
def chips() -> np.ndarray:
    """The same face: as it is, mirrored, darker; and noise."""
    face = recognition.face_chip(photo(), photo_points())
    noise = np.random.default_rng(0).integers(0, 256, face.shape, np.uint8)
    return np.stack([face, face[:, ::-1], face // 2, noise])


@functools.cache
def weights() -> identity.Weights:
    return identity.read_weights(identity.model_path())


@functools.cache
def by_dlib() -> np.ndarray:
    import dlib

    network = dlib.face_recognition_model_v1(str(identity.model_path()))
    return np.array([network.compute_face_descriptor(chip) for chip in chips()])


def test_embeddings_are_dlibs():
    """But for the rounding of float32 over 30 layers; values are about 0.1."""
    found = identity.embeddings(weights(), chips())
    np.testing.assert_allclose(found, by_dlib(), rtol=0, atol=2e-6)


def test_a_chip_is_the_face_that_dlib_embeds():
    import dlib

    network = dlib.face_recognition_model_v1(str(identity.model_path()))
    box = detection.box_of(photo_points())
    parts = [dlib.point(round(float(x)), round(float(y))) for x, y in photo_points()]
    shape = dlib.full_object_detection(dlib.rectangle(*box), parts)
    whole = network.compute_face_descriptor(photo(), shape)
    np.testing.assert_array_equal(whole, by_dlib()[0])


def test_likeness_is_the_mean_cosine_to_the_photo():
    face, mirrored, darker, noise = chips()
    faces = {"photo": face[None], "same": face[None], "real": np.stack([darker, noise])}
    faces["many"] = mirrored[None].repeat(20, 0)
    found = identity.likeness(
        weights(), {**faces, "many": mirrored[None].repeat(20, 0)}
    )
    units = by_dlib() / np.linalg.norm(by_dlib(), axis=1, keepdims=True)
    cosines = units @ units[0]
    assert list(found) == ["same", "real", "many"]
    assert found["same"] == pytest.approx(1)
    assert found["real"] == pytest.approx(cosines[2:].mean(), abs=1e-5)
    assert found["many"] == pytest.approx(cosines[1], abs=1e-5)


def test_the_number_of_faces_compiles_nothing_and_changes_no_bit():
    one = identity.embeddings(weights(), chips()[:1])
    compiled = identity.embed._cache_size()
    many = identity.embeddings(weights(), np.repeat(chips()[:1], 17, 0))
    assert identity.embed._cache_size() == compiled
    np.testing.assert_array_equal(many, one.repeat(17, 0))


# --- the file ---


def test_a_model_that_is_missing_says_what_to_install(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match="pip install face-recognition-models"):
        identity.model_path()


@pytest.mark.parametrize("kept", [0, 342, 5000, 22_465_000])
def test_another_file_or_part_of_it_is_refused(kept, tmp_path):
    path = tmp_path / "model.dat"
    path.write_bytes(identity.model_path().read_bytes()[:kept])
    with pytest.raises(InputError, match=r"model\.dat: is not dlib's face embedding"):
        identity.read_weights(path)
