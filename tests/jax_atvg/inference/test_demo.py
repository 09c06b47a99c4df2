"""The authors' whole demo, from crop and sound to frames, through a bundle."""

import jax
import numpy as np
import pytest

from input_pipeline.clip import InputError
from input_pipeline.faces import authors
from input_pipeline.media import features
from input_pipeline.media.image import to_u8
from jax_atvg.inference import animate
from jax_atvg.inference.bundle import Bundle, load_bundle, save_bundle
from jax_atvg.inference.networks import Clip, Networks
from jax_atvg.inference.predict import Photo, predict
from jax_atvg.models.at_net import ATNet
from jax_atvg.models.vg_net import VGNet
from tests.reference_networks import authors_variables, max_difference, nhwc


@pytest.fixture(scope="module")
def basics(shared):
    return authors.read_basics(shared("reference", "basics.npz"))


@pytest.fixture(scope="module")
def bundle(basics, tmp_path_factory):
    """Converted, saved and loaded again, as `import_torch` and `animate` do."""
    path = tmp_path_factory.mktemp("bundles") / "authors"
    variables = {name: authors_variables(name) for name in ("at_net", "vg_net")}
    networks = ATNet(), VGNet(recurrence="batch")
    save_bundle(Bundle(*networks, variables, **authors.bundle_settings(basics)), path)
    return load_bundle(path)


@pytest.fixture(scope="module")
def demo(reference):
    return reference("demo_e2e_seed0.npz")


@pytest.fixture(scope="module")
def photo(bundle, demo):
    coefficients = bundle.pca.project(bundle.photo_landmarks[None])
    return Photo(
        nhwc(demo["network_image"]),
        coefficients,
        bundle.pca.reconstruct(coefficients),
        np.zeros((1, 136), np.float32),
    )


def test_every_photo_has_the_authors_constant_landmarks(demo, photo):
    assert max_difference(photo.coefficients, demo["h_p"]) < 1e-5
    assert max_difference(photo.landmarks, demo["example_landmark"]) < 1e-5


def test_sound_to_coefficients_and_landmarks(bundle, demo, photo):
    spoken = jax.jit(bundle.at_net.apply)(
        bundle.variables["at_net"], photo.coefficients, demo["windows"][None]
    )
    assert max_difference(spoken.coefficients, demo["coefs"]) < 2e-6
    boosted = bundle.boost * spoken.coefficients[0]
    assert max_difference(boosted, demo["coefs_boosted"]) < 1e-5
    landmarks = bundle.pca.reconstruct(boosted)
    assert max_difference(landmarks, demo["landmarks"][0]) < 1e-5


def test_the_whole_demo_in_chunks(bundle, demo, photo, reference):
    """24 frames in chunks of 16, from the recording's samples."""
    samples = reference("preprocess_audio_audio_sample.npz")["samples_16k"]
    samples = samples[: (24 + 8) * features.FRAME_SAMPLES]  # what the 24 windows hear
    spoken = list(animate.talk(bundle, photo, samples, maps=True))[:24]
    joined = jax.tree.map(lambda *x: np.stack(x), *spoken)
    assert max_difference(joined.landmarks, demo["landmarks"][0]) < 1e-4
    shown = demo["frame_index"]
    for actual, expected in (
        (joined.frames, demo["frames_u8_linear"]),
        (joined.attention[shown], to_u8(2 * nhwc(demo["attention"])[..., 0] - 1)),
        (joined.color[shown], to_u8(nhwc(demo["color"]))),
    ):
        difference = np.abs(actual.astype(int) - expected)
        assert difference.max() <= 1 and (difference > 0).mean() < 1e-3


def test_the_demos_floats(bundle, demo, photo):
    """The pure function, in one piece."""
    weights = Networks(bundle).weights
    networks = jax.jit(predict, static_argnums=(0, 1, 2))
    made = networks(
        bundle.at_net, bundle.vg_net, False, weights, photo, demo["windows"][None, :24]
    )
    for name in ("frames", "attention", "color"):
        actual, expected = getattr(made, name)[0], nhwc(demo[name])
        assert max_difference(actual[demo["frame_index"]], expected) < 2e-4
        assert np.abs(actual[demo["frame_index"]] - expected).mean() < 1e-5


def test_landmark_attention_of_the_demo(bundle, demo, photo):
    drawn = jax.jit(bundle.vg_net.apply)(
        bundle.variables["vg_net"], photo.image, demo["landmarks"], photo.landmarks
    )
    expected = nhwc(demo["lmark_atts"])
    assert max_difference(drawn.landmark_attention[0], expected) < 2e-4


def test_predict_is_at_net_then_vg_net(bundle, demo, photo):
    networks, windows = Networks(bundle), demo["windows"][:3]
    (((_, both),), ((_, still),)) = networks.predict(
        [Clip(photo, windows), Clip(photo, windows, still=True)]
    )
    assert max_difference(both.landmarks, demo["landmarks"][0, :3]) < 1e-5
    assert max_difference(still.landmarks, np.repeat(photo.landmarks, 3, 0)) == 0


def test_the_drawn_face_is_the_templates(bundle, demo, basics):
    """Their landmarks have no place in the crop; to be drawn, they get one.  (The mean
    face of their PCA is longer than their template: its chin is cut off.)"""
    points = animate.crop_points(bundle, demo["example_landmark"][0])
    assert np.abs(points - (basics["base_68"] - 1)).mean() < 4


def test_basics_are_read_from_the_authors_folder_too(basics, tmp_path):
    for name, array in basics.items():
        np.save(tmp_path / f"{name}.npy", array)
    for name, array in authors.read_basics(tmp_path).items():
        np.testing.assert_array_equal(array, basics[name])


def test_missing_or_wrong_basics_are_an_error(basics, tmp_path):
    with pytest.raises(
        InputError, match=r"does not exist; give the folder ATVGnet/bas"
    ):
        authors.read_basics(tmp_path / "nowhere")
    for name, array in basics.items():
        np.save(tmp_path / f"{name}.npy", array)
    np.save(tmp_path / "S.npy", np.zeros((3, 136)))
    with pytest.raises(InputError, match=r"S is \(3, 136\), must be \(100, 136\)"):
        authors.read_basics(tmp_path)
    (tmp_path / "S.npy").unlink()
    with pytest.raises(InputError, match=r"no readable S in it"):
        authors.read_basics(tmp_path)


@pytest.mark.parametrize("share", [0, 0.5])
def test_basics_that_are_cut_off_are_an_error(tmp_path, share):
    """As a download leaves them that was broken off; U_lrw1 is read first."""
    for path, save in (
        (tmp_path / "U_lrw1.npy", np.save),
        (tmp_path / "b.npz", np.savez),
    ):
        save(path, np.zeros((136, 136)))
        content = path.read_bytes()
        path.write_bytes(content[: int(share * len(content))])
    for given in (tmp_path, tmp_path / "b.npz"):
        with pytest.raises(InputError, match=r"no readable U_lrw1 in it .* give the f"):
            authors.read_basics(given)
