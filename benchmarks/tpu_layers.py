"""Compares forms of layers by the time that XLA's compiler estimates for a TPU.

    pip install -r requirements/tpu.txt
    python benchmarks/tpu_layers.py                     # four minutes, no TPU
    python benchmarks/tpu_layers.py --topology=v5p:2x2x1

Nothing is run: every layer is compiled alone for 128 frames in bfloat16 on one chip,
its inputs and outputs in the layout that the compiler prefers.  ms: the sum of the
cycles that the compiler notes for its instructions, at the chip's clock.  back: the
gradients of input and kernel.  GFLOP: without products with the zeros of dilation.

Forms of the layers that double height and width: transposed, the transposed convolution
of the networks; sub-pixel, a 2x2 convolution with four times the channels, which are
then moved to four pixels each; unmoved, the same without the moving, as if the next
layer accepted its result.  Heads in blocks: blocks of 2x2 pixels are one pixel with
four times the channels, before and after.
"""

import argparse
import functools
import pathlib
import sys
from collections.abc import Callable, Sequence

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks.measuring import table  # noqa: E402
from input_pipeline.clip import InputError  # noqa: E402
from jax_atvg.cli.console import complain  # noqa: E402
from jax_atvg.cli.machine import enlarge_stack, pretend_tpu_host  # noqa: E402

FRAMES = 128
UPS = [(8, 512, 256), (16, 256, 128), (32, 128, 64), (64, 64, 32)]  # side, C, D
HEADS = {  # shape of x, of the kernel
    "colour and attention": ((FRAMES, 128, 128, 32), (7, 7, 32, 4)),
    "colour": ((FRAMES, 128, 128, 32), (7, 7, 32, 3)),
    "attention": ((FRAMES, 128, 128, 32), (7, 7, 32, 1)),
    "padded to 128": ((FRAMES, 128, 128, 32), (7, 7, 32, 128)),
    "both, in blocks": ((FRAMES, 64, 64, 128), (5, 5, 128, 16)),
}
COLUMNS = {
    "layer": ("layer", "s"),
    "form": ("form", "s"),
    "ms": ("ms", ".2f"),
    "back ms": ("back_ms", ".2f"),
    "GFLOP": ("gflop", ".1f"),
    "back GFLOP": ("back_gflop", ".1f"),
}


def sub_pixel_kernel(kernel):
    """The kernel of a transposed convolution [3,3,C,D] -> that of a 2x2 one [2,2,C,4D].

    Along both axes pixel 2m is x[m] k[1], and pixel 2m + 1 is x[m] k[2] + x[m+1] k[0].
    """
    import jax.numpy as jnp

    def along(kernel, axis: int):
        """[..., 3, ...] -> [offset, r, ..., ...]."""
        last, middle, first = jnp.moveaxis(kernel, axis, 0)
        none = jnp.zeros_like(last)
        return jnp.stack([jnp.stack([middle, first]), jnp.stack([none, last])])

    both = along(along(kernel, 0), 2)  # [2, s, 2, r, C, D]
    c, d = kernel.shape[2:]
    return both.transpose(2, 0, 4, 3, 1, 5).reshape(2, 2, c, 4 * d)


def unmoved(x, kernel):
    """The 2x2 convolution alone: [N,H,W,C], [2,2,C,4D] -> [N,H,W,4D]."""
    from jax import lax

    return lax.conv_general_dilated(
        x, kernel, (1, 1), [(0, 1)] * 2, dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


def sub_pixel(x, kernel):
    """layers.conv_transpose by sub-pixels: [N,H,W,C], [3,3,C,D] -> [N,2H,2W,D]."""
    n, h, w, _ = x.shape
    y = unmoved(x, sub_pixel_kernel(kernel)).reshape(n, h, w, 2, 2, -1)
    return y.transpose(0, 1, 3, 2, 4, 5).reshape(n, 2 * h, 2 * w, -1)


def layers() -> list[tuple[str, str, Callable, tuple, tuple]]:
    """(layer, form, function, shape of x, shape of the kernel)."""
    from jax_atvg.models.layers import conv, conv_transpose

    found = []
    for side, c, d in UPS:
        layer = f"up to {2 * side}x{2 * side}, {c} -> {d}"
        x, kernel = (FRAMES, side, side, c), (3, 3, c, d)
        found += [
            (layer, "transposed", conv_transpose, x, kernel),
            (layer, "sub-pixel", sub_pixel, x, kernel),
            (layer, "unmoved", unmoved, x, (2, 2, c, 4 * d)),
        ]
    for form, (x, kernel) in HEADS.items():
        same = functools.partial(conv, padding=kernel[0] // 2)
        found.append(("head", form, same, x, kernel))
    return found


def compiled(function: Callable, device, *shapes: tuple):
    """The function, compiled for bfloat16 arrays of these shapes."""
    import jax
    import jax.numpy as jnp
    from jax.experimental.layout import Format, Layout
    from jax.sharding import SingleDeviceSharding

    from jax_atvg.programs.hlo import Program

    free = Format(Layout.AUTO, SingleDeviceSharding(device))
    arrays = [jax.ShapeDtypeStruct(shape, jnp.bfloat16) for shape in shapes]
    step = jax.jit(function, in_shardings=free, out_shardings=free)
    return Program(step.lower(*arrays).compile().as_text())


def estimate(
    function: Callable, device, clock: float, x: tuple, kernel: tuple
) -> dict[str, float]:
    """The estimates for one layer.  x, kernel: shapes.  clock: the chip's, Hz."""
    import jax

    arrays = [jax.ShapeDtypeStruct(shape, "bfloat16") for shape in (x, kernel)]
    y = jax.eval_shape(function, *arrays).shape

    def back(x, kernel, dy):
        return jax.vjp(function, x, kernel)[1](dy)

    programs = (
        compiled(function, device, x, kernel),
        compiled(back, device, x, kernel, y),
    )
    ms = [1e3 * p.cycles() / clock for p in programs]
    gflop = [p.flops() / 1e9 for p in programs]
    return {"ms": ms[0], "back_ms": ms[1], "gflop": gflop[0], "back_gflop": gflop[1]}


def arguments(words: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--topology", default="v5e:2x2", help="default: v5e:2x2")
    return parser.parse_args(words)


def main() -> int:
    """Returns the exit code: 2 for an unknown topology."""
    given = arguments()
    enlarge_stack()
    pretend_tpu_host()
    from jax_atvg.ahead_of_time.cost import topology_devices
    from jax_atvg.programs.chips import CHIPS

    try:
        device = topology_devices(given.topology)[0]
    except InputError as error:
        complain(error)
        return 2
    chip = CHIPS.get(device.device_kind)
    if chip is None:
        complain(f"--topology={given.topology}: its clock is not in programs/chips.py")
        return 2
    rows = []
    for layer, form, function, *shapes in layers():
        cost = estimate(function, device, chip.clock, *shapes)
        rows.append({"layer": layer, "form": form} | cost)
        print(table(rows[-1:], COLUMNS).splitlines()[-1], flush=True)
    print(table(rows, COLUMNS))
    return 0


if __name__ == "__main__":
    sys.exit(main())
