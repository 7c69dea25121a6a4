"""The two networks of the model, run forward and backward on arrays that were made beforehand."""

from collections.abc import Container
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from ps_vae.nn.activations import ACTIVATIONS, Activation
from ps_vae.nn.arrays import Array, Sums, aligned_zeros
from ps_vae.nn.dense import dense, dense_backward
from ps_vae.nn.gaussian import bound_posterior
from ps_vae.nn.likelihoods import Likelihood
from ps_vae.vae.config import ModelConfig, family_of
from ps_vae.vae.layout import Layer, Parameters

__all__ = ["Workspace", "factors_of_layers", "run_backward", "run_decoder", "run_encoder"]


@dataclass(frozen=True)
class Workspace:
    """Every array that a pass over `rows` examples writes to. One workspace serves one pass at a time.

    batch, noise       (rows, inputs), (rows, latent): for the caller to fill, nothing here writes to them
    encoder, decoder   outputs of each layer, (rows, width); the last are the posterior (rows, 2 latent) and
                       the likelihood's parameters (rows, outputs)
    d_encoder, d_decoder
                       gradients with respect to these; the decoder's last one takes the place of its output
    slope              derivative of the bound of the log-variance, (rows, latent)
    z, d_z             (rows, latent)
    weight             (rows,) float64, ones: what each row counts
    log_likelihood, kl (rows,) float64, the terms of the last pass for each row, in nats
    """

    config: ModelConfig
    rows: int
    dtype: npt.DTypeLike = np.float32
    activation: Activation = field(init=False)
    likelihood: Likelihood = field(init=False)
    batch: Array = field(init=False)
    noise: Array = field(init=False)
    encoder: tuple[Array, ...] = field(init=False)
    d_encoder: tuple[Array, ...] = field(init=False)
    decoder: tuple[Array, ...] = field(init=False)
    d_decoder: tuple[Array, ...] = field(init=False)
    slope: Array = field(init=False)
    z: Array = field(init=False)
    d_z: Array = field(init=False)
    weight: Sums = field(init=False)
    log_likelihood: Sums = field(init=False)
    kl: Sums = field(init=False)

    def __post_init__(self) -> None:
        config = self.config
        family = family_of(config)

        def array(width: int) -> Array:
            return aligned_zeros((self.rows, width), self.dtype)

        outputs = array(family.outputs)
        encoder_widths = (*config.hidden, 2 * config.latent)
        made = {
            "activation": ACTIVATIONS[config.activation],
            "likelihood": family,
            "batch": array(config.inputs),
            "noise": array(config.latent),
            "encoder": tuple(array(width) for width in encoder_widths),
            "d_encoder": tuple(array(width) for width in encoder_widths),
            "decoder": (*(array(width) for width in reversed(config.hidden)), outputs),
            "d_decoder": (*(array(width) for width in reversed(config.hidden)), outputs),
            "slope": array(config.latent),
            "z": array(config.latent),
            "d_z": array(config.latent),
            "weight": np.ones(self.rows),
            "log_likelihood": np.zeros(self.rows),
            "kl": np.zeros(self.rows),
        }
        for name, value in made.items():
            object.__setattr__(self, name, value)


def run_encoder(parameters: Parameters, x: Array, workspace: Workspace) -> Array:
    """The posterior of each row of `x` (rows, inputs): the workspace's (rows, 2 latent), log-variance bounded."""
    _run(x, parameters.encoder, workspace.encoder, workspace.activation)
    posterior = workspace.encoder[-1]
    bound_posterior(posterior, parameters.encoder[-1].bias, workspace.slope)
    return posterior


def run_decoder(parameters: Parameters, z: Array, workspace: Workspace) -> Array:
    """The decoder's last product, without its bias, for each row of `z` (rows, latent); the workspace's array."""
    _run(z, parameters.decoder, workspace.decoder, workspace.activation)
    return workspace.decoder[-1]


def run_backward(
    inputs: Array,
    layers: tuple[Layer, ...],
    outputs: tuple[Array, ...],
    gradients: tuple[Layer, ...],
    d_outputs: tuple[Array, ...],
    activation: Activation,
    d_inputs: Array | None,
    without: Container[int] = (),
) -> None:
    """Backward through one network, whose `d_outputs[-1]` is known; the bias of the last layer is not touched.

    Overwrites the other d_outputs, all weights and other biases of `gradients`, and `d_inputs` unless it is None. The
    weights of the layers whose numbers are in `without` are left alone.
    """
    for k in reversed(range(len(layers))):
        below, d_below = (outputs[k - 1], d_outputs[k - 1]) if k else (inputs, d_inputs)
        d_weight = None if k in without else gradients[k].weight
        dense_backward(below, layers[k].weight, d_outputs[k], d_weight=d_weight, d_inputs=d_below)
        if k:
            activation.backward(d_below, below, gradients[k - 1].bias)


def factors_of_layers(workspace: Workspace) -> list[tuple[Array, Array]]:
    """After a pass over the workspace's own batch: of each layer its inputs (rows, in) and d_outputs (rows, out).

    The gradient of its weights is the product of the two. From the encoder's first layer to the likelihood's.
    """
    w = workspace
    inputs = (w.batch, *w.encoder[:-1], w.z, *w.decoder[:-1])
    return list(zip(inputs, (*w.d_encoder, *w.d_decoder), strict=True))


def _run(inputs: Array, layers: tuple[Layer, ...], outputs: tuple[Array, ...], activation: Activation) -> None:
    for layer, output in zip(layers, outputs, strict=True):
        dense(inputs, layer.weight, output)
        if layer is not layers[-1]:
            activation.forward(output, layer.bias)
        inputs = output
