"""Predicts memory, traffic and time of a training step on devices one does not have.

The step is compiled ahead of time for a TPU topology, or for the local devices, and the
compiled program is analysed (hlo.py).  The time is that of a roofline model: no step is
faster than its arithmetic, its memory traffic or its collectives at the chip's peak.
The report also has the compiler's own estimate, the sum over all instructions but the
collectives.
"""

import dataclasses
import json
import math
import pathlib
from typing import Any

import jax

from input_pipeline.clip import InputError, Pca, first_line
from input_pipeline.files import replacing
from jax_atvg.programs.chips import CHIPS, GPUS, Chip, in_precision
from jax_atvg.programs.hlo import Program, flops_of
from jax_atvg.sharding import data_mesh
from jax_atvg.training.config import Experiment
from jax_atvg.training.train_step import build

EXAMPLES = "v5e:2x2, v5e:16x16, v5p:4x4x4, v6e:4x4, h100:1, h100:8"
CHIP_COUNTS = (1, 4, 16, 64, 256)
OUT_OF_MEMORY = "RESOURCE_EXHAUSTED"


@dataclasses.dataclass(frozen=True)
class Cost:
    """The cost of one step on one device.

    arguments, outputs, temporaries, code: memory, bytes.  memory_bytes: traffic to and
    from memory.  collectives: kind -> (count, bytes).  flops, cycles, operations: see
    hlo.Program.
    """

    device_kind: str
    devices: int
    batch_per_device: int
    arguments: int
    outputs: int
    temporaries: int
    code: int
    flops: int
    memory_bytes: int
    collectives: dict[str, tuple[int, int]]
    cycles: int = 0
    operations: int = 0

    @property
    def memory(self) -> int:
        """The memory that the step needs, bytes."""
        return self.arguments + self.outputs + self.temporaries + self.code


def topology_devices(name: str) -> list[Any]:
    """The devices of a TPU slice, for example "v5e:16x16", or of a host's GPUs, as
    "h100:8"; "" for the local devices.

    InputError: the compiler for them is not installed, or there is no such topology.
    """
    if not name:
        return jax.devices()
    from jax.experimental import topologies

    chip, _, count = name.partition(":")
    if chip in GPUS:
        return gpu_devices(name, chip, count)
    try:
        import libtpu  # noqa: F401
    except ImportError as error:
        raise InputError(
            f"--topology={name}: libtpu is missing; pip install -r requirements/tpu.txt"
        ) from error
    try:
        return topologies.get_topology_desc(platform="tpu", topology_name=name).devices
    except Exception as error:  # libtpu's own kinds
        reason = first_line(error)
        raise InputError(
            f"--topology={name}: not one that libtpu knows ({reason}); try {EXAMPLES}"
        ) from error


def gpu_devices(name: str, chip: str, count: str) -> list[Any]:
    """So many GPUs of one host, as XLA imagines them."""
    from jax.experimental import topologies

    if not count.isdecimal() or not int(count):
        raise InputError(f"--topology={name}: say how many GPUs, as {chip}:8")
    shape = f"1x1x{int(count)}"  # slices, hosts of one, GPUs of one
    try:
        return topologies.get_topology_desc(
            platform="cuda",
            topology_name=shape,
            topology=shape,
            target_config=GPUS[chip].target(),
        ).devices
    except Exception as error:  # jax has no backend of that name, or XLA's own kinds
        raise InputError(
            f"--topology={name}: jax's plugin for CUDA is missing or fails "
            f"({first_line(error)}); pip install -r requirements/gpu.txt"
        ) from error


def compile_step(
    experiment: Experiment,
    devices: list[Any],
    batch_per_device: int,
    pca: Pca | None = None,
) -> Cost | None:
    """Compiles the step that `train` takes at the end of a run, and returns its cost.

    None: the step does not fit the devices' memory.
    """
    batch_size = batch_per_device * len(devices)
    experiment = dataclasses.replace(experiment, batch_size=batch_size)
    built = build(experiment, data_mesh(devices), pca)
    state = jax.eval_shape(built.init, experiment.seed)
    step = built.at(experiment.steps - 1)
    lowered = step.lower(state, built.shapes, experiment.seed)
    try:
        compiled = lowered.compile()
    except Exception as error:
        if OUT_OF_MEMORY in str(error):
            return None
        raise
    memory, program = compiled.memory_analysis(), Program(compiled.as_text())
    flops = program.flops()
    if devices[0].platform not in ("cpu", "tpu"):  # cuDNN's are no convolutions to it
        flops = flops_of(lowered) // len(devices)
    return Cost(
        device_kind=devices[0].device_kind,
        devices=len(devices),
        batch_per_device=batch_per_device,
        arguments=memory.argument_size_in_bytes,
        # The state is donated: its new values take the memory of the old ones.
        outputs=memory.output_size_in_bytes - memory.alias_size_in_bytes,
        temporaries=memory.temp_size_in_bytes,
        code=memory.generated_code_size_in_bytes,
        flops=flops,
        memory_bytes=program.memory_bytes(),
        collectives=program.collectives(),
        cycles=program.cycles(),
        operations=program.operations(),
    )


def fits(cost: Cost | None) -> bool:
    if cost is None:
        return False
    chip = CHIPS.get(cost.device_kind)
    return chip is None or cost.memory <= chip.memory


def check_fit(cost: Cost | None, batch_per_device: int) -> Cost:
    """Returns the cost.  InputError: the step does not fit the memory."""
    if not fits(cost):
        needed = amount(cost.memory, "B") if cost else "more than the device has"
        raise InputError(
            f"--batch_per_device={batch_per_device}: needs {needed}; lower it, look for"
            " the largest with --fit, or set config.vg_net.remat"
        )
    return cost


def largest_batch(
    experiment: Experiment, devices: list[Any], pca: Pca | None = None
) -> Cost:
    """The cost at the largest batch per device that fits, found by bisection.

    With config.virtual_batch_size only whole numbers of virtual batches are tried.
    InputError: the smallest batch does not fit, or the device's memory is not known.
    """
    chip = CHIPS.get(devices[0].device_kind)
    if chip is None:
        raise InputError(
            f"--fit: the memory of {devices[0].device_kind} is not known; give a "
            f"--topology, as {EXAMPLES}"
        )

    virtual = experiment.virtual_batch_size or 1
    smallest = virtual // math.gcd(virtual, len(devices))

    def attempt(multiple: int) -> Cost | None:
        batch = multiple * smallest
        cost = compile_step(experiment, devices, batch, pca)
        fit = fits(cost)
        print(f"batch_per_device={batch}: {'fits' if fit else 'does not fit'}")
        return cost if fit else None

    best, least = attempt(1), 1
    if best is None:
        raise InputError(
            f"--fit: {smallest} clips a device do not fit {chip.memory / 1e9:.0f} GB; "
            "lower config.data.num_frames or the networks' widths, or set "
            "config.vg_net.remat"
        )
    while (cost := attempt(2 * least)) is not None:
        best, least = cost, 2 * least
    most = 2 * least
    while most - least > 1:
        middle = (least + most) // 2
        if (cost := attempt(middle)) is not None:
            best, least = cost, middle
        else:
            most = middle
    return best


# --- the prediction ---


def predict(cost: Cost, chip: Chip) -> dict[str, float]:
    """Seconds of arithmetic, memory traffic and collectives, and of the whole step.

    An all-reduce sends 2 (n - 1) / n of its bytes over a ring of n devices, the other
    collectives half of that; each has the chip's latency once.  step: the larger of
    arithmetic and traffic, plus the collectives, although some would overlap with them.
    """
    n = cost.devices
    seconds = {
        "compute": cost.flops / chip.flops,
        "hbm": cost.memory_bytes / chip.bandwidth,
        "network": network_seconds(cost, chip, n),
    }
    return seconds | {
        "step": max(seconds["compute"], seconds["hbm"]) + seconds["network"]
    }


def network_seconds(cost: Cost, chip: Chip, devices: int) -> float:
    """Seconds that the collectives of a step take on so many devices."""
    if devices == 1:
        return 0.0
    share = (devices - 1) / devices
    return sum(
        count * chip.latency
        + (2 if kind == "all-reduce" else 1) * share * size / chip.network
        for kind, (count, size) in cost.collectives.items()
    )


def efficiency(cost: Cost, chip: Chip) -> dict[int, float]:
    """Number of chips -> predicted speed per chip, relative to a single chip."""
    seconds = predict(cost, chip)
    alone = max(seconds["compute"], seconds["hbm"])
    return {n: alone / (alone + network_seconds(cost, chip, n)) for n in CHIP_COUNTS}


def report(experiment: Experiment, cost: Cost, topology: str) -> dict[str, Any]:
    """Cost and prediction as a tree for JSON.

    prediction: None for devices whose peak in the experiment's precision chips.py does
    not know.
    """
    found = dataclasses.asdict(cost) | {"topology": topology, "memory": cost.memory}
    if known := CHIPS.get(cost.device_kind):
        found["chip"] = known._asdict()
    chip = in_precision(cost.device_kind, experiment.precision)
    if chip is None:
        return found | {"prediction": None}
    seconds = predict(cost, chip)
    rate = cost.batch_per_device * cost.devices / seconds["step"]
    clips = experiment.steps * experiment.batch_size
    prediction = seconds | {
        "bound_by": max(("compute", "hbm", "network"), key=seconds.get),
        "clips_per_second": rate,
        "compiler": cost.cycles / chip.clock,
        "efficiency": efficiency(cost, chip),
        "clips": clips,
        "hours": clips / rate / 3600,
    }
    return found | {"prediction": prediction}


def plain_text(found: dict[str, Any]) -> str:
    """The report as a table for a terminal."""
    rows = [
        ("devices", f"{found['devices']} x {found['device_kind']}"),
        ("clips a device and step", str(found["batch_per_device"])),
    ]
    for name in ("arguments", "outputs", "temporaries", "code"):
        rows.append((f"memory: {name}", amount(found[name], "B")))
    whole = amount(found["memory"], "B")
    if chip := found.get("chip"):
        share = found["memory"] / chip["memory"]
        whole += f", {share:.0%} of {amount(chip['memory'], 'B')}"
    rows.append(("memory: in all", whole))
    rows.append(("products and sums", amount(found["flops"], "FLOP")))
    rows.append(("memory traffic", amount(found["memory_bytes"], "B")))
    rows.append(("operations", f"{found['operations']:,}"))
    for kind, (count, size) in sorted(found["collectives"].items()):
        rows.append((kind, f"{count}, {amount(size, 'B')}"))
    if prediction := found["prediction"]:
        for name in ("compute", "hbm", "network", "step"):
            rows.append((f"predicted: {name}", amount(prediction[name], "s")))
        rows.append(("bound by", prediction["bound_by"]))
        if prediction["compiler"]:
            estimate = amount(prediction["compiler"], "s")
            rows.append(("the compiler's estimate", estimate))
        rows.append(("clips a second", f"{prediction['clips_per_second']:.4g}"))
        for n, share in prediction["efficiency"].items():
            rows.append((f"efficiency on {n} chips", f"{share:.1%}"))
        clips = f"{prediction['clips']:,} clips"
        rows.append(("the config's run", f"{prediction['hours']:.3g} h ({clips})"))
    elif chip:
        rows.append(("predicted: step", "no peak of products in float32 is known"))
    width = max(len(name) for name, _ in rows)
    return "\n".join(f"{name:{width}}  {value}" for name, value in rows)


def amount(x: float | int, unit: str) -> str:
    """A quantity in three digits with a prefix, as "1.5 GB" and "20 us"."""
    power = math.floor(math.log10(x) / 3) if x else 0
    power = min(max(power, -2), 4)
    prefix = ("u", "m", "", "k", "M", "G", "T")[power + 2]
    return f"{x / 1000**power:.3g} {prefix}{unit}"


def write(found: dict[str, Any], path: str | pathlib.Path) -> None:
    """Writes a report as JSON.  InputError: the file cannot be written."""
    try:
        with replacing(path) as unfinished:
            unfinished.write_text(json.dumps(found, indent=1) + "\n")
    except OSError as error:
        raise InputError(
            f"{path}: cannot be written ({error}); choose another --out"
        ) from error
