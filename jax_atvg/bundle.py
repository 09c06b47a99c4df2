"""A bundle: one folder with everything that inference needs.

    bundle.json   format version, network sizes, what the numbers below mean
    arrays/       orbax checkpoint: weights, PCA, boost, alignment

It is independent of configs and training state.
"""

import dataclasses
import json
import os
import pathlib
import shutil
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from input_pipeline.clip import (
    FRAME_RATE,
    MFCC_RATE,
    NUM_POINTS,
    SAMPLE_RATE,
    WINDOW_ROWS,
    WINDOW_SIZE,
    InputError,
    Pca,
)
from jax_atvg.models.at_net import ATNet
from jax_atvg.models.vg_net import VGNet

FORMAT_VERSION = 1
NETWORKS = {"at_net": ATNet, "vg_net": VGNet}
# What the weights were made for; a bundle of other settings would give noise.
AUDIO = {
    "sample_rate": SAMPLE_RATE,
    "mfcc_rate": MFCC_RATE,
    "window_rows": WINDOW_ROWS,
    "window_size": WINDOW_SIZE,
    "frame_rate": FRAME_RATE,
}
# Fields of a network that are not stored; remat matters in training only.
NOT_SIZES = ("parent", "name", "norm", "remat")


@dataclasses.dataclass(frozen=True)
class Bundle:
    """at_net, vg_net: the networks' sizes.  variables: {"at_net", "vg_net"} of
    {"params", "batch_stats"}.

    pca: landmarks <-> K coefficients; boost: f32[K], w, what AT-net's coefficients are
    multiplied by.  landmark_to_crop: f32[2,3], affine, from the networks' landmarks to
    pixels of a 128x128 crop.  template: f64[n,2], where the points template_indices of
    the face lie in that crop.  photo_landmarks: f32[136] to be used for every photo in
    place of its own (the authors' networks expect so), or None.
    """

    at_net: ATNet
    vg_net: VGNet
    variables: dict[str, Any]
    pca: Pca
    boost: np.ndarray
    landmark_to_crop: np.ndarray
    template: np.ndarray
    template_indices: tuple[int, ...]
    photo_landmarks: np.ndarray | None = None


def save_bundle(bundle: Bundle, path: str | pathlib.Path) -> None:
    """Writes the folder, or nothing; replaces an older bundle there.

    InputError: something else is there, or it cannot be written.
    """
    import orbax.checkpoint as ocp

    path = pathlib.Path(path).absolute()
    if path.exists() and not (path / "bundle.json").is_file():
        raise InputError(f"{path}: exists and is no bundle; choose another folder")
    partial = path.with_name(f"{path.name}.partial")
    description = {
        "format_version": FORMAT_VERSION,
        "audio": AUDIO,
        "template_indices": list(bundle.template_indices),
        "photo_landmarks": bundle.photo_landmarks is not None,
    } | {name: sizes(getattr(bundle, name)) for name in NETWORKS}
    try:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        (partial / "bundle.json").write_text(json.dumps(description, indent=1) + "\n")
        with ocp.PyTreeCheckpointer() as checkpointer:
            checkpointer.save(partial / "arrays", arrays(bundle))
        if path.exists():
            shutil.rmtree(path)
        os.replace(partial, path)
    except (OSError, ValueError) as error:  # tensorstore: a full disk is a ValueError
        raise InputError(
            f"{path}: cannot be written ({error}); choose another folder or make room"
        ) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def load_bundle(path: str | pathlib.Path) -> Bundle:
    """Reads a bundle.

    InputError: missing, of another format version, or damaged.
    """
    import orbax.checkpoint as ocp

    path = pathlib.Path(path).absolute()
    if not (path / "bundle.json").is_file():
        raise InputError(
            f"{path}: no bundle there (a folder with bundle.json); make one with "
            "`python main.py import_torch`"
        )
    try:
        text = json.loads((path / "bundle.json").read_text())
        version = text["format_version"]
    except (ValueError, KeyError, TypeError) as error:
        raise damaged(path, error) from error
    if version != FORMAT_VERSION:
        raise InputError(
            f"{path}: bundle of format version {version}, this program reads "
            f"{FORMAT_VERSION}; export the bundle again with this version"
        )
    try:
        if text["audio"] != AUDIO:
            raise InputError(
                f"{path}: made for the audio settings {text['audio']}, this program "
                f"has {AUDIO}; export the bundle again with this version"
            )
        networks = {
            name: kind(
                **{k: tuple(v) if isinstance(v, list) else v for k, v in sizes.items()}
            )
            for name, kind in NETWORKS.items()
            for sizes in [text[name]]
        }
        expected = expected_arrays(
            **networks,
            template_size=len(text["template_indices"]),
            photo_landmarks=text["photo_landmarks"],
        )
        as_numpy = jax.tree.map(
            lambda _: ocp.RestoreArgs(restore_type=np.ndarray), expected
        )
        with ocp.PyTreeCheckpointer() as checkpointer:
            found = checkpointer.restore(
                path / "arrays", item=expected, restore_args=as_numpy
            )
        check_shapes(found, expected)
    except InputError:
        raise
    except Exception as error:  # orbax and tensorstore raise many kinds
        raise damaged(path, error) from error
    return Bundle(
        **networks,
        variables={name: as_float32(found[name]) for name in NETWORKS},
        pca=Pca(**found["pca"]),
        boost=found["boost"],
        landmark_to_crop=found["landmark_to_crop"],
        template=found["template"],
        template_indices=tuple(text["template_indices"]),
        photo_landmarks=found.get("photo_landmarks"),
    )


def damaged(path: pathlib.Path, error: Exception) -> InputError:
    reason = (str(error).splitlines() or [""])[0][:200]
    return InputError(
        f"{path}: damaged bundle ({type(error).__name__}: {reason}); copy or export it "
        "again"
    )


def sizes(module: nn.Module) -> dict[str, Any]:
    """A network's attributes, but for the norm."""
    fields = (field.name for field in dataclasses.fields(module))
    return {name: getattr(module, name) for name in fields if name not in NOT_SIZES}


def arrays(bundle: Bundle) -> dict[str, Any]:
    """What a bundle stores as arrays."""
    tree = {
        **bundle.variables,
        "pca": bundle.pca._asdict(),
        "boost": bundle.boost,
        "landmark_to_crop": bundle.landmark_to_crop,
        "template": bundle.template,
    }
    if bundle.photo_landmarks is not None:
        tree["photo_landmarks"] = bundle.photo_landmarks
    return jax.tree.map(np.asarray, tree)


def expected_arrays(
    at_net: ATNet, vg_net: VGNet, template_size: int, photo_landmarks: bool
) -> dict[str, Any]:
    """The shapes that `arrays` has, from the sizes alone."""
    k, landmarks, size = at_net.num_coefficients, 2 * NUM_POINTS, vg_net.image_size
    key = jax.random.key(0)

    def shapes(module: nn.Module, *inputs: tuple[int, ...]):
        return jax.eval_shape(module.init, key, *map(jnp.zeros, inputs))

    tree = {
        "at_net": shapes(at_net, (1, k), (1, 1, WINDOW_ROWS, WINDOW_SIZE)),
        "vg_net": shapes(vg_net, (1, size, size, 3), (1, 1, landmarks), (1, landmarks)),
        "pca": {"mean": np.zeros(landmarks), "components": np.zeros((landmarks, k))},
        "boost": np.zeros(k),
        "landmark_to_crop": np.zeros((2, 3)),
        "template": np.zeros((template_size, 2)),
    }
    return tree | ({"photo_landmarks": np.zeros(landmarks)} if photo_landmarks else {})


def check_shapes(found: Any, expected: Any) -> None:
    """ValueError that names the first array of another shape."""

    def check(path, found, expected):
        if found.shape != expected.shape:
            name = jax.tree_util.keystr(path, simple=True, separator="/")
            raise ValueError(f"{name} is {found.shape}, must be {expected.shape}")

    jax.tree_util.tree_map_with_path(check, found, expected)


def as_float32(tree: Any) -> Any:
    """Weights may be stored in half precision."""
    return jax.tree.map(lambda x: np.asarray(x, np.float32), tree)
