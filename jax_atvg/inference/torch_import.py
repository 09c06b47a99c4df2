"""Converts the authors' PyTorch checkpoints to flax variables.

docs/reference.md, sections 1 and 5.  PyTorch stores images as NCHW, convolutions as
(out, in, kh, kw), transposed ones as (in, out, kh, kw) and linear layers as (out, in);
here images are NHWC, convolutions (kh, kw, in, out) and linear layers (in, out).
"""

import pathlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np

from input_pipeline.clip import (
    CROP_SIZE,
    NUM_POINTS,
    WINDOW_ROWS,
    WINDOW_SIZE,
    InputError,
)
from jax_atvg.models.at_net import ATNet
from jax_atvg.models.discriminator import Discriminator
from jax_atvg.models.vg_net import VGNet


class Entry(NamedTuple):
    """How one array is converted.

    source: its name in the state dict.  target: its path in the variables.
    transform: changes PyTorch's layout into ours.
    """

    source: str
    target: str
    transform: Callable[[np.ndarray], np.ndarray] = lambda x: x


Entries = Iterator[Entry]


# --- the entries of one layer, whose names begin with source and target ---


def conv(source: str, target: str, bias: bool = True, axes=(2, 3, 1, 0)) -> Entries:
    yield Entry(
        f"{source}.weight", f"params/{target}/kernel", lambda w: w.transpose(axes)
    )
    if bias:
        yield Entry(f"{source}.bias", f"params/{target}/bias")


def conv_transpose(source: str, target: str, bias: bool = False) -> Entries:
    return conv(source, target, bias, axes=(2, 3, 0, 1))


def norm(source: str, target: str) -> Entries:
    yield Entry(f"{source}.weight", f"params/{target}/scale")
    yield Entry(f"{source}.bias", f"params/{target}/bias")
    yield Entry(f"{source}.running_mean", f"batch_stats/{target}/mean")
    yield Entry(f"{source}.running_var", f"batch_stats/{target}/var")


def conv_norm(source: str, target: str) -> Entries:
    yield from conv(f"{source}.0", f"{target}/conv", bias=False)
    yield from norm(f"{source}.1", f"{target}/norm")


def linear(source: str, target: str) -> Entries:
    yield Entry(f"{source}.weight", f"params/{target}/kernel", np.transpose)
    yield Entry(f"{source}.bias", f"params/{target}/bias")


def linear_after_flatten(source: str, target: str, height: int, width: int) -> Entries:
    """A linear layer on a flattened picture, whose channels PyTorch flattens first."""

    def transform(w: np.ndarray) -> np.ndarray:
        w = w.reshape(w.shape[0], -1, height, width)
        return w.transpose(2, 3, 1, 0).reshape(-1, w.shape[0])

    yield Entry(f"{source}.weight", f"params/{target}/kernel", transform)
    yield Entry(f"{source}.bias", f"params/{target}/bias")


def recurrent(source: str, target: str, transform: Callable) -> Entries:
    """One layer of an LSTM or convolutional GRU; {} in `source` is weight or bias."""
    for theirs, ours in (("ih", "input"), ("hh", "hidden")):
        yield Entry(
            source.format(f"weight_{theirs}"),
            f"params/{target}{ours}_kernel",
            transform,
        )
        yield Entry(source.format(f"bias_{theirs}"), f"params/{target}{ours}_bias")


def lstm(source: str, target: str) -> Entries:
    for layer in range(3):
        yield from recurrent(
            f"{source}.{{}}_l{layer}", f"{target}/layer_{layer}_", np.transpose
        )


# --- the entries of one network ---


def at_net() -> Entries:
    yield from linear("lmark_encoder.0", "example_encoder/dense_0")
    yield from linear("lmark_encoder.2", "example_encoder/dense_1")
    for ours, theirs in enumerate((0, 1, 3, 4, 5)):  # 2 and 6 are the poolings
        yield from conv_norm(f"audio_eocder.{theirs}", f"audio_encoder/conv_{ours}")
    yield from linear_after_flatten("audio_eocder_fc.0", "audio_fc/dense_0", 12, 2)
    yield from linear("audio_eocder_fc.2", "audio_fc/dense_1")
    yield from lstm("lstm", "lstm")
    yield from linear("lstm_fc.0", "head")


def vg_net() -> Entries:
    for i in range(3):
        yield from conv_norm(f"image_encoder1.{i + 1}", f"image_encoder1/conv_{i}")
    for i in range(2):
        yield from conv_norm(f"image_encoder2.{i}", f"image_encoder2/conv_{i}")
    yield from linear("landmark_encoder.0", "landmark_encoder/fc/dense_0")
    yield from conv_norm("landmark_encoder_stage2.0", "landmark_encoder/conv")
    yield from conv_norm("lmark_feature.0", "landmark_feature")
    for i in range(2):
        up = f"landmark_attention/up_{i}"
        yield from conv_transpose(f"lmark_att.{3 * i}", f"{up}/conv", bias=True)
        yield from norm(f"lmark_att.{3 * i + 1}", f"{up}/norm")
    yield from conv("lmark_att.6.0", "landmark_attention/conv")
    yield from conv_norm("bottle_neck.0", "bottleneck")
    yield from recurrent(
        "convGRU.{}_l0", "conv_gru/", lambda w: w.transpose(2, 3, 1, 0)
    )
    for i in range(9):
        theirs, ours = f"generator1.{i}.conv_block", f"generator/block_{i}"
        yield from conv_norm(theirs, f"{ours}/first")
        yield from conv(f"{theirs}.4", f"{ours}/conv", bias=False)
        yield from norm(f"{theirs}.5", f"{ours}/norm")
    for theirs, first, ours in (("generator1", 9, "generator/"), ("base", 0, "")):
        for i in range(2):
            up = f"{ours}up_{i}"
            yield from conv_transpose(f"{theirs}.{first + 3 * i}", f"{up}/conv")
            yield from norm(f"{theirs}.{first + 3 * i + 1}", f"{up}/norm")
    for name in ("color", "attention"):
        theirs, ours = f"generator_{name}.0", f"params/heads/{name}"
        yield Entry(
            f"{theirs}.weight", f"{ours}_kernel", lambda w: w.transpose(2, 3, 1, 0)
        )
        yield Entry(f"{theirs}.bias", f"{ours}_bias")


def discriminator() -> Entries:
    yield from linear("encoder.0", "example_encoder/dense_0")
    yield from linear("encoder.2", "example_encoder/dense_1")
    yield from conv("image_encoder_dis.0.0", "frame_encoder/conv_0")
    for i in range(1, 4):
        yield from conv_norm(f"image_encoder_dis.{i}", f"frame_encoder/conv_{i}")
    yield from linear_after_flatten("img_fc.0", "frame_fc/dense_0", 8, 8)
    yield from lstm("lstm", "lstm")
    yield from linear("lstm_fc.0", "landmark_head")
    yield from linear("decision.0", "score_head")


ENTRIES = {"at_net": at_net, "vg_net": vg_net, "discriminator": discriminator}
UNUSED = ("num_batches_tracked", "decoder.")  # the discriminator's decoder is never run


def convert(network: str, state_dict: Mapping[str, Any]) -> dict[str, Any]:
    """Converts a state dict to variables {"params", "batch_stats"} of f32 arrays.

    network: "at_net", "vg_net" or "discriminator", at the original's size.
    state_dict: name -> array, or PyTorch tensor on the CPU; a `module.` prefix is
    dropped, `num_batches_tracked` and the discriminator's unused decoder are left out.

    Raises InputError that lists every missing, unexpected or misshapen entry.
    """
    if network not in ENTRIES:
        raise InputError(f"network {network!r} must be one of {sorted(ENTRIES)}")
    given = {
        name.removeprefix("module."): np.asarray(value)
        for name, value in state_dict.items()
    }
    given = {
        name: value
        for name, value in given.items()
        if not (name.endswith(UNUSED[0]) or name.startswith(UNUSED[1]))
    }
    expected = {entry.source: entry for entry in ENTRIES[network]()}
    shapes = variable_shapes(network)
    problems = [f"missing {name}" for name in expected if name not in given]
    problems += [f"unexpected {name}" for name in given if name not in expected]
    variables = {}
    for name, (_, target, transform) in expected.items():
        if name not in given:
            continue
        try:
            value = transform(given[name])
        except ValueError:  # another number of axes: reported as misshapen
            value = given[name]
        if value.shape != shapes[target]:
            problems.append(
                f"misshapen {name} {given[name].shape}: becomes {target} "
                f"{value.shape}, must be {shapes[target]}"
            )
        variables[target] = jnp.asarray(value, jnp.float32)
    if problems:
        raise InputError(
            f"not a state dict of {network}, {len(problems)} entries differ: "
            + "; ".join(problems)
        )
    return flax.traverse_util.unflatten_dict(variables, sep="/")


def variable_shapes(network: str) -> dict[str, tuple[int, ...]]:
    """Shapes by path, as "params/head/kernel": (256, 6), at the original's size."""
    size, landmarks = CROP_SIZE, 2 * NUM_POINTS
    module, *inputs = {
        "at_net": (ATNet(), (1, 6), (1, 1, WINDOW_ROWS, WINDOW_SIZE)),
        "vg_net": (VGNet(), (1, size, size, 3), (1, 1, landmarks), (1, landmarks)),
        "discriminator": (Discriminator(), (1, 1, size, size, 3), (1, landmarks)),
    }[network]
    shapes = jax.eval_shape(
        module.init, jax.random.key(0), *[jnp.zeros(shape) for shape in inputs]
    )
    shapes = flax.traverse_util.flatten_dict(shapes, sep="/")
    return {path: leaf.shape for path, leaf in shapes.items()}


def read_state_dict(path: str | pathlib.Path) -> dict[str, np.ndarray]:
    """Reads a checkpoint: name -> f32 array.

    path: a PyTorch file (zip or legacy format, also one written by Python 2 with its
    tensors on a GPU), or an .npz of a state dict.  Only tensors are unpickled.
    Raises InputError for a missing or unreadable file, or where torch is not installed.
    """
    path = pathlib.Path(path)
    if not path.is_file():
        raise InputError(f"{path}: no such file; give a .pth or .npz checkpoint")
    if path.suffix == ".npz":
        try:
            with np.load(path) as arrays:
                return {name: arrays[name].astype(np.float32) for name in arrays}
        except Exception as error:  # numpy and zipfile raise many kinds
            raise InputError(
                f"{path}: not a readable .npz file ({error}); copy it again"
            ) from error
    try:
        import torch
    except ImportError as error:
        raise InputError(
            f"{path}: reading PyTorch files needs torch; pip install -r "
            "requirements/torch.txt, or give an .npz of the state dict"
        ) from error
    try:
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises whatever its unpickler met
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise InputError(f"{path}: not a PyTorch checkpoint ({reason})") from error
    if not isinstance(loaded, Mapping) or not all(
        map(torch.is_tensor, loaded.values())
    ):
        raise InputError(
            f"{path}: holds no state dict (name -> tensor); save module.state_dict()"
        )
    return {
        name.decode() if isinstance(name, bytes) else name: value.float().numpy()
        for name, value in loaded.items()
    }
