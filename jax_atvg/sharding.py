"""One mesh over all devices of all processes; batches split, the rest on every one."""

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from input_pipeline.clip import InputError


def data_mesh(devices=None) -> Mesh:
    """All devices, along the one axis "data"."""
    return Mesh(np.array(jax.devices() if devices is None else devices), ("data",))


def replicated(mesh: Mesh) -> NamedSharding:
    return NamedSharding(mesh, PartitionSpec())


def split(mesh: Mesh) -> NamedSharding:
    """The first axis over all devices."""
    return NamedSharding(mesh, PartitionSpec("data"))


def split_evenly(mesh: Mesh, shape: tuple[int, ...]) -> NamedSharding:
    """The longest axis that divides by the devices, over all of them; on every one
    where there is none."""
    axes = [i for i, n in enumerate(shape) if n and n % mesh.size == 0]
    if not axes:
        return replicated(mesh)
    axis = max(axes, key=lambda i: shape[i])
    return NamedSharding(mesh, PartitionSpec(*(None,) * axis, "data"))


def check_batch_size(batch_size: int, mesh: Mesh) -> None:
    """InputError, with the nearest sizes that work, unless the devices share evenly."""
    if batch_size % mesh.size:
        less = batch_size - batch_size % mesh.size
        nearest = [n for n in (less, less + mesh.size) if n]
        raise InputError(
            f"config.batch_size={batch_size} must divide by {mesh.size} devices; try "
            f"{' or '.join(map(str, nearest))}"
        )


def to_devices(batch, mesh: Mesh):
    """This process's rows of a batch of numpy arrays -> global arrays."""
    return jax.tree.map(
        lambda x: jax.make_array_from_process_local_data(split(mesh), x), batch
    )
