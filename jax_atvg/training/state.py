"""What a training step knows (Nets, static) and changes (State, arrays only)."""

import dataclasses
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from jax import Array

from input_pipeline.clip import Pca
from jax_atvg.models.at_net import ATNet
from jax_atvg.models.discriminator import Discriminator
from jax_atvg.models.vg_net import VGNet
from jax_atvg.training.config import AtLoss, GanLoss
from jax_atvg.training.optim import adam


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
    """ema: the generator's averaged parameters, or None."""

    step: Array
    gen: NetState
    disc: NetState
    ema: Any = None


@dataclasses.dataclass(frozen=True)
class AtNets:
    """pca: what the loss on landmarks needs."""

    net: ATNet = ATNet()
    optimizer: optax.GradientTransformation = adam()
    loss: AtLoss = dataclasses.field(default_factory=AtLoss)
    pca: Pca | None = None
    compute: str = "float32"

    def start(self, variables) -> AtState:
        """variables: {"params", "batch_stats"} of the network."""
        return AtState(jnp.zeros((), jnp.int32), net_state(variables, self.optimizer))


@dataclasses.dataclass(frozen=True)
class GanNets:
    """ema: decay of the averaged generator, 0 for none."""

    generator: VGNet = VGNet()
    discriminator: Discriminator = Discriminator()
    gen_optimizer: optax.GradientTransformation = adam()
    disc_optimizer: optax.GradientTransformation = adam()
    loss: GanLoss = dataclasses.field(default_factory=GanLoss)
    ema: float = 0.0
    compute: str = "float32"

    def start(self, generator, discriminator) -> GanState:
        """Each: {"params", "batch_stats"} of the network."""
        gen = net_state(generator, self.gen_optimizer)
        return GanState(
            jnp.zeros((), jnp.int32),
            gen,
            net_state(discriminator, self.disc_optimizer),
            # A copy: a donated state must not hold a buffer twice.
            jax.tree.map(jnp.copy, gen.params) if self.ema else None,
        )


def net_state(variables, optimizer: optax.GradientTransformation) -> NetState:
    """A network's state before its first step."""
    variables = jax.tree.map(jnp.asarray, variables)
    return NetState(
        variables["params"],
        variables["batch_stats"],
        optimizer.init(variables["params"]),
    )


def run(
    net: nn.Module,
    params,
    batch_stats,
    *inputs,
    compute: str = "float32",
    dropout: Array | None = None,
):
    """A network in training: (its output, new running statistics), all in float32.

    compute: what it calculates in; parameters and statistics stay as they are.
    """
    low = compute != "float32"

    def cast(tree, dtype):
        return jax.tree.map(lambda x: x.astype(dtype), tree) if low else tree

    output, moved = net.apply(
        {"params": cast(params, compute), "batch_stats": batch_stats},
        *cast(inputs, compute),
        train=True,
        mutable=["batch_stats"],
        rngs=None if dropout is None else {"dropout": dropout},
    )
    return cast(output, jnp.float32), cast(moved["batch_stats"], jnp.float32)
