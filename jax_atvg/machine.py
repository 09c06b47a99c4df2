"""What a program runs on, in words."""

import importlib.util
import os
import pathlib
from collections.abc import Sequence
from typing import Any

# Where Linux shows the drivers of NVIDIA's and AMD's GPUs.
GPU_DRIVERS = ("/dev/nvidiactl", "/dev/kfd")
CUDA_PLUGINS = ("jax_cuda13_plugin", "jax_cuda12_plugin")
# What jax makes of float32 products by default.
PRODUCTS = {"gpu": "TF32", "tpu": "bfloat16"}


def describe(devices: Sequence[Any], precision: str = "default") -> str:
    """ "1 x CPU, float32", "8 x NVIDIA H100 80GB HBM3, float32 (TF32 products)".

    precision: in which the networks multiply, see models/precision.py.
    """
    import jax

    first = devices[0]
    kind = "CPU" if first.platform == "cpu" else first.device_kind
    if precision == "bfloat16":
        return f"{len(devices)} x {kind}, bfloat16"
    text = f"{len(devices)} x {kind}, float32"
    asked = jax.config.jax_default_matmul_precision
    if precision == "default" and first.platform in PRODUCTS and asked is None:
        text += f" ({PRODUCTS[first.platform]} products)"
    return text


def unused_gpu() -> str | None:
    """A warning where a GPU is in the machine and jax computes on the CPU, though
    nobody asked it to; None elsewhere."""
    import jax

    found = [path for path in GPU_DRIVERS if pathlib.Path(path).exists()]
    if not found or os.environ.get("JAX_PLATFORMS") or jax.default_backend() != "cpu":
        return None
    remedy = 'pip install "jax[cuda13]" (NVIDIA)'
    if any(map(importlib.util.find_spec, CUDA_PLUGINS)):
        remedy = (
            "jax's plugin for CUDA is installed, so look at the driver (nvidia-smi): "
            "CUDA 13 needs 580 or newer, and jax[cuda12] serves older ones"
        )
    return (
        f"a GPU is in this machine ({found[0]}), but jax has no backend for it and "
        f"computes on the CPU; {remedy}, or set JAX_PLATFORMS=cpu if that is wanted"
    )


def parameters(**variables: Any) -> str:
    """ "AT-net 1.23 M, VG-net 4.9 M parameters", of trees of arrays or their shapes;
    a name's underscores become hyphens."""
    import jax

    counts = {
        name.replace("_", "-"): sum(x.size for x in jax.tree.leaves(tree))
        for name, tree in variables.items()
    }
    parts = (f"{name} {count / 1e6:.3g} M" for name, count in counts.items())
    return f"{', '.join(parts)} parameters"
