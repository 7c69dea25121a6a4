"""Runs with an aggregation, and what a hostile worker does in them: it lies, and pushes what others were given."""

import dataclasses
import functools

import numpy as np

from .gradients import chaotic_gradient, small_step
from .world import World

MICROBATCHES = 10
SIZE = 96

GRABS = {
    "with a permit of its own": lambda push: push,
    "with none": lambda push: dataclasses.replace(push, permit=None),
    "with one that is made up": lambda push: dataclasses.replace(push, permit=bytes(range(16))),
    "in another's name": lambda push: dataclasses.replace(push, session=b"worker-0.0".ljust(16)),
    "under another ticket": lambda push: dataclasses.replace(push, ticket=push.ticket + 1),
    "in a later step": lambda push: dataclasses.replace(push, step=push.step + 1),
}


def grabbing_world(grabs, **options):
    """Four honest workers, and one that lies, and pushes all that the others were given before they do."""
    options = {"steps": 60, "gradient": toward_one, "update": descend, "shards": 2, **options}
    world = robust_world(workers=4, awaited=5, **options)
    hostile = world.add_worker()
    hostile.spoils, hostile.grabs = lie, grabs
    return world


def robust_world(aggregate="median", **options):
    options = {"gradient": chaotic_gradient, "update": small_step, **options}
    return World(size=SIZE, microbatches=MICROBATCHES, aggregate=aggregate, checked=True, **options)


def toward_one(weights, step, index):
    """Of a bowl around 1, with a little noise."""
    noise = np.random.default_rng([step, index]).standard_normal(weights.size).astype(np.float32)
    return weights - np.float32(1.0) + np.float32(0.1) * noise


def descend(weights, parts, state, moment, out):
    np.subtract(weights, np.float32(0.3 / MICROBATCHES) * functools.reduce(np.add, parts), out=out)


def lie(gradient, step, index):
    return np.full_like(gradient, -1e6)
