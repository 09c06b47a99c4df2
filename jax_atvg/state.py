"""What a training step knows (Nets, static) and changes (State, arrays only)."""

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import Array

from jax_atvg.models.at_net import ATNet
from jax_atvg.models.discriminator import Discriminator
from jax_atvg.models.vg_net import VGNet
from jax_atvg.optim import adam


class NetState(NamedTuple):
    """One network: parameters, running statistics of its norms, optimiser state."""

    params: Any
    batch_stats: Any
    opt_state: Any

    @property
    def variables(self) -> dict[str, Any]:
        return {"params": self.params, "batch_stats": self.batch_stats}

    def apply_gradients(self, gradients, batch_stats, optimizer) -> "NetState":
        updates, opt_state = optimizer.update(gradients, self.opt_state, self.params)
        return NetState(
            optax.apply_updates(self.params, updates), batch_stats, opt_state
        )


class AtState(NamedTuple):
    step: Array
    net: NetState


class GanState(NamedTuple):
    step: Array
    gen: NetState
    disc: NetState


@dataclasses.dataclass(frozen=True)
class AtNets:
    net: ATNet = ATNet()
    optimizer: optax.GradientTransformation = adam()

    def start(self, variables) -> AtState:
        """variables: {"params", "batch_stats"} of the network."""
        return AtState(jnp.zeros((), jnp.int32), net_state(variables, self.optimizer))


@dataclasses.dataclass(frozen=True)
class GanNets:
    generator: VGNet = VGNet()
    discriminator: Discriminator = Discriminator()
    gen_optimizer: optax.GradientTransformation = adam()
    disc_optimizer: optax.GradientTransformation = adam()
    pixel_weight: float = 10.0  # lambda
    beta: float = 0.5

    def start(self, generator, discriminator) -> GanState:
        """Each: {"params", "batch_stats"} of the network."""
        return GanState(
            jnp.zeros((), jnp.int32),
            net_state(generator, self.gen_optimizer),
            net_state(discriminator, self.disc_optimizer),
        )


def net_state(variables, optimizer: optax.GradientTransformation) -> NetState:
    """A network's state before its first step."""
    variables = jax.tree.map(jnp.asarray, variables)
    return NetState(
        variables["params"],
        variables["batch_stats"],
        optimizer.init(variables["params"]),
    )
