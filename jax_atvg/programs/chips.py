"""The peak rates of accelerators, as their makers publish them.

TPU: https://docs.cloud.google.com/tpu/docs/v5e, /v5p, /v6e; GPU: NVIDIA's data sheets
of A100 80GB SXM, H100 SXM, H200 SXM and B200; read in November 2026.
"""

from typing import NamedTuple


class Chip(NamedTuple):
    """One kind of accelerator.

    flops: bf16 operations (multiplications and additions) a second, without sparsity.
    memory: HBM, bytes.  bandwidth: of HBM, bytes a second.  network: bytes a second
    from a chip to its neighbours, half of the published bidirectional figure.  clock:
    Hz, of a TPU computed from flops and the operations of the matrix units in a cycle.
    latency: of one collective, seconds; it is not published, and this value is an
    assumption.
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
    "NVIDIA A100-SXM4-80GB": Chip(312e12, 80 * GB, 2039 * GB, 300 * GB, 1.41e9),
    "NVIDIA H100 80GB HBM3": Chip(989e12, 80 * GB, 3350 * GB, 450 * GB, 1.98e9),
    "NVIDIA H200": Chip(989e12, 141 * GB, 4800 * GB, 450 * GB, 1.98e9),
    "NVIDIA B200": Chip(2250e12, 180 * GB, 8000 * GB, 900 * GB, 1.97e9),
}


def in_precision(kind: str, precision: str) -> Chip | None:
    """The chip with the flops of a precision of models/precision.py: of what the matrix
    units multiply, bfloat16 or, half as fast, TF32.  None: of float32, which they do
    not, or of a device that is not known.  kind: jax's device_kind."""
    chip = CHIPS.get(kind)
    if chip is None or precision == "highest":
        return None
    tf32 = precision == "default" and kind.startswith("NVIDIA")
    return chip._replace(flops=chip.flops / 2) if tf32 else chip


def peak(kind: str, precision: str) -> float | None:
    """The operations a second of in_precision; None where it is None."""
    chip = in_precision(kind, precision)
    return chip and chip.flops


class Gpu(NamedTuple):
    """What XLA must know of a GPU to compile for it where there is none.

    kind: jax's device_kind.  capability: of CUDA.  cores: streaming multiprocessors.
    units: float32 units of one.  shared: bytes of shared memory of one; a block may
    have 1 KiB less.  l2: bytes of the cache.
    """

    kind: str
    capability: tuple[int, int]
    cores: int
    units: int
    shared: int
    l2: int

    def target(self) -> str:
        """The description as XLA reads it, a GpuTargetConfigProto in text."""
        chip = CHIPS[self.kind]
        major, minor = self.capability
        return f"""
        platform_name: "CUDA"
        device_description_str: "{self.kind}"
        dnn_version_info {{ major: 9 minor: 10 }}
        gpu_device_info {{
          cuda_compute_capability {{ major: {major} minor: {minor} }}
          core_count: {self.cores}
          fpus_per_core: {self.units}
          clock_rate_ghz: {chip.clock / 1e9}
          memory_bandwidth: {chip.bandwidth:.0f}
          device_memory_size: {chip.memory:.0f}
          l2_cache_size: {self.l2}
          shared_memory_per_core: {self.shared}
          shared_memory_per_block: {48 * 1024}
          shared_memory_per_block_optin: {self.shared - 1024}
          registers_per_core_limit: {2**16}
          registers_per_block_limit: {2**16}
          threads_per_core_limit: 2048
          threads_per_block_limit: 1024
          threads_per_warp: 32
          block_dim_limit_x: {2**31 - 1}
          block_dim_limit_y: {2**16 - 1}
          block_dim_limit_z: {2**16 - 1}
        }}"""


KIB, MIB = 2**10, 2**20
GPUS = {  # by the name that --topology takes
    "a100": Gpu("NVIDIA A100-SXM4-80GB", (8, 0), 108, 64, 164 * KIB, 40 * MIB),
    "h100": Gpu("NVIDIA H100 80GB HBM3", (9, 0), 132, 128, 228 * KIB, 50 * MIB),
    "h200": Gpu("NVIDIA H200", (9, 0), 132, 128, 228 * KIB, 50 * MIB),
    "b200": Gpu("NVIDIA B200", (10, 0), 148, 128, 228 * KIB, 126 * MIB),
}
