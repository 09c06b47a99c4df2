"""What a training step knows (Nets: static) and what it changes (State: arrays)."""

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
from jax_atvg.models.mouth_discriminator import MouthDiscriminator
from jax_atvg.models.precision import cast
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
    """step: i32[], how many steps were taken.  net: AT-net."""

    step: Array
    net: NetState


class VgState(NamedTuple):
    """vg: VG-net, the generator.  disc: its discriminator.  mouth: the discriminator of
    mouths, if there is one."""

    step: Array
    vg: NetState
    disc: NetState
    mouth: NetState | None = None


# Names in checkpoints that are older than the fields' names: runs of before resume.
STORED_AS = {"vg": "gen"}


def to_stored(state: AtState | VgState) -> dict[str, Any]:
    """The tree that checkpoints hold, in the names of the first versions."""
    tree = {STORED_AS.get(k, k): v for k, v in state._asdict().items()}
    if isinstance(state, AtState):
        return tree
    if state.mouth is None:
        del tree["mouth"]
    return tree | {"ema": None}


def from_stored(tree: dict[str, Any]) -> AtState | VgState:
    """The inverse of to_stored."""
    kind = AtState if "net" in tree else VgState
    names = {name: STORED_AS.get(name, name) for name in kind._fields}
    return kind(**{k: tree[name] for k, name in names.items() if name in tree})


@dataclasses.dataclass(frozen=True)
class AtNets:
    """AT-net, its optimiser and loss.  pca: needed by the loss on landmarks.
    precision: see models/precision.py."""

    net: ATNet = ATNet()
    optimizer: optax.GradientTransformation = adam()
    loss: AtLoss = dataclasses.field(default_factory=AtLoss)
    pca: Pca | None = None
    precision: str = "default"

    def start(self, variables) -> AtState:
        """variables: {"params", "batch_stats"} of the network."""
        return AtState(jnp.zeros((), jnp.int32), net_state(variables, self.optimizer))


@dataclasses.dataclass(frozen=True)
class VgNets:
    """VG-net, its discriminators, their optimisers and loss.  precision: see
    models/precision.py.  disc_optimizer: of both discriminators; each has a state of
    its own."""

    vg_net: VGNet = VGNet()
    discriminator: Discriminator = Discriminator()
    vg_optimizer: optax.GradientTransformation = adam()
    disc_optimizer: optax.GradientTransformation = adam()
    loss: GanLoss = dataclasses.field(default_factory=GanLoss)
    precision: str = "default"
    mouth_discriminator: MouthDiscriminator = MouthDiscriminator()

    def start(self, vg_net, discriminator, mouth_discriminator=None) -> VgState:
        """Each: {"params", "batch_stats"} of the network."""
        mouth = mouth_discriminator
        return VgState(
            jnp.zeros((), jnp.int32),
            net_state(vg_net, self.vg_optimizer),
            net_state(discriminator, self.disc_optimizer),
            mouth and net_state(mouth, self.disc_optimizer),
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
    precision: str = "default",
    dropout: Array | None = None,
):
    """Applies a network in training mode: (its output, new running statistics), both in
    float32.

    precision: see models/precision.py, for what "highest" also takes.
    dropout: the key of the dropout masks, for networks that have them.
    """
    output, moved = net.apply(
        {"params": cast(params, precision), "batch_stats": batch_stats},
        *inputs,
        train=True,
        mutable=["batch_stats"],
        rngs=None if dropout is None else {"dropout": dropout},
    )
    if precision == "bfloat16":
        output, moved = jax.tree.map(lambda x: x.astype(jnp.float32), (output, moved))
    return output, moved["batch_stats"]
