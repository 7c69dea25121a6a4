"""The smallest run that has everything: 8x8 digits, one hidden layer of 8, two latent dimensions."""

import dataclasses
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt

from ps_vae.data import Dataset, load
from ps_vae.train.config import RunConfig
from ps_vae.train.plan import Wishes, plan
from ps_vae.vae.initial import initial_weights
from ps_vae.vae.layout import ParameterLayout

Floats = npt.NDArray[np.float32]

SMALL = Wishes(data="digits", hidden=(8,), latent=2, batch_size=8, microbatch=2, steps=6)


@cache
def small_data(split: str = "auto") -> Dataset:
    return load("digits", split)


def small_config(**changes: Any) -> RunConfig:
    """The small run's configuration, with other wishes in place of some."""
    wishes = dataclasses.replace(SMALL, **changes)
    return plan(wishes, small_data(wishes.split or "auto"))


def small_weights(config: RunConfig) -> Floats:
    return initial_weights(ParameterLayout(config.model), config.seed)
