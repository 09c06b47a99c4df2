"""In which precision networks multiply: one choice for training and inference.

    highest     float32, also in products, whose factors some platforms round otherwise
    default     float32; the platform's products: TF32 on GPUs, bfloat16 on TPUs
    bfloat16    kernels and what layers multiply with them in bfloat16

Recurrent states, the composition of frames, statistics, losses and what the optimiser
keeps are float32 in all of them.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from input_pipeline.clip import InputError
from jax_atvg.models.convolutions import traced_for
from jax_atvg.models.sizes import PRECISIONS


def cast(params: Any, precision: str) -> Any:
    """A network's parameters as its layers are to multiply with them.

    InputError: there is no such precision.
    """
    if precision not in PRECISIONS:
        names = ", ".join(PRECISIONS)
        raise InputError(f"precision={precision!r}: choose one of {names}")
    if precision != "bfloat16":
        return params
    return jax.tree.map(lambda x: x.astype(jnp.bfloat16), params)


def cast_variables(variables: dict[str, Any], precision: str) -> dict[str, Any]:
    """A network's variables with its parameters cast; running statistics stay."""
    return variables | {"params": cast(variables["params"], precision)}


def traced(mesh: Mesh, precision: str, function: Callable) -> Callable:
    """The function, to be traced with the precision's products and with the form of
    convolutions for the mesh's devices."""
    function = traced_for(mesh.devices.flat[0].platform, function)
    if precision != "highest":
        return function

    @functools.wraps(function)
    def highest(*args: Any, **kwargs: Any) -> Any:
        with jax.default_matmul_precision("highest"):
            return function(*args, **kwargs)

    return highest
