"""Initial weights, a pure function of the seed.

    before a relu          normal, variance 2 / fan_in                  He et al. (2015), equation 10
    before anything else   uniform in +-sqrt(6 / (fan_in + fan_out))    Glorot & Bengio (2010), equation 16

Biases are zero, except the likelihood's where the moments of the features are given: then it is what makes the mean of
p(x) that of the data (Bernoulli: the logits of the pixel means). What else the likelihood has fits the moments, too; it
is made for features of mean 0 and variance 1 where there are none. Pseudo-inputs of the prior begin as examples of the
data, or as normal samples of those moments.
"""

import math

import numpy as np
import numpy.typing as npt

from ps_vae.errors import UsageError
from ps_vae.nn.activations import ACTIVATIONS
from ps_vae.nn.arrays import Floats, Sums
from ps_vae.nn.noise import Stream, standard_normal, uniform
from ps_vae.vae.config import family_of, prior_of
from ps_vae.vae.layout import ParameterLayout

__all__ = ["initial_weights"]


def initial_weights(
    layout: ParameterLayout,
    seed: int,
    moments: tuple[Sums, Sums] | None = None,
    *,
    sets_bias: bool = True,
    examples: Floats | None = None,
) -> npt.NDArray[np.float32]:
    """A new vector (layout.size,) of initial weights; padding is zero.

    seed       the run's
    moments    means and variances of the features over the training data, (inputs,) each, if they are known
    sets_bias  whether the likelihood's bias is made of them; zero where not
    examples   of the training data, as many as the prior has pseudo-inputs, (count, width)

    Raises UsageError when the moments are not one a feature.
    """
    config = layout.config
    vector: npt.NDArray[np.float32] = layout.zeros()
    views = layout.views(vector)
    for index, tensor in enumerate(layout):
        if not tensor.is_weight:
            continue
        fan_in, fan_out = tensor.shape
        weight = views[tensor.name]
        rows = np.arange(fan_in, dtype=np.int64)
        hidden = tensor.name.startswith(("encoder.", "decoder."))
        if hidden and ACTIVATIONS[config.activation].rectifies:
            standard_normal(weight, seed=seed, stream=Stream.INITIAL, step=index, rows=rows)
            weight *= np.float32(math.sqrt(2 / fan_in))
        else:
            uniform(weight, seed=seed, stream=Stream.INITIAL, step=index, rows=rows)
            weight -= np.float32(0.5)
            weight *= np.float32(2 * math.sqrt(6 / (fan_in + fan_out)))
    means, variances = (np.zeros(config.inputs), np.ones(config.inputs)) if moments is None else moments
    if means.shape != (config.inputs,) or variances.shape != (config.inputs,):
        raise UsageError(f"means of shape {means.shape} for a model with {config.inputs} inputs")
    family = family_of(config)
    initial = family.initial(means, variances)
    if moments is not None and sets_bias:
        views["likelihood.bias"][:] = initial.bias
    for (name, _), values in zip(family.own + family.facts, initial.own, strict=True):
        views[f"likelihood.{name}"][:] = values
    prior = prior_of(config)
    index = len(layout.tensors) - len(prior.own)
    if examples is None:
        drawn = np.empty((prior.beside, config.inputs))
        rows = np.arange(prior.beside, dtype=np.int64)
        standard_normal(drawn, seed=seed, stream=Stream.INITIAL, step=index, rows=rows)
        examples = np.full((prior.beside, config.width), 1 / max(1, config.classes))
        examples[:, : config.inputs] = drawn * np.sqrt(variances) + means
    if family.to_encoder is not None:
        own = tuple(views[f"likelihood.{name}"] for name, _ in family.own + family.facts)
        seen = examples.copy()
        family.to_encoder(examples[:, : config.inputs], own, seen[:, : config.inputs])
        examples = seen
    for (name, _), start in zip(prior.own, prior.initial(seed, index, examples), strict=True):
        views[f"prior.{name}"][:] = start
    return vector
