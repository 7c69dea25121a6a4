"""The ELBO of examples that are not trained on, with one fixed noise sample a row."""

import numpy as np
import numpy.typing as npt

from ps_vae.nn.noise import Stream, standard_normal
from ps_vae.vae.inference import ElboTerms, elbo_terms
from ps_vae.vae.layout import Parameters

__all__ = ["mean_elbo", "row_terms"]


def row_terms(
    parameters: Parameters, examples: npt.NDArray[np.float32], seed: int, rows: npt.NDArray[np.int64]
) -> ElboTerms:
    """log p(x|z) and KL of each example, in nats. rows: the names of the examples, which decide their noise."""
    noise = np.empty((len(examples), parameters.config.latent), np.float32)
    standard_normal(noise, seed=seed, stream=Stream.EVALUATION, step=0, rows=rows)
    return elbo_terms(parameters, examples, noise)


def mean_elbo(
    parameters: Parameters, examples: npt.NDArray[np.float32], seed: int, rows: npt.NDArray[np.int64]
) -> dict[str, float]:
    """Means over the examples at beta = 1, in nats: elbo, reconstruction, kl."""
    terms = row_terms(parameters, examples, seed, rows)
    reconstruction, kl = float(terms.log_likelihood.mean()), float(terms.kl.mean())
    return {"elbo": reconstruction - kl, "reconstruction": reconstruction, "kl": kl}
