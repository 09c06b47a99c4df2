"""What the command line says on standard error."""

import sys
import warnings
from collections.abc import Sequence
from typing import Any


def complain(error: Exception | str) -> None:
    """One line, whatever the error's message holds."""
    print("error:", " ".join(str(error).split("\n")), file=sys.stderr)


def say_what_runs(
    devices: Sequence[Any] | None = None, *, networks: Any = None
) -> None:
    """On standard error: the devices, all unless given, and the networks' parameters.

    networks: of a bundle, whose variables are counted.  Warns of a GPU that is not
    used.
    """
    import jax

    from jax_atvg import machine

    text = f"running on {machine.describe(devices or jax.local_devices())}"
    if networks is not None:
        trees = {"AT_net": networks["at_net"], "VG_net": networks["vg_net"]}
        counted = {name: tree["params"] for name, tree in trees.items()}
        text += f"; {machine.parameters(**counted)}"
    print(text, file=sys.stderr, flush=True)
    if warning := machine.unused_gpu():
        warnings.warn(warning, stacklevel=2)
