"""Where each tensor lies in the one flat vector of parameters.

    encoder.0.weight (inputs [+ classes], width)   encoder.0.bias (width,)   encoder.1.weight ...
    posterior.weight (width, 2 latent)   posterior.bias          columns: mean, then log-variance
    decoder.0.weight (latent [+ classes], width)   decoder.0.bias ...
    likelihood.weight (width, outputs)   likelihood.bias         columns: the likelihood's parameters, in its order
    likelihood.log_variance (inputs,) ...                        what it has besides, if anything
    prior.components (K, 2 latent) ...                           what the prior has, if anything

Tensors follow one another in this order, in C order, each starting on a multiple of 16 elements (64 bytes of
float32); what lies between is zero to begin with, and nobody reads it. Gradients and optimizer states have the same
layout. Facts of the data among the tensors (`Likelihood.facts`) are never changed.
"""

from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass, field
from math import prod

import numpy as np
import numpy.typing as npt

from ps_vae.errors import UsageError
from ps_vae.nn.arrays import Array, Floats, aligned_zeros
from ps_vae.nn.likelihoods import Own
from ps_vae.vae.config import ModelConfig, family_of, prior_of

__all__ = ["Layer", "ParameterLayout", "Parameters", "Tensor"]

_ALIGNMENT = 16  # elements


@dataclass(frozen=True, slots=True)
class Tensor:
    """One named tensor: elements [offset, offset + prod(shape)) of the vector."""

    name: str
    shape: tuple[int, ...]
    offset: int

    @property
    def is_weight(self) -> bool:
        """Whether it is what a layer multiplies its inputs with."""
        return self.name.endswith(".weight")


@dataclass(frozen=True, slots=True)
class Layer:
    """weight (inputs, outputs) and bias (outputs,), views of a flat vector."""

    weight: Floats
    bias: Floats


@dataclass(frozen=True, slots=True)
class Parameters:
    """A flat vector of parameters (or of their gradient) as the layers of a model; nothing is copied.

    encoder   the hidden layers, then the one that gives the posterior
    decoder   the hidden layers, then the one that gives the likelihood's parameters
    own       what the likelihood has besides
    prior     what the prior has
    """

    config: ModelConfig
    vector: Floats
    encoder: tuple[Layer, ...]
    decoder: tuple[Layer, ...]
    own: Own
    prior: tuple[Floats, ...]


@dataclass(frozen=True)
class ParameterLayout:
    """The layout of a model's parameters; iterating gives its tensors in order of offset.

    tensors   all of them
    size      elements of the vector, padding included; a multiple of 16
    """

    config: ModelConfig
    tensors: tuple[Tensor, ...] = field(init=False)
    size: int = field(init=False)

    def __post_init__(self) -> None:
        tensors, offset = [], 0
        for name, shape in _shapes(self.config):
            tensors.append(Tensor(name, shape, offset))
            offset += -(-prod(shape) // _ALIGNMENT) * _ALIGNMENT
        object.__setattr__(self, "tensors", tuple(tensors))
        object.__setattr__(self, "size", offset)

    def __iter__(self) -> Iterator[Tensor]:
        return iter(self.tensors)

    def zeros(self, dtype: npt.DTypeLike = np.float32) -> Array:
        """A new vector of zeros that starts on a 64-byte boundary."""
        return aligned_zeros((self.size,), dtype)

    def views(self, vector: Array) -> dict[str, Array]:
        """Every tensor by name, as a view of `vector` (size,), of any dtype. Raises UsageError for another shape."""
        if vector.shape != (self.size,) or not vector.flags.c_contiguous:
            raise UsageError(
                f"a parameter vector of shape {vector.shape}: this model has {self.size} contiguous elements"
            )
        return {
            tensor.name: vector[tensor.offset : tensor.offset + prod(tensor.shape)].reshape(tensor.shape)
            for tensor in self.tensors
        }

    def facts(self) -> tuple[Tensor, ...]:
        """The tensors that nobody learns."""
        names = {f"likelihood.{name}" for name, _ in family_of(self.config).facts}
        return tuple(tensor for tensor in self.tensors if tensor.name in names)

    def bind(self, vector: Floats) -> Parameters:
        """`vector` (size,) seen as layers. Raises UsageError for another shape."""
        views = self.views(vector)

        def layers(names: list[str]) -> tuple[Layer, ...]:
            return tuple(Layer(views[f"{name}.weight"], views[f"{name}.bias"]) for name in names)

        encoder, decoder = _layer_names(self.config)
        own = tuple(views[f"likelihood.{name}"] for name, _ in _besides(self.config))
        prior = tuple(views[f"prior.{name}"] for name, _ in prior_of(self.config).own)
        return Parameters(self.config, vector, layers(encoder), layers(decoder), own, prior)

    def tensor_at(self, index: int) -> str:
        """Name of the tensor that element `index` belongs to; padding belongs to the tensor before it."""
        if not 0 <= index < self.size:
            raise UsageError(f"element {index} of a parameter vector of {self.size}")
        return self.tensors[bisect_right(self.tensors, index, key=lambda tensor: tensor.offset) - 1].name


def _layer_names(config: ModelConfig) -> tuple[list[str], list[str]]:
    depth = range(len(config.hidden))
    return [*(f"encoder.{k}" for k in depth), "posterior"], [*(f"decoder.{k}" for k in depth), "likelihood"]


def _shapes(config: ModelConfig) -> Iterator[tuple[str, tuple[int, ...]]]:
    family = family_of(config)
    encoder_widths = [config.width, *config.hidden, 2 * config.latent]
    decoder_widths = [config.latent + config.classes, *reversed(config.hidden), family.outputs]
    for names, widths in zip(_layer_names(config), (encoder_widths, decoder_widths), strict=True):
        for name, inputs, outputs in zip(names, widths, widths[1:], strict=False):
            yield f"{name}.weight", (inputs, outputs)
            yield f"{name}.bias", (outputs,)
    for name, size in _besides(config):
        yield f"likelihood.{name}", (size,)
    for name, shape in prior_of(config).own:
        yield f"prior.{name}", shape


def _besides(config: ModelConfig) -> tuple[tuple[str, int], ...]:
    family = family_of(config)
    return family.own + family.facts
