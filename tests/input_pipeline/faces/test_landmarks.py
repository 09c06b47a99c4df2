"""Normalisation, PCA against numpy's SVD, and the authors' numbers."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from input_pipeline.clip import InputError, Pca
from input_pipeline.faces.landmarks import (
    fit_pca,
    normalise,
    normalise_like_authors,
    to_pixels,
)

PHOTOS = ["Elektra", "Maya", "obama", "test1", "test14", "test5"]


def cloud(rows, seed=0):
    """Landmarks of rank 12 about a mean, plus a little noise."""
    rng = np.random.default_rng(seed)
    basis = rng.normal(size=(12, 136)) * 0.6 ** np.arange(12)[:, None]
    noise = 1e-3 * rng.normal(size=(rows, 136))
    return (rng.normal(size=(rows, 12)) @ basis + 0.3 + noise).astype(np.float32)


def test_normalise_maps_the_crops_edges_to_minus_one_and_one():
    points = np.full((2, 68, 2), 63.5, np.float32)
    points[0, 3] = -0.5, 127.5
    landmarks = normalise(points)
    assert landmarks.shape == (2, 136)
    assert landmarks.dtype == np.float32
    np.testing.assert_array_equal(landmarks[0, 6:8], [-1, 1])
    np.testing.assert_array_equal(landmarks[1], 0)


@given(hnp.arrays(np.float32, (3, 68, 2), elements=st.floats(-500, 500, width=32)))
def test_to_pixels_inverts_normalise(points):
    np.testing.assert_allclose(to_pixels(normalise(points)), points, atol=1e-4)


def test_streamed_pca_equals_the_svd_of_the_whole():
    data = cloud(500)
    model, variance = fit_pca(iter([data[:7], data[:0], data[7:300], data[300:]]), 8)
    centred = data.astype(np.float64) - data.mean(0, dtype=np.float64)
    _, singular, directions = np.linalg.svd(centred, full_matrices=False)
    np.testing.assert_allclose(model.mean, data.mean(0), atol=1e-6)
    np.testing.assert_allclose(variance, singular**2 / 499, atol=1e-12, rtol=1e-9)
    for component, direction in zip(model.components.T, directions, strict=False):
        assert component[np.abs(component).argmax()] > 0
        sign = np.sign(component @ direction)
        np.testing.assert_allclose(component, sign * direction, atol=1e-6)
    assert model.mean.dtype == model.components.dtype == np.float32


def test_coefficients_have_the_stated_variance_and_are_uncorrelated():
    data = cloud(400)
    model, variance = fit_pca([data], 5)
    covariance = np.cov(model.project(data).T)
    np.testing.assert_allclose(covariance, np.diag(variance[:5]), atol=1e-4)


def test_all_coefficients_reconstruct_exactly_and_fewer_lose_the_rest():
    data = cloud(300)
    full, variance = fit_pca([data], 136)
    np.testing.assert_allclose(full.reconstruct(full.project(data)), data, atol=1e-4)
    model, _ = fit_pca([data], 6)
    lost = np.square(data - model.reconstruct(model.project(data))).sum()
    assert lost / 299 == pytest.approx(variance[6:].sum(), rel=1e-3)


def test_pca_refuses_what_it_cannot_fit():
    data = cloud(5)
    for count in (0, 5, 137):
        with pytest.raises(InputError, match=rf"num_coefficients={count} of 5"):
            fit_pca([data], count)
    with pytest.raises(InputError, match="of 0 landmarks"):
        fit_pca([], 1)
    bad = data.copy()
    bad[2, 7] = np.nan
    with pytest.raises(InputError, match="landmarks 7: not finite"):
        fit_pca([data, bad], 1)


@pytest.fixture
def authors_pca(reference):
    basics = reference("basics.npz")
    return Pca(basics["mean_lrw1"], basics["U_lrw1"][:, :6])


def test_projection_and_reconstruction_equal_the_authors(reference, authors_pca):
    stored = reference("preprocess_pca.npz")
    projection = authors_pca.project(5 * stored["landmarks_for_projection"])
    np.testing.assert_allclose(projection, stored["projection"], atol=1e-9)
    np.testing.assert_allclose(
        authors_pca.reconstruct(projection),
        stored["projection_reconstructed"],
        atol=1e-9,
    )
    boost = np.concatenate([[1], stored["boost"]])
    np.testing.assert_allclose(
        boost * stored["coefs"], stored["coefs_boosted"], atol=1e-6
    )
    np.testing.assert_allclose(
        authors_pca.reconstruct(boost * stored["coefs"]),
        stored["landmarks_reconstructed"],
        atol=1e-5,
    )
    np.testing.assert_allclose(
        authors_pca.reconstruct(stored["coefs"]),
        stored["landmarks_reconstructed_noboost"],
        atol=1e-5,
    )
    h_p = authors_pca.project(5 * stored["example_norm_lmark"])
    np.testing.assert_allclose(h_p, stored["h_p"], atol=1e-5)
    np.testing.assert_allclose(
        authors_pca.reconstruct(h_p), stored["example_landmark_for_vg"], atol=1e-5
    )


@pytest.fixture
def like_authors(reference):
    basics = reference("basics.npz")
    tables = [basics[name] for name in ("mean_shape_img", "mean_shape_norm", "S")]
    return lambda points: normalise_like_authors(points.astype(float), *tables)


def test_the_authors_normalisation_of_a_sequence(reference, like_authors):
    stored = reference("preprocess_pca.npz")
    got = like_authors(stored["normlmarks_seq_input"])
    np.testing.assert_allclose(got, stored["normlmarks_seq_output"], atol=1e-10)


@pytest.mark.parametrize("name", PHOTOS)
def test_the_authors_normalisation_of_a_photo(reference, like_authors, name):
    stored = reference(f"preprocess_image_{name}.npz")
    got = like_authors(stored["shape2_in_aligned"][None])
    np.testing.assert_allclose(got[0], stored["norm_lmark"], atol=1e-10)


def test_the_authors_normalisation_maps_every_last_shape_to_one_constant(like_authors):
    shapes = np.random.default_rng(0).uniform(0, 128, (4, 68, 2))
    constant = like_authors(shapes[:1])[-1]
    for end in (2, 3, 4):
        np.testing.assert_allclose(like_authors(shapes[:end])[-1], constant, atol=1e-9)
    assert np.abs(like_authors(shapes)[0] - constant).max() > 1e-2
