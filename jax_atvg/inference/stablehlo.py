"""Exports a bundle's networks as StableHLO programs, which run without this project.

They are made with jax.export for CPUs, CUDA GPUs and TPUs, and take any number of clips
and frames.
"""

import json
import pathlib
from typing import Any

import flax.linen as nn
import jax
import numpy as np
from jax import export as jax_export
from jaxtyping import Float32

from input_pipeline.clip import (
    LOWER_RIM,
    NUM_POINTS,
    WINDOW_ROWS,
    WINDOW_SIZE,
    InputError,
)
from input_pipeline.faces.rest import closed
from input_pipeline.files import replacing
from jax_atvg.inference.bundle import Bundle, as_float32, save_bundle
from jax_atvg.models import convolutions

PLATFORMS = ("cpu", "cuda", "tpu")
FOLDER = "stablehlo"  # within the bundle's folder
OUTPUTS = {"at_net": ("coefficients",), "vg_net": ("frames", "attention", "color")}
STATES = {"at_net": ("hidden", "cell"), "vg_net": ("gru",)}
README = """The networks as programs (jax.export, StableHLO; made with jax {jax}).

They need jax and numpy, no other package, and run on {platforms}.  signature.json lists
the names and shapes of their inputs and outputs, in order; all are float32, and the
numbers of clips b and frames t are free.  The state (hidden, cell; gru) is zeros at the
start.  Passed on with the next frames it continues the recording, so that a long one
can be processed in pieces.

    import jax.export, json, numpy as np

    def load(name):
        with open(name + ".stablehlo", "rb") as file:
            return jax.export.deserialize(bytearray(file.read()))

    at_net, vg_net, s = load("at_net"), load("vg_net"), np.load("settings.npz")
    # p: f32[b,136], the photo's landmarks, x0 y0 x1 y1 ..; crop pixels are
    # landmark_to_crop @ (x, y, 1).  audio: f32[b,t,28,12], MFCC windows.
    # image: the photo's crop, in [-1,1].  *_zeros: the state at the start.
    # If s has photo_landmarks, they take the place of every photo's p.
    # If s has no low, high, residual and opening, h is not clipped and r is 0.
    def coefficients_of(p):
        return np.clip((p - s["mean"]) @ s["components"], s["low"], s["high"])

    h = coefficients_of(p)
    shape = h @ s["components"].T + s["mean"]
    energy = ((p - shape) ** 2).sum(-1, keepdims=True)
    r = np.maximum(1 - s["residual"] / energy, 0) * (p - shape)
    example, y = shape + r, r[:, 1::2]
    opened = y[:, [65, 66, 67]].mean(-1) - y[:, [61, 62, 63]].mean(-1)
    own = r - opened[:, None] * s["opening"]
    # AT-net may want the face with its lips closed; else s["closing"] is 0.
    gap = np.maximum(p[:, [135, 133, 131]] - p[:, [123, 125, 127]], 0)
    rest = coefficients_of(p + gap @ s["closing"].T)
    coefficients, *at_state = at_net.call(rest, audio, *at_zeros)
    landmarks = (s["boost"] * coefficients) @ s["components"].T + s["mean"]
    landmarks += own[:, None]
    # Blinks, if vg_net.closes_eyes is true in bundle.json: down is f32[b,t], 1: shut.
    points = landmarks.reshape(*landmarks.shape[:2], 68, 2)
    upper, lower = [37, 38, 43, 44], [41, 40, 47, 46]
    step = down[..., None, None] * (points[:, :, lower] - points[:, :, upper])
    points[:, :, upper] += 0.75 * step
    points[:, :, lower] -= 0.25 * step
    frames, attention, color, *vg_state = vg_net.call(
        image, landmarks, example, *vg_zeros
    )
"""


def write_bundle(
    bundle: Bundle, out: str | pathlib.Path, *, stablehlo: bool = False
) -> None:
    """Writes a bundle's folder and, with stablehlo, the programs into `out/stablehlo/`.

    InputError: see save_bundle; the programs cannot be written.
    """
    files = program_files(bundle) if stablehlo else {}
    save_bundle(bundle, out)
    if not files:
        return
    path = pathlib.Path(out) / FOLDER
    try:
        with replacing(path) as folder:
            folder.mkdir()
            for name, content in files.items():
                (folder / name).write_bytes(content)
            save_settings(folder / "settings.npz", bundle)
    except OSError as error:
        raise InputError(
            f"{path}: cannot be written ({error}); make room and export again"
        ) from error


def program_files(bundle: Bundle) -> dict[str, bytes]:
    """{file name: content} of both programs, their signatures and a README."""
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
    """Exports a network: (serialised function, {"inputs", "outputs": {name: shape}}).

    The function takes arrays and returns a list of arrays, all f32, the recurrence's
    state last in both.  The weights are constants in it, so that one file is enough.
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

    with convolutions.form("portable"):
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
    """Writes the arrays that are needed to get from one program to the other, as .npz.

    README.txt shows how they are used.
    """
    arrays = {
        "mean": bundle.pca.mean,
        "components": bundle.pca.components,
        "boost": bundle.boost,
        "landmark_to_crop": bundle.landmark_to_crop,
        "template": bundle.template,
        "template_indices": np.array(bundle.template_indices),
        "closing": bundle.at_net.from_rest * closing_of_lips(),
    }
    if bundle.photo_landmarks is not None:
        arrays["photo_landmarks"] = bundle.photo_landmarks
    if bundle.seen is not None:
        arrays |= bundle.seen._asdict()
    np.savez(path, **arrays)


def closing_of_lips() -> Float32[np.ndarray, "136 3"]:
    """How landmarks move when the lips are closed (rest.closed), for each unit by which
    the facing points of the inner lips are apart."""
    faces = np.zeros((3, NUM_POINTS, 2))
    for face, lower in zip(faces, LOWER_RIM, strict=True):
        face[lower, 1] = 1
    return (closed(faces) - faces).reshape(3, -1).T.astype(np.float32)
