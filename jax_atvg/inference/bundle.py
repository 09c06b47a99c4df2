"""A bundle: one folder with everything that inference needs.

    bundle.json   format version, network sizes, audio settings
    arrays/       an orbax checkpoint: weights, PCA, boost, alignment

It depends on no config and no training state.
"""

import dataclasses
import functools
import json
import math
import pathlib
import zlib
from collections.abc import Iterable
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
    first_line,
)
from input_pipeline.faces.align import indices_of
from input_pipeline.faces.landmarks import as_points, opening
from input_pipeline.faces.rest import photo_coefficients
from input_pipeline.files import replacing
from jax_atvg.models import convolutions
from jax_atvg.models.at_net import ATNet
from jax_atvg.models.vg_net import VGNet
from jax_atvg.resources import DEFAULT_BUNDLE

FORMAT_VERSION = 1
NETWORKS = {"at_net": ATNet, "vg_net": VGNet}
AUDIO = {  # with other settings than those of the training weights mean nothing
    "sample_rate": SAMPLE_RATE,
    "mfcc_rate": MFCC_RATE,
    "window_rows": WINDOW_ROWS,
    "window_size": WINDOW_SIZE,
    "frame_rate": FRAME_RATE,
}
NOT_SIZES = ("parent", "name", "norm", "remat")  # fields that are not stored


class SeenFaces(NamedTuple):
    """Statistics of the training clips' landmarks, used by Bundle.recognise.

    low, high: f32[K], the range of nearly all of their coefficients.  residual: f32[],
    the mean of |p - PCA_R(PCA(p))|^2.  opening: f32[136], how much a face's landmarks
    move when the inner lips open by 1.
    """

    low: Any
    high: Any
    residual: Any
    opening: Any


@dataclasses.dataclass(frozen=True)
class Bundle:
    """Both networks with everything that inference needs.

    at_net, vg_net: the modules.  variables: {"at_net", "vg_net"}, each {"params",
    "batch_stats"}; load_bundle puts them on a device.  pca: landmarks <-> K
    coefficients.  boost: f32[K], w, by which AT-net's coefficients are multiplied.
    landmark_to_crop: f32[2,3], affine, from the networks' landmarks to pixels of a
    128x128 crop.  template: f64[n,2], where the points template_indices of the face lie
    in that crop.  photo_landmarks: f32[136], which replace every photo's own landmarks,
    as the authors' networks expect (docs/reference.md, section 3.4), or None.  seen:
    see recognise.  data: which data it was made with, {corpus: hash}, see
    fingerprint.py; None: not known.
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
    data: dict[str, str] | None = None

    @property
    def alignment(self) -> dict[str, Any]:
        """The template as datasets note it: to compare with theirs."""
        return {"points": self.template, "indices": self.template_indices}

    def recognise(
        self, landmarks: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Computes the networks' inputs (h_p, p_p, own) from a photo's landmarks p.

        landmarks: f32[B,136].  Returns f32[B,K], f32[B,136], f32[B,136]: see Photo.

        Without `seen`, as in the paper, p_p = PCA_R(h_p) and own = 0.  With `seen`, h_p
        is clipped to the range of the training faces.  The residual r = p - PCA_R(h_p)
        holds this face's own shape and the jitter of detection, which training faces
        have as well; r is therefore shrunk by max(0, 1 - residual / |r|^2), the
        positive-part James-Stein estimate, and p_p = PCA_R(h_p) + r.  own is r with the
        lips closed: frames keep the shape of the face, but not an open mouth.  With
        at_net.from_rest the h_p that is returned is of the face with its lips closed.
        """
        if self.photo_landmarks is not None:
            landmarks = np.broadcast_to(self.photo_landmarks, landmarks.shape)
        landmarks = landmarks.astype(np.float32)
        h = self.pca.project(landmarks)
        spoken = photo_coefficients(self.pca, landmarks, self.at_net.from_rest)
        if self.seen is None:
            return spoken, self.pca.reconstruct(h), np.zeros_like(landmarks, np.float32)
        h, spoken = (np.clip(x, self.seen.low, self.seen.high) for x in (h, spoken))
        shape = self.pca.reconstruct(h)
        r = landmarks - shape
        energy = np.maximum(np.sum(r**2, -1, keepdims=True), 1e-12)
        share = np.maximum(1 - self.seen.residual / energy, 0)
        r *= share
        own = r - opening(as_points(r))[:, None] * self.seen.opening
        return spoken, (shape + r).astype(np.float32), own.astype(np.float32)


def save_bundle(bundle: Bundle, path: str | pathlib.Path) -> None:
    """Writes a bundle's folder, complete or not at all; replaces an older bundle there.

    InputError: see check_out; or it cannot be written.
    """
    import orbax.checkpoint as ocp

    path = check_out(path)
    description = {
        "format_version": FORMAT_VERSION,
        "audio": AUDIO,
        "template_indices": list(bundle.template_indices),
        "photo_landmarks": bundle.photo_landmarks is not None,
        "seen": bundle.seen is not None,
        "data": bundle.data,
        "checksum": checksum(jax.tree.leaves(arrays(bundle))),
    } | {name: sizes(getattr(bundle, name)) for name in NETWORKS}
    try:
        with replacing(path) as folder:
            folder.mkdir(parents=True)
            text = json.dumps(description, indent=1) + "\n"
            (folder / "bundle.json").write_text(text)
            # Compressed weights would be 7 % smaller and take 50 % longer to read.
            with ocp.PyTreeCheckpointer(use_compression=False) as checkpointer:
                checkpointer.save(folder / "arrays", arrays(bundle))
            # Orbax writes into this file the path at which the folder was made.
            (folder / "arrays" / "commit_success.txt").unlink(missing_ok=True)
    except (OSError, ValueError) as error:  # tensorstore: a full disk is a ValueError
        raise InputError(
            f"{path}: cannot be written ({error}); choose another folder or make room"
        ) from error


def check_out(path: str | pathlib.Path) -> pathlib.Path:
    """The absolute path.  InputError: it exists and is no bundle."""
    path = pathlib.Path(path).absolute()
    if path.exists() and not (path / "bundle.json").is_file():
        raise InputError(f"{path}: exists and is no bundle; choose another folder")
    return path


def load_bundle(path: str | pathlib.Path = DEFAULT_BUNDLE) -> Bundle:
    """Reads a bundle's folder, and puts the weights on the first device as float32.

    InputError: there is no bundle, or it is damaged, of another format version, or made
    for other audio settings.
    """
    path = existing(path)
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
        networks = {name: network(kind, text[name]) for name, kind in NETWORKS.items()}
        indices = indices_of(text["template_indices"])
        opened = open_arrays(path / "arrays")
        expected = expected_arrays(  # traced while they are opened
            **networks,
            template_size=len(indices),
            photo_landmarks=text["photo_landmarks"],
            seen=text.get("seen", False),
        )
        found = read_arrays(opened, expected, text.get("checksum"))
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
        template_indices=indices,
        photo_landmarks=found.get("photo_landmarks"),
        seen=SeenFaces(**found["seen"]) if "seen" in found else None,
        data=text.get("data"),
    )


def existing(path: str | pathlib.Path) -> pathlib.Path:
    """The absolute path of a bundle.  InputError: there is none."""
    path = pathlib.Path(path).absolute()
    if not (path / "bundle.json").is_file():
        raise InputError(
            f"{path}: no bundle there (a folder with bundle.json); make one with "
            "`python main.py export`, or from the authors' files with `import_torch`"
        )
    return path


def damaged(path: pathlib.Path, error: Exception) -> InputError:
    reason = f"{type(error).__name__}: {first_line(error)}"
    return InputError(f"{path}: damaged bundle ({reason}); copy or export it again")


def network(kind: type[nn.Module], found: dict[str, Any]) -> nn.Module:
    """The network with the attributes that bundle.json stores.  TypeError: it has no
    such attribute.  ValueError: one is of another type than its default."""
    attributes = {k: tuple(v) if isinstance(v, list) else v for k, v in found.items()}
    for name, default in sizes(kind()).items():
        value = attributes.get(name, default)
        right = type(value) is type(default)
        right |= (type(value), type(default)) == (int, float)
        parts = value if isinstance(value, tuple) else ()
        if not right or any(type(n) is not int for n in parts):
            raise ValueError(f"{name}={value!r}: must be as {default!r}")
    return kind(**attributes)


def sizes(module: nn.Module) -> dict[str, Any]:
    """The attributes of a network that bundle.json stores."""
    fields = (field.name for field in dataclasses.fields(module))
    return {name: getattr(module, name) for name in fields if name not in NOT_SIZES}


def arrays(bundle: Bundle) -> dict[str, Any]:
    """The numpy arrays that a bundle stores, as a tree."""
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
    """The tree of `arrays`, shapes alone, computed from the sizes of the networks."""
    k, landmarks, size = at_net.num_coefficients, 2 * NUM_POINTS, vg_net.image_size
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


@functools.lru_cache(16)
def shapes(module: nn.Module, *inputs: tuple[int, ...]) -> Any:
    """Those of the module's variables, for inputs of these shapes."""
    key = jax.eval_shape(jax.random.key, 0)  # abstract arrays: nothing is compiled
    abstract = (jax.ShapeDtypeStruct(shape, jnp.float32) for shape in inputs)
    with convolutions.form("native"):  # tracing both would take twice the time
        return jax.eval_shape(module.init, key, *abstract)


def open_arrays(path: pathlib.Path) -> dict[str, Any]:
    """Opens the arrays that orbax has written: {name: future of a TensorStore}.

    A name is, for example, "at_net.params.head.bias".  Orbax's own reader takes half a
    second longer, and writes to standard error about some damaged files.
    """
    import tensorstore

    # Few files at a time, because their bytes are held in memory beside the arrays.
    context = tensorstore.Context({"file_io_concurrency": {"limit": 4}})
    store = {"driver": "ocdbt", "base": {"driver": "file", "path": f"{path}/"}}
    keys = tensorstore.KvStore.open(store, context=context).result().list().result()
    names = [key.decode() for key in keys]
    return {
        name: tensorstore.open(
            {"driver": "zarr", "kvstore": {**store, "path": name}}, context=context
        )
        for key in names
        for name, is_array, _ in [key.partition("/.zarray")]
        if is_array
    }


def aligned(shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """An uninitialised array, aligned to 64 bytes: a CPU device uses it uncopied."""
    size = math.prod(shape) * dtype.itemsize
    room = np.empty(size + 64, np.uint8)
    start = -room.ctypes.data % 64
    return room[start : start + size].view(dtype).reshape(shape)


def checksum(leaves: Iterable[np.ndarray], begin: int = 0) -> int:
    """CRC-32 of arrays, one after the other: what orbax compresses has none."""
    for array in leaves:
        begin = zlib.crc32(
            np.ascontiguousarray(array).reshape(-1).view(np.uint8), begin
        )
    return begin


def read_arrays(
    opened: dict[str, Any], expected: Any, known_sum: int | None = None
) -> Any:
    """Reads the arrays, and returns them in the tree of `expected`.

    What a file says of its shape is compared with the expected one before any memory is
    taken for it.  Those of the networks are put on the first device as float32, one
    after the other: a transfer holds its source, and with all at once the weights would
    be in memory twice.  known_sum: what checksum returned when they were saved, if it
    is known.  ValueError: names, shapes or bytes differ from the expected ones.
    """
    import tensorstore

    found_sum = 0
    device, reading = jax.local_devices()[0], {}
    for path, wanted in jax.tree_util.tree_leaves_with_path(expected):
        name = jax.tree_util.keystr(path, simple=True, separator=".")
        if name not in opened:
            raise ValueError(f"{name} is missing")
        stored = opened.pop(name).result()
        if stored.shape != wanted.shape:
            raise ValueError(f"{name} is {stored.shape}, must be {wanted.shape}")
        chunk = stored.chunk_layout.read_chunk.shape or ()
        if any(c > max(n, 1) for c, n in zip(chunk, stored.shape, strict=True)):
            raise ValueError(f"{name} of {stored.shape} has pieces of {chunk}")
        array = aligned(stored.shape, stored.dtype.numpy_dtype)
        filled = tensorstore.array(array, copy=False).write(stored)
        reading[name] = array, filled
    if opened:
        raise ValueError(f"{min(opened)} is of other networks")

    def finish(path, expected):
        nonlocal found_sum
        name = jax.tree_util.keystr(path, simple=True, separator=".")
        array, filled = reading.pop(name)
        filled.result()
        found_sum = checksum([array], found_sum)
        if name.partition(".")[0] not in NETWORKS:
            return array
        return jax.device_put(np.asarray(array, np.float32), device).block_until_ready()

    tree = jax.tree_util.tree_map_with_path(finish, expected)
    if known_sum not in (None, found_sum):
        raise ValueError("an array has other bytes than were saved")
    return tree


def as_float32(tree: Any) -> Any:
    """The tree as float32 numpy arrays, whatever the precision of the weights."""
    return jax.tree.map(lambda x: np.asarray(x, np.float32), tree)
