"""The peak rates of accelerators, as their makers publish them.

TPU: https://docs.cloud.google.com/tpu/docs/v5e, /v5p, /v6e, read in November 2026.
"""

from typing import NamedTuple


class Chip(NamedTuple):
    """One kind of accelerator.

    flops: bf16 operations (multiplications and additions) a second.  memory: HBM,
    bytes.  bandwidth: of HBM, bytes a second.  network: bytes a second from a chip to
    its neighbours, half of the published bidirectional figure.  clock: Hz, computed
    from flops and the operations of the matrix units in a cycle.  latency: of one
    collective, seconds; it is not published, and this value is an assumption.
    """

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
