"""Two finished runs become a bundle; the networks also as programs of their own.

The boost w, with which AT-net's coefficients are multiplied, is calibrated here: what a
network trained on squared errors predicts varies less than faces do.  Larger movements
cost accuracy, so `mouth_error` is to be read beside it.
"""

import json
import os
import pathlib
import shutil
from collections.abc import Iterable
from typing import Any

import flax.linen as nn
import jax
import numpy as np
from jax import export as jax_export
from jaxtyping import Float, Float32

from input_pipeline.clip import (
    CROP_SIZE,
    MOUTH,
    NUM_POINTS,
    WINDOW_ROWS,
    WINDOW_SIZE,
    EvaluationBatch,
    InputError,
    Pca,
)
from jax_atvg.evaluation.metrics import as_points, opening
from jax_atvg.inference.bundle import Bundle, SeenFaces, as_float32, save_bundle
from jax_atvg.training.runs import Run
from jax_atvg.training.train_step import make_nets

AUTHORS_BOOST = (1.0, 2.2, 2.4, 2.6, 2.8, 3.0)  # chosen by hand; reference 3.5
OUTLIERS = (0.005, 0.995)
LEAST_BOOST, MOST_BOOST = 0.5, 3.0
PLATFORMS = ("cpu", "cuda", "tpu")
FOLDER = "stablehlo"  # in the bundle's
OUTPUTS = {"at_net": ("coefficients",), "vg_net": ("frames", "attention", "color")}
STATES = {"at_net": ("hidden", "cell"), "vg_net": ("gru",)}
README = """The networks as programs (jax.export, StableHLO; made with jax {jax}).

They need jax and numpy, no other package, and run on {platforms}.  signature.json has
names and shapes of what goes in and comes out, in order; all float32; b clips and t
frames are free.  The state (hidden, cell; gru) starts as zeros; given back with the
next frames it continues them, so that a long recording may pass in pieces.

    import jax.export, json, numpy as np

    def load(name):
        with open(name + ".stablehlo", "rb") as file:
            return jax.export.deserialize(bytearray(file.read()))

    at_net, vg_net, s = load("at_net"), load("vg_net"), np.load("settings.npz")
    # p: f32[b,136], the photo's landmarks, x0 y0 x1 y1 ..; crop pixels are
    # landmark_to_crop @ (x, y, 1).  audio: f32[b,t,28,12], MFCC windows.
    # image: the photo's crop, [-1,1].  *_zeros: see signature.json.
    # With low, high, residual and opening in s (else h is not clipped and r is 0):
    h = np.clip((p - s["mean"]) @ s["components"], s["low"], s["high"])
    shape = h @ s["components"].T + s["mean"]
    energy = ((p - shape) ** 2).sum(-1, keepdims=True)
    r = np.maximum(1 - s["residual"] / energy, 0) * (p - shape)
    example, y = shape + r, r[:, 1::2]
    opened = y[:, [65, 66, 67]].mean(-1) - y[:, [61, 62, 63]].mean(-1)
    own = r - opened[:, None] * s["opening"]
    coefficients, *at_state = at_net.call(h, audio, *at_zeros)
    landmarks = (s["boost"] * coefficients) @ s["components"].T + s["mean"]
    landmarks += own[:, None]
    frames, attention, color, *vg_state = vg_net.call(
        image, landmarks, example, *vg_zeros
    )
"""


def make_bundle(
    at: Run,
    vg: Run,
    boost: Float[np.ndarray, "K"] | None = None,
    *,
    half: bool = False,
    seen: SeenFaces | None = None,
    **alignment: Any,
) -> Bundle:
    """What both runs have learnt, and nothing else of them.

    boost: see calibrate; ones if None.  half: weights in float16, half the size.  seen:
    see seen_faces.
    alignment: the fields of Bundle that say where the face lies in the crop.
    InputError: a weight too large for float16.
    """
    variables = {"at_net": at.variables, "vg_net": vg.variables}
    ones = np.ones(at.experiment.data.num_coefficients, np.float32)
    return Bundle(
        at_net=make_nets(at.experiment).net,
        vg_net=make_nets(vg.experiment).generator.clone(remat=False),
        variables=to_half(variables) if half else variables,
        pca=at.pca,
        boost=ones if boost is None else np.asarray(boost, np.float32),
        seen=seen,
        **alignment,
    )


def to_half(variables: dict[str, Any]) -> dict[str, Any]:
    """InputError: a weight would become infinite; names it."""

    def cast(path, x: np.ndarray) -> np.ndarray:
        largest = float(np.abs(x).max(initial=0))
        if not largest <= float(np.finfo(np.float16).max):
            name = jax.tree_util.keystr(path, simple=True, separator="/")
            raise InputError(
                f"{name} reaches {largest:g}, float16 ends at 65504; export without "
                "--half"
            )
        return x.astype(np.float16)

    return jax.tree_util.tree_map_with_path(cast, variables)


# --- the faces of the training clips ---


def seen_faces(pca: Pca, landmarks: Iterable[np.ndarray]) -> SeenFaces:
    """Of AT-net's training clips, f32[T,136] each; see Bundle.recognise.

    opening: the regression of the landmarks on the lips' opening, within clips.
    """
    clips = list(landmarks)
    p = np.concatenate(clips)
    h = pca.project(p)
    low, high = np.quantile(h, OUTLIERS, axis=0).astype(np.float32)
    apart = np.sum((p - pca.reconstruct(h)) ** 2, -1)
    moved = np.concatenate([clip - clip.mean(0) for clip in clips])
    opened = opening(as_points(moved))
    direction = opened @ moved / max(opened @ opened, 1e-12)
    return SeenFaces(low, high, np.float32(apart.mean()), direction.astype(np.float32))


# --- the boost ---


def calibrate(
    predicted: Float[np.ndarray, "n K"], true: Float[np.ndarray, "n K"]
) -> Float32[np.ndarray, "K"]:
    """w_k = std(true_k) / std(predicted_k), within [0.5, 3].

    1 where the prediction stands still: no factor would move it.
    """
    spread, wanted = predicted.std(0), true.std(0)
    # Rounding alone moves a constant by some 1e-7 of its size.
    still = spread <= 1e-6 * np.maximum(np.abs(predicted).max(0), 1e-6)
    w = np.clip(wanted / np.where(still, 1, spread), LEAST_BOOST, MOST_BOOST)
    return np.where(still, 1, w).astype(np.float32)


def coefficients(
    at: Run, batches: Iterable[EvaluationBatch]
) -> tuple[Float32[np.ndarray, "n K"], Float32[np.ndarray, "n K"]]:
    """(predicted, true) of all valid frames of all clips, whole.

    Not about each clip's mean, although that would match what moves: w multiplies the
    whole coefficient (equation 3), the face's own shape with it.  On GRID, 400 steps
    of at_small, matching movements raised the mouth's error from 1.00 to 1.84 pixels,
    matching the whole to 1.27.
    """
    compiled = jax.jit(make_nets(at.experiment).net.apply)
    predicted, true = [], []
    for batch in batches:
        inputs = batch.at
        output = compiled(at.variables, inputs.example, inputs.audio)
        found = np.asarray(output.coefficients)
        valid = (batch.frame_valid * batch.valid[:, None]) > 0
        predicted.append(found[valid])
        true.append(inputs.coefficients[valid])
    return np.concatenate(predicted), np.concatenate(true)


def mouth_error(
    pca: Pca, predicted: Float[np.ndarray, "n K"], true: Float[np.ndarray, "n K"]
) -> float:
    """Mean distance of the mouth's points, pixels of the crop."""
    apart = (predicted - true) @ pca.components.T * (CROP_SIZE / 2)
    return float(np.linalg.norm(as_points(apart)[:, MOUTH], axis=-1).mean())


# --- programs that need no Python of ours ---


def write_bundle(
    bundle: Bundle, out: str | pathlib.Path, *, stablehlo: bool = False
) -> None:
    """The bundle's folder; with stablehlo, `out/stablehlo/` in it.

    InputError: see save_bundle; the disk is full.
    """
    files = program_files(bundle) if stablehlo else {}
    save_bundle(bundle, out)
    folder = pathlib.Path(out) / FOLDER
    partial = folder.with_name(f"{FOLDER}.partial")
    try:
        if files:
            partial.mkdir()
            for name, content in files.items():
                (partial / name).write_bytes(content)
            save_settings(partial / "settings.npz", bundle)
            os.replace(partial, folder)
    except OSError as error:
        raise InputError(
            f"{folder}: cannot be written ({error}); make room and export again"
        ) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def program_files(bundle: Bundle) -> dict[str, bytes]:
    """{name: content}: both programs, their signatures, how to call them."""
    size, points = bundle.vg_net.image_size, 2 * NUM_POINTS
    inputs = {
        "at_net": {
            "example": ("b", bundle.at_net.num_coefficients),
            "audio": ("b", "t", WINDOW_ROWS, WINDOW_SIZE),
        },
        "vg_net": {
            "image": ("b", size, size, 3),
            "landmarks": ("b", "t", points),
            "example": ("b", points),
        },
    }
    files, signatures = {}, {}
    for name in inputs:
        net = getattr(bundle, name)
        code, signatures[name] = program(
            net, bundle.variables[name], inputs[name], OUTPUTS[name], STATES[name]
        )
        files[f"{name}.stablehlo"] = code
    text = README.format(jax=jax.__version__, platforms=", ".join(PLATFORMS))
    signature = json.dumps(signatures, indent=1) + "\n"
    return files | {"signature.json": signature.encode(), "README.txt": text.encode()}


def program(
    net: nn.Module,
    variables: dict[str, Any],
    inputs: dict[str, tuple],
    outputs: tuple[str, ...],
    states: tuple[str, ...],
) -> tuple[bytes, dict[str, dict[str, list]]]:
    """(serialised function, {"inputs", "outputs": {name: shape}}): arrays in, a list of
    arrays out, all f32, the recurrence's state last in both.

    The weights are constants in it: one file is all there is to carry.
    """
    variables = jax.device_put(as_float32(variables))  # vmap takes no numpy constants
    scope = jax_export.SymbolicScope()

    def struct(shape: tuple) -> jax.ShapeDtypeStruct:
        text = ", ".join(map(str, shape))
        sizes = jax_export.symbolic_shape(text, scope=scope)
        return jax.ShapeDtypeStruct(sizes, np.float32)

    given = [struct(shape) for shape in inputs.values()]
    shapes = jax.eval_shape(net.apply, variables, *given).state
    state, tree = jax.tree.flatten(shapes)

    def run(*arrays):
        kept = jax.tree.unflatten(tree, arrays[len(given) :])
        output = net.apply(variables, *arrays[: len(given)], state=kept)
        wanted = [getattr(output, name) for name in outputs]
        return [*wanted, *jax.tree.leaves(output.state)]

    exported = jax_export.export(jax.jit(run), platforms=PLATFORMS)(*given, *state)

    def named(names, avals) -> dict[str, list]:
        sizes = [[n if isinstance(n, int) else str(n) for n in a.shape] for a in avals]
        return dict(zip(names, sizes, strict=True))

    signature = {
        "inputs": named([*inputs, *states], exported.in_avals),
        "outputs": named([*outputs, *states], exported.out_avals),
    }
    return bytes(exported.serialize()), signature


def save_settings(path: pathlib.Path, bundle: Bundle) -> None:
    """What lies between the two programs, as plain arrays."""
    arrays = {
        "mean": bundle.pca.mean,
        "components": bundle.pca.components,
        "boost": bundle.boost,
        "landmark_to_crop": bundle.landmark_to_crop,
        "template": bundle.template,
        "template_indices": np.array(bundle.template_indices),
    }
    if bundle.photo_landmarks is not None:
        arrays["photo_landmarks"] = bundle.photo_landmarks
    if bundle.seen is not None:
        arrays |= bundle.seen._asdict()
    np.savez(path, **arrays)
