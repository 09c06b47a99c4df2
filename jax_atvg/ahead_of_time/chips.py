"""What accelerators can do at best, as their makers publish it.

TPU: https://docs.cloud.google.com/tpu/docs/v5e, /v5p, /v6e, read in November 2026.
"""

from typing import NamedTuple


class Chip(NamedTuple):
    """flops: bf16 products and sums a second.  memory: HBM, bytes.  bandwidth: of HBM,
    bytes a second.  network: bytes a second that leave a chip to its neighbours, half
    of the published bidirectional figure.  clock: Hz, the peak over what the matrix
    units do in a cycle.  latency: of one collective, seconds; not published, an
    assumption."""

    flops: float
    memory: float
    bandwidth: float
    network: float
    clock: float
    latency: float = 1e-5


GB = 1e9
CHIPS = {  # by jax's device_kind
    "TPU v5 lite": Chip(197e12, 16 * GB, 819 * GB, 200 * GB, 1.5e9),
    "TPU v5": Chip(459e12, 95 * GB, 2765 * GB, 600 * GB, 1.75e9),
    "TPU v6 lite": Chip(918e12, 32 * GB, 1638 * GB, 400 * GB, 1.75e9),
}
