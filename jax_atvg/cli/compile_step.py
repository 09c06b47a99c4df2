"""What a training step costs on a machine that is not here: memory, traffic, time.

    python main.py compile --config=vg_lrw --config.precision=bfloat16 \\
        --topology=v5e:2x2 --batch_per_device=8

Compiled for a TPU slice without a TPU (pip install -r requirements/tpu.txt), or for
GPUs without one (--topology=h100:8; pip install -r requirements/gpu.txt); minutes for
networks of the original's size.
"""

from jax_atvg.cli.console import say, say_what_runs, tell_compilations
from jax_atvg.cli.flags import Flags, Given


def flags(add: Flags) -> None:
    add.config("The experiment, as for `train`.")
    add.text(
        "topology",
        "A TPU slice, as v5e:16x16, or GPUs, as h100:8; the devices that are here "
        "unless given.",
        "",
        kind="CHIP:SHAPE",
    )
    add.number(
        "batch_per_device",
        "Clips a step and device.",
        0,
        least=0,
        shown="the config's batch_size over all",
    )
    add.switch("fit", "Find the largest batch that fits.")
    add.path("out", "What to write, as JSON.", "compile.json")


def run(given: Given) -> int:
    from jax_atvg.cli.machine import (
        enlarge_stack,
        pretend_tpu_host,
        set_up_jax,
    )
    from jax_atvg.training.config import validate

    validate(given.config)
    if given.topology:
        enlarge_stack()
        pretend_tpu_host()
    set_up_jax()
    from input_pipeline.training_data import synthetic
    from jax_atvg.ahead_of_time import cost as costs

    experiment = given.config
    devices = costs.topology_devices(given.topology)
    say_what_runs(devices)
    tell_compilations()
    say("compiling the step, which takes minutes for networks of the original's size")
    # Only its size matters here, and not whose faces it is of.
    pca = synthetic.SyntheticClips(4, 32).pca(experiment.data.num_coefficients)
    if given.fit:
        cost = costs.largest_batch(experiment, devices, pca)
    else:
        batch = given.batch_per_device or -(-experiment.batch_size // len(devices))
        cost = costs.compile_step(experiment, devices, batch, pca)
        cost = costs.check_fit(cost, batch)
    found = costs.report(experiment, cost, given.topology)
    print(costs.plain_text(found))
    costs.write(found, given.out)
    print(f"wrote {given.out}")
    return 0
