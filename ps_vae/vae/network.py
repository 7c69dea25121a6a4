"""The two networks of the model, run forward and backward on arrays that were made beforehand."""

from collections.abc import Container, Iterable
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from ps_vae.nn.activations import ACTIVATIONS, Activation
from ps_vae.nn.arrays import Array, Sums, aligned_zeros
from ps_vae.nn.dense import dense, dense_backward
from ps_vae.nn.gaussian import bound_posterior
from ps_vae.nn.likelihoods import Likelihood
from ps_vae.vae.config import ModelConfig, family_of, prior_of
from ps_vae.vae.layout import Layer, Parameters
from ps_vae.vae.priors import Prior, PriorTerms

__all__ = ["Workspace", "factors_of_layers", "run_backward", "run_decoder", "run_encoder"]


@dataclass(frozen=True)
class Workspace:
    """Every array that a pass over `rows` examples writes to. One workspace serves one pass at a time.

    Of each example `samples` z are drawn, and what belongs to them has samples * rows rows, below called "drawn". The
    encoder sees `encoded` rows: the examples, and where `trains` those of the prior that are encoded beside them. A row
    has `width` numbers: its features, and one for each class that the model is conditioned on.

    batch              (rows, width), the examples: for the caller to fill, nothing here writes to them
    inputs             (encoded, width), what the encoder sees; its first rows are `batch` where that sees it as it is
    noise              (rows, samples * latent), for the caller to fill
    encoder, decoder   outputs of each layer, (encoded, width) and (drawn, width); the last are the posterior
                       (encoded, 2 latent) and the likelihood's parameters (drawn, outputs)
    d_encoder, d_decoder
                       gradients with respect to these; the decoder's last one takes the place of its output
    slope              derivative of the bound of the log-variance, (encoded, latent)
    terms              the prior's part of the pass
    u, mapped, d_z     (drawn, latent); `mapped` is z, and u itself where the prior has no map between them
    z, d_decoded       (drawn, latent + classes), what the decoder sees; `mapped` and d_z where there are no classes
    weight             (drawn,) float64, 1 / samples: what each counts
    log_likelihood     (drawn,) float64, log p(x|z) of the last pass, in nats
    log_prior, log_weight
                       (drawn,) float64, log p(u) and the logarithm of the importance weights, if the pass had any
    kl                 (rows,) float64, the divergence of the last pass
    """

    config: ModelConfig
    rows: int
    dtype: npt.DTypeLike = np.float32
    samples: int = 1
    trains: bool = False
    activation: Activation = field(init=False)
    likelihood: Likelihood = field(init=False)
    prior: Prior = field(init=False)
    terms: PriorTerms = field(init=False)
    inputs: Array = field(init=False)
    batch: Array = field(init=False)
    noise: Array = field(init=False)
    encoder: tuple[Array, ...] = field(init=False)
    d_encoder: tuple[Array, ...] = field(init=False)
    decoder: tuple[Array, ...] = field(init=False)
    d_decoder: tuple[Array, ...] = field(init=False)
    slope: Array = field(init=False)
    u: Array = field(init=False)
    mapped: Array = field(init=False)
    z: Array = field(init=False)
    d_z: Array = field(init=False)
    d_decoded: Array = field(init=False)
    weight: Sums = field(init=False)
    log_likelihood: Sums = field(init=False)
    log_prior: Sums = field(init=False)
    log_weight: Sums = field(init=False)
    kl: Sums = field(init=False)

    def __post_init__(self) -> None:
        config = self.config
        family, prior = family_of(config), prior_of(config)
        drawn = self.samples * self.rows
        encoded = self.rows + (prior.beside if self.trains else 0)

        def arrays(rows: int, widths: Iterable[int]) -> tuple[Array, ...]:
            return tuple(aligned_zeros((rows, width), self.dtype) for width in widths)

        (outputs,) = arrays(drawn, [family.outputs])
        inputs, slope = arrays(encoded, [config.width, config.latent])
        u, d_z = arrays(drawn, 2 * [config.latent])
        mapped = u if prior.to_z is None else np.zeros_like(u)
        z, d_decoded = (mapped, d_z) if not config.classes else arrays(drawn, 2 * [config.latent + config.classes])
        batch = inputs[: self.rows] if family.to_encoder is None else np.zeros_like(inputs[: self.rows])
        encoder_widths, decoder_widths = (*config.hidden, 2 * config.latent), config.hidden[::-1]
        encoder, d_encoder = arrays(encoded, encoder_widths), arrays(encoded, encoder_widths)
        made = {
            "activation": ACTIVATIONS[config.activation],
            "likelihood": family,
            "prior": prior,
            "terms": prior.terms(self.dtype, encoder[-1][self.rows :], d_encoder[-1][self.rows :]),
            "inputs": inputs,
            "batch": batch,
            "noise": aligned_zeros((self.rows, self.samples * config.latent), self.dtype),
            "encoder": encoder,
            "d_encoder": d_encoder,
            "decoder": (*arrays(drawn, decoder_widths), outputs),
            "d_decoder": (*arrays(drawn, decoder_widths), outputs),
            "slope": slope,
            "u": u,
            "mapped": mapped,
            "z": z,
            "d_z": d_z,
            "d_decoded": d_decoded,
            "weight": np.full(drawn, 1 / self.samples),
            "log_likelihood": np.zeros(drawn),
            "log_prior": np.zeros(drawn),
            "log_weight": np.zeros(drawn),
            "kl": np.zeros(self.rows),
        }
        for name, value in made.items():
            object.__setattr__(self, name, value)


def run_encoder(parameters: Parameters, x: Array, workspace: Workspace) -> Array:
    """The posterior of each row of `x` (encoded, width): the workspace's (encoded, 2 latent), log-variance bounded."""
    _run(x, parameters.encoder, workspace.encoder, workspace.activation)
    posterior = workspace.encoder[-1]
    bound_posterior(posterior, parameters.encoder[-1].bias, workspace.slope)
    return posterior


def run_decoder(parameters: Parameters, z: Array, workspace: Workspace) -> Array:
    """The decoder's last product, without its bias, for each row of `z` (drawn, latent + classes); the workspace's."""
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
    inputs = (w.inputs, *w.encoder[:-1], w.z, *w.decoder[:-1])
    return list(zip(inputs, (*w.d_encoder, *w.d_decoder), strict=True))


def _run(inputs: Array, layers: tuple[Layer, ...], outputs: tuple[Array, ...], activation: Activation) -> None:
    for layer, output in zip(layers, outputs, strict=True):
        dense(inputs, layer.weight, output)
        if layer is not layers[-1]:
            activation.forward(output, layer.bias)
        inputs = output
