"""The optimisers and their learning rates."""

import sys

import jax
import optax

from jax_atvg.training.config import Optimizer


def adam(
    learning_rate: optax.ScalarOrSchedule = 2e-4, b1: float = 0.5, b2: float = 0.999
) -> optax.GradientTransformation:
    """Adam with the authors' betas, eps 1e-8 and no weight decay."""
    return optax.adam(learning_rate, b1, b2, eps=1e-8)


def make_optimizer(
    config: Optimizer, steps: int, members: int = 1
) -> optax.GradientTransformation:
    """The optimiser that a config describes.  steps: how many it will take, which the
    schedule depends on.  members: of AT-net, each of which is clipped by itself."""
    updates = max(steps // config.accumulate, 1)
    optimizer = adam(schedule(config, updates), config.b1, config.b2)
    if config.clip_norm:
        optimizer = optax.chain(clipping(config, members), optimizer)
    if config.accumulate > 1:
        optimizer = optax.MultiSteps(
            optimizer, config.accumulate
        ).gradient_transformation()
    return optimizer


def clipping(config: Optimizer, members: int = 1) -> optax.GradientTransformation:
    """Shortens a gradient to the norm config.clip_norm, if it is longer.

    members: of AT-net, stacked along the first axis of every array.  Each is shortened
    as in a run of its own: the loss is the mean of theirs, so that a member's gradient
    comes divided by their number, and so is the norm it is held against.
    """
    one = optax.clip_by_global_norm(config.clip_norm / members)
    if members == 1:
        return one

    def update(gradients, state, params=None):
        return jax.vmap(lambda own: one.update(own, state)[0])(gradients), state

    return one._replace(update=update)


def schedule(config: Optimizer, updates: int) -> optax.Schedule:
    """The function from the number of an update to its learning rate."""
    peak = config.learning_rate
    after = max(updates - config.warmup, 1)
    if config.schedule == "cosine":
        main = optax.cosine_decay_schedule(peak, after)
    elif config.schedule == "wsd":
        fall = max(after // 5, 1)
        main = optax.linear_schedule(peak, 0.0, fall, transition_begin=after - fall)
    else:
        main = optax.constant_schedule(peak)
    if not config.warmup:
        return main
    rise = optax.linear_schedule(0.0, peak, config.warmup)
    return optax.join_schedules([rise, main], [config.warmup])


def fixed_until(config: Optimizer, steps: int) -> int:
    """The first step whose learning rate depends on the number of steps in all."""
    updates = max(steps // config.accumulate, 1)
    if config.schedule == "constant":
        return sys.maxsize
    if config.schedule == "cosine":
        return config.warmup * config.accumulate
    after = max(updates - config.warmup, 1)
    return (config.warmup + after - max(after // 5, 1)) * config.accumulate
