"""How arrays are placed on devices: batches are split, everything else is replicated.

There is one mesh over all devices of all processes, with the single axis "data".
"""

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from input_pipeline.clip import InputError


def data_mesh(devices=None) -> Mesh:
    """A mesh of the given devices, or of all of them, along the axis "data"."""
    return Mesh(np.array(jax.devices() if devices is None else devices), ("data",))


def replicated(mesh: Mesh) -> NamedSharding:
    """Every device holds the whole array."""
    return NamedSharding(mesh, PartitionSpec())


def split(mesh: Mesh) -> NamedSharding:
    """The first axis of the array is split over all devices."""
    return NamedSharding(mesh, PartitionSpec("data"))


def split_evenly(mesh: Mesh, shape: tuple[int, ...]) -> NamedSharding:
    """The longest axis that the number of devices divides is split over all devices;
    an array without such an axis is replicated."""
    axes = [i for i, n in enumerate(shape) if n and n % mesh.size == 0]
    if not axes:
        return replicated(mesh)
    axis = max(axes, key=lambda i: shape[i])
    return NamedSharding(mesh, PartitionSpec(*(None,) * axis, "data"))


def check_batch_size(batch_size: int, mesh: Mesh) -> None:
    """Checks that the batch can be split evenly over the devices.

    InputError: it cannot; the message names the nearest sizes that can.
    """
    if batch_size % mesh.size:
        less = batch_size - batch_size % mesh.size
        nearest = [n for n in (less, less + mesh.size) if n]
        raise InputError(
            f"config.batch_size={batch_size} must divide by {mesh.size} devices; try "
            f"{' or '.join(map(str, nearest))}"
        )


def to_devices(batch, mesh: Mesh):
    """Makes global arrays from this process's rows of a batch of numpy arrays; arrays
    that are on devices already stay there."""

    def place(x):
        if isinstance(x, jax.Array):
            return x
        return jax.make_array_from_process_local_data(split(mesh), x)

    return jax.tree.map(place, batch)


def on_one_device(tree):
    """What this process's first device holds of global arrays, without a copy.

    A program of this process alone can take it; of global arrays it cannot, where
    other processes hold parts of them.
    """
    return jax.tree.map(
        lambda x: x.addressable_data(0) if isinstance(x, jax.Array) else x, tree
    )
