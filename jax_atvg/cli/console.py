"""What the command line says on standard error."""

import functools
import sys
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from input_pipeline.progress import printable

if TYPE_CHECKING:
    from jax_atvg.inference.networks import Networks


def complain(error: Exception | str) -> None:
    """One line, whatever the error's message holds."""
    print("error:", printable(str(error)), file=sys.stderr)


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def say_what_runs(
    devices: Sequence[Any] | None = None,
    *,
    networks: Any = None,
    precision: str = "default",
) -> None:
    """On standard error: the devices, all unless given, and the networks' parameters.

    networks: of a bundle, whose variables are counted.  precision: see
    models/precision.py.  Warns of a GPU that is not used.
    """
    import jax

    from jax_atvg import machine

    described = machine.describe(devices or jax.local_devices(), precision)
    text = f"running on {described}"
    if networks is not None:
        trees = {"AT_net": networks["at_net"], "VG_net": networks["vg_net"]}
        counted = {name: tree["params"] for name, tree in trees.items()}
        text += f"; {machine.parameters(**counted)}"
    say(text)
    if warning := machine.unused_gpu():
        warnings.warn(warning, stacklevel=2)


def say_what_networks_run(networks: "Networks") -> None:
    """The same, of networks that are on their devices."""
    say_what_runs(
        list(networks.mesh.devices.flat),
        networks=networks.weights._asdict(),
        precision=networks.precision,
    )


@functools.cache  # of a process: jax keeps every listener
def tell_compilations() -> None:
    """From now on a line for every program whose compilation took a second or more."""
    import jax

    def listen(event: str, seconds: float, fun_name: str = "", **_) -> None:
        if event == "/jax/core/compile/backend_compile_duration" and seconds >= 1:
            name = fun_name.removeprefix("jit(").removesuffix(")") or "a program"
            say(f"compiling {name} took {seconds:.1f} s")

    jax.monitoring.register_event_duration_secs_listener(listen)
