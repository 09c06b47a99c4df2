"""A bundle: one folder with everything that inference needs.

    bundle.json   format version, network sizes, what the numbers below mean
    arrays/       orbax checkpoint: weights, PCA, boost, alignment

It is independent of configs and training state.
"""

import dataclasses
import json
import math
import pathlib
from typing import Any, NamedTuple

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
from input_pipeline.faces.landmarks import as_points, opening
from input_pipeline.files import replacing
from jax_atvg.models import convolutions
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


class SeenFaces(NamedTuple):
    """What the landmarks of the training clips were like.

    low, high: f32[K], nearly all of their coefficients lie between.  residual: f32[],
    the mean of |p - PCA_R(PCA(p))|^2.  opening: f32[136], how a face's landmarks move
    while the inner lips open by 1.
    """

    low: Any
    high: Any
    residual: Any
    opening: Any


@dataclasses.dataclass(frozen=True)
class Bundle:
    """at_net, vg_net: the networks' sizes.  variables: {"at_net", "vg_net"} of
    {"params", "batch_stats"}, on a device as load_bundle has them.

    pca: landmarks <-> K coefficients; boost: f32[K], w, what AT-net's coefficients are
    multiplied by.  landmark_to_crop: f32[2,3], affine, from the networks' landmarks to
    pixels of a 128x128 crop.  template: f64[n,2], where the points template_indices of
    the face lie in that crop.  photo_landmarks: f32[136] to be used for every photo in
    place of its own (the authors' networks expect so), or None.  seen: see recognise.
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
    seen: SeenFaces | None = None

    def recognise(
        self, landmarks: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """A photo's landmarks f32[B,136] -> (h_p, p_p, own), as a Photo has them.

        The paper's p_p is PCA_R(h_p), and its own is 0.  With `seen`, h_p is kept in
        the range that AT-net knows, and p_p also has what then is missing, r = p -
        PCA_R(h_p), less what is usual for training faces (the jitter of detection): (1
        - residual / |r|^2) r, or nothing; the positive-part James-Stein estimate.  own
        is the same, but with closed lips: the face keeps its shape, not its smile.
        """
        if self.photo_landmarks is not None:
            landmarks = np.broadcast_to(self.photo_landmarks, landmarks.shape)
        landmarks = landmarks.astype(np.float32)
        h = self.pca.project(landmarks)
        if self.seen is None:
            return h, self.pca.reconstruct(h), np.zeros_like(landmarks, np.float32)
        h = np.clip(h, self.seen.low, self.seen.high)
        shape = self.pca.reconstruct(h)
        r = landmarks - shape
        energy = np.maximum(np.sum(r**2, -1, keepdims=True), 1e-12)
        share = np.maximum(1 - self.seen.residual / energy, 0)
        r *= share
        own = r - opening(as_points(r))[:, None] * self.seen.opening
        return h, (shape + r).astype(np.float32), own.astype(np.float32)


def save_bundle(bundle: Bundle, path: str | pathlib.Path) -> None:
    """Writes the folder, or nothing; replaces an older bundle there.

    InputError: something else is there, or it cannot be written.
    """
    import orbax.checkpoint as ocp

    path = pathlib.Path(path).absolute()
    if path.exists() and not (path / "bundle.json").is_file():
        raise InputError(f"{path}: exists and is no bundle; choose another folder")
    description = {
        "format_version": FORMAT_VERSION,
        "audio": AUDIO,
        "template_indices": list(bundle.template_indices),
        "photo_landmarks": bundle.photo_landmarks is not None,
        "seen": bundle.seen is not None,
    } | {name: sizes(getattr(bundle, name)) for name in NETWORKS}
    try:
        with replacing(path) as folder:
            folder.mkdir(parents=True)
            text = json.dumps(description, indent=1) + "\n"
            (folder / "bundle.json").write_text(text)
            # Compressed, weights are 7 % smaller and take half as long again to read.
            with ocp.PyTreeCheckpointer(use_compression=False) as checkpointer:
                checkpointer.save(folder / "arrays", arrays(bundle))
            # Orbax notes there where on this machine the folder was made.
            (folder / "arrays" / "commit_success.txt").unlink(missing_ok=True)
    except (OSError, ValueError) as error:  # tensorstore: a full disk is a ValueError
        raise InputError(
            f"{path}: cannot be written ({error}); choose another folder or make room"
        ) from error


def load_bundle(path: str | pathlib.Path) -> Bundle:
    """Reads a bundle.

    InputError: missing, of another format version, or damaged.
    """
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
        reading = begin_reading(path / "arrays")
        expected = expected_arrays(  # traced meanwhile
            **networks,
            template_size=len(text["template_indices"]),
            photo_landmarks=text["photo_landmarks"],
            seen=text.get("seen", False),
        )
        found = finish_reading(reading, expected)
    except InputError:
        raise
    except Exception as error:  # tensorstore raises many kinds
        raise damaged(path, error) from error
    return Bundle(
        **networks,
        variables={name: found[name] for name in NETWORKS},
        pca=Pca(**found["pca"]),
        boost=found["boost"],
        landmark_to_crop=found["landmark_to_crop"],
        template=found["template"],
        template_indices=tuple(text["template_indices"]),
        photo_landmarks=found.get("photo_landmarks"),
        seen=SeenFaces(**found["seen"]) if "seen" in found else None,
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
    if bundle.seen is not None:
        tree["seen"] = bundle.seen._asdict()
    return jax.tree.map(np.asarray, tree)


def expected_arrays(
    at_net: ATNet,
    vg_net: VGNet,
    template_size: int,
    photo_landmarks: bool,
    seen: bool,
) -> dict[str, Any]:
    """The shapes that `arrays` has, from the sizes alone."""
    k, landmarks, size = at_net.num_coefficients, 2 * NUM_POINTS, vg_net.image_size
    key = jax.eval_shape(jax.random.key, 0)  # abstract arrays: nothing is compiled

    def shapes(module: nn.Module, *inputs: tuple[int, ...]):
        abstract = (jax.ShapeDtypeStruct(shape, jnp.float32) for shape in inputs)
        with convolutions.form("native"):  # traced in half the time of both forms
            return jax.eval_shape(module.init, key, *abstract)

    tree = {
        "at_net": shapes(at_net, (1, k), (1, 1, WINDOW_ROWS, WINDOW_SIZE)),
        "vg_net": shapes(vg_net, (1, size, size, 3), (1, 1, landmarks), (1, landmarks)),
        "pca": {"mean": np.zeros(landmarks), "components": np.zeros((landmarks, k))},
        "boost": np.zeros(k),
        "landmark_to_crop": np.zeros((2, 3)),
        "template": np.zeros((template_size, 2)),
    }
    if photo_landmarks:
        tree["photo_landmarks"] = np.zeros(landmarks)
    if seen:
        zeros = SeenFaces(*map(np.zeros, (k, k, (), landmarks)))
        tree["seen"] = zeros._asdict()
    return tree


def begin_reading(path: pathlib.Path) -> dict[str, Any]:
    """{"at_net.params.head.bias": (numpy array, future of its being filled)}, of what
    orbax has written.

    Its own reader takes half a second more, and writes to standard error about some
    damaged files.
    """
    import tensorstore

    # So few files at a time, as their bytes are held beside the arrays.
    context = tensorstore.Context({"file_io_concurrency": {"limit": 4}})
    store = {"driver": "ocdbt", "base": {"driver": "file", "path": f"{path}/"}}
    keys = tensorstore.KvStore.open(store, context=context).result().list().result()
    names = [key.decode() for key in keys]
    opened = {
        name: tensorstore.open(
            {"driver": "zarr", "kvstore": {**store, "path": name}}, context=context
        )
        for key in names
        for name, is_array, _ in [key.partition("/.zarray")]
        if is_array
    }

    def begin(stored):
        array = aligned(stored.shape, stored.dtype.numpy_dtype)
        return array, tensorstore.array(array, copy=False).write(stored)

    return {name: begin(array.result()) for name, array in opened.items()}


def aligned(shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """Of any content, at a multiple of 64 bytes: a CPU device takes it as it is."""
    size = math.prod(shape) * dtype.itemsize
    room = np.empty(size + 64, np.uint8)
    start = -room.ctypes.data % 64
    return room[start : start + size].view(dtype).reshape(shape)


def finish_reading(reading: dict[str, Any], expected: Any) -> Any:
    """The arrays in their tree, those of the networks as float32 on the first device.

    One after the other: while a transfer is under way its source is held, and all the
    weights would be in memory twice.  ValueError: names or shapes are others.
    """
    device = jax.local_devices()[0]

    def finish(path, expected):
        name = jax.tree_util.keystr(path, simple=True, separator=".")
        if name not in reading:
            raise ValueError(f"{name} is missing")
        array, filled = reading.pop(name)
        if array.shape != expected.shape:
            raise ValueError(f"{name} is {array.shape}, must be {expected.shape}")
        filled.result()
        if name.partition(".")[0] not in NETWORKS:
            return array
        return jax.device_put(np.asarray(array, np.float32), device).block_until_ready()

    found = jax.tree_util.tree_map_with_path(finish, expected)
    if reading:
        raise ValueError(f"{min(reading)} is of other networks")
    return found


def as_float32(tree: Any) -> Any:
    """Numpy arrays, whatever precision the weights have."""
    return jax.tree.map(lambda x: np.asarray(x, np.float32), tree)
