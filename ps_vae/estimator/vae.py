"""The variational autoencoder as a scikit-learn estimator."""

import hashlib
import operator
import sys
import time
from copy import copy
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from ps_vae.errors import CheckpointError, DataError, UsageError
from ps_vae.estimator.base import Base, is_fitted_or_raise, seed_of
from ps_vae.estimator.fitting import Stopping, fit
from ps_vae.estimator.model_file import read_model, write_model
from ps_vae.estimator.rows import checked_rows, numbers_of
from ps_vae.train.in_process import Progress
from ps_vae.train.plan import Wishes
from ps_vae.vae.config import family_of
from ps_vae.vae.evidence import estimate_evidence
from ps_vae.vae.inference import decode, encode, latent_of, sample_prior
from ps_vae.vae.inference import draw as draw_x
from ps_vae.vae.layout import ParameterLayout, Parameters

__all__ = ["VAE"]

_SAY_SECONDS = 2.0

Array = npt.NDArray[Any]


class VAE(Base):
    """Variational autoencoder: dense encoder and decoder, trained by `workers` processes and a parameter server.

    latent_dim          dimensions of z
    hidden              widths of the encoder's hidden layers; the decoder has the same in reverse
    activation          relu, tanh, softplus, sigmoid or identity
    likelihood          p(x|z): bernoulli for data from 0 to 1, gaussian-feature for any numbers, poisson for counts
    sigma               standard deviation of the likelihood `gaussian`
    prior               p(z): normal, uniform, mixture:K or vamp:K
    bound               what is trained: elbo, elbo:K, iwae:K, stl or dreg:K
    beta, beta_warmup   weight of the KL term, reached after so many steps
    optimizer, learning_rate, schedule
                        sgd, momentum, nesterov, adam, adagrad or rmsprop; constant, cosine, ... or stages
    epochs, batch_size  how often each row is seen, and how many make a step
    patience            milestones (epochs, or 1/20 of more than 20) in a row without a better ELBO of held-out rows
                        that end training, whose best version is kept; 0: train on all rows to the end
    validation_fraction of the rows that are held out where there is patience
    consistency         bsp (the same bits with any number of workers), ssp:N or asp
    workers             0: in this process; else so many others, and a server
    importance_samples  for each row that `score_samples` is asked for
    random_state        None, a seed, or a NumPy generator
    verbose             say on stderr how far training is

    After `fit`: n_features_in_, config_ (what was trained, and how), weights_ (float32), n_iter_ (steps that led to
    them), validation_elbo_ (of the held-out rows, in nats; None without patience).

    Computes in float32; what comes out has the dtype of what came in.
    """

    def __init__(
        self,
        latent_dim: int = 20,
        hidden: tuple[int, ...] = (400,),
        activation: str = "relu",
        likelihood: str = "bernoulli",
        sigma: float = 1.0,
        prior: str = "normal",
        bound: str = "elbo",
        beta: float = 1.0,
        beta_warmup: int = 0,
        optimizer: str = "adam",
        learning_rate: float = 1e-3,
        schedule: str = "constant",
        epochs: float = 50,
        batch_size: int = 128,
        patience: int = 0,
        validation_fraction: float = 0.1,
        consistency: str = "bsp",
        workers: int = 0,
        importance_samples: int = 100,
        random_state: Any = None,
        verbose: bool = False,
    ) -> None:
        self.latent_dim = latent_dim
        self.hidden = hidden
        self.activation = activation
        self.likelihood = likelihood
        self.sigma = sigma
        self.prior = prior
        self.bound = bound
        self.beta = beta
        self.beta_warmup = beta_warmup
        self.optimizer = optimizer
        self.learning_rate = learning_rate
        self.schedule = schedule
        self.epochs = epochs
        self.batch_size = batch_size
        self.patience = patience
        self.validation_fraction = validation_fraction
        self.consistency = consistency
        self.workers = workers
        self.importance_samples = importance_samples
        self.random_state = random_state
        self.verbose = verbose

    def fit(self, X: Any, y: Any = None) -> Self:
        """Train on X (n, features). Raises DataError where the likelihood cannot take it, NumericalError where it
        diverges; the model is then what it was before.
        """
        # Names and number of features belong to the weights, and change with them.
        new = copy(self)
        rows = checked_rows(new, X, is_new=True)
        workers = _whole("workers", self.workers)
        stopping = Stopping(_whole("patience", self.patience), float(self.validation_fraction))
        fitted = fit(_single("X", rows), self._wishes(), workers, stopping, _Teller() if self.verbose else _nothing)
        self.__dict__ = vars(new)
        self.config_, self.weights_ = fitted.config, fitted.weights
        self.n_iter_, self.validation_elbo_ = fitted.steps, fitted.validation_elbo
        return self

    def transform(self, X: Any) -> Array:
        """z of each row of X (n, features), at the posterior's mean: (n, latent_dim)."""
        parameters, rows = self._asked(X)
        return latent_of(parameters, encode(parameters, _single("X", rows)).mean).astype(rows.dtype)

    def inverse_transform(self, Z: Any) -> Array:
        """E[x|z] of each row of Z (n, latent_dim): (n, features)."""
        is_fitted_or_raise(self, "weights_")
        z = numbers_of("Z", Z)
        if not np.isfinite(z).all():
            raise DataError("Z contains NaN or infinity; give latent vectors, such as `transform` makes")
        with np.errstate(over="ignore", invalid="ignore"):
            means = decode(self._parameters, _single("Z", z))
        if not np.isfinite(means).all():
            raise DataError(
                f"Z has values of up to {np.abs(z).max():.3g}, from which the decoder makes no numbers; give latent "
                "vectors, such as `transform` makes"
            )
        return means.astype(z.dtype)

    def sample(self, n_samples: int = 1, random_state: Any = None, *, draw: bool = False) -> Array:
        """Means E[x|z] of z drawn from the prior, or with `draw` x drawn from p(x|z): (n_samples, features) float32."""
        is_fitted_or_raise(self, "weights_")
        count = _whole("n_samples", n_samples)
        if count < 1:
            raise UsageError(f"n_samples={n_samples}: give at least 1")
        seed = seed_of(random_state)
        z = sample_prior(self._parameters, count, seed=seed)
        return draw_x(self._parameters, z, seed=seed) if draw else decode(self._parameters, z)

    def score_samples(self, X: Any) -> npt.NDArray[np.float64]:
        """log p(x) of each row in nats, by importance sampling; the noise of a row follows from its values.

        Raises DataError for rows that the likelihood cannot take.
        """
        parameters, rows = self._asked(X)
        x = _single("X", rows)
        family_of(self.config_.model).check_data(x)
        names = np.array([_name(row) for row in x], dtype=np.int64)
        samples, seed = _whole("importance_samples", self.importance_samples), self.config_.seed
        return estimate_evidence(parameters, x, samples=samples, seed=seed, rows=names).log_evidence

    def score(self, X: Any, y: Any = None) -> float:
        """Mean of `score_samples`."""
        return float(self.score_samples(X).mean())

    def save(self, path: str | Path) -> None:
        """Write the trained model to one file, in the format of safetensors, with a digest of all that is in it."""
        is_fitted_or_raise(self, "weights_")
        params = self.get_params(deep=False) | {"hidden": _widths(self.hidden)}
        if not isinstance(self.random_state, int | np.integer | None):
            params["random_state"] = None
        names = getattr(self, "feature_names_in_", None)
        named = None if names is None else names.tolist()
        about = {
            "config": self.config_.to_json(),
            "params": params,
            "feature_names": named,
            "steps": self.n_iter_,
            "validation_elbo": self.validation_elbo_,
        }
        write_model(Path(path), about, ParameterLayout(self.config_.model), self.weights_)

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """What `save` has written. Raises CheckpointError where the file is something else, or damaged."""
        about, config, weights = read_model(Path(path))
        try:
            model = cls(**about["params"] | {"hidden": tuple(about["params"]["hidden"])})
            names, steps, validation_elbo = about["feature_names"], about["steps"], about["validation_elbo"]
        except (KeyError, TypeError) as error:
            raise CheckpointError(f"{path} was written by another version of ps_vae: {error!r}") from None
        model.config_, model.weights_ = config, weights
        model.n_iter_, model.validation_elbo_ = steps, validation_elbo
        model.n_features_in_ = config.model.inputs
        if names is not None:
            setattr(model, "feature_names_in_", np.array(names, dtype=object))  # noqa: B010 (scikit-learn's, if any)
        return model

    @property
    def _n_features_out(self) -> int:
        return self.config_.model.latent

    @property
    def _parameters(self) -> Parameters:
        return ParameterLayout(self.config_.model).bind(self.weights_)

    def _asked(self, X: Any) -> tuple[Parameters, Array]:
        is_fitted_or_raise(self, "weights_")
        return self._parameters, checked_rows(self, X, is_new=False)

    def _wishes(self) -> Wishes:
        return Wishes(
            hidden=_widths(self.hidden),
            latent=_whole("latent_dim", self.latent_dim),
            activation=self.activation,
            likelihood=self.likelihood,
            sigma=float(self.sigma),
            prior=self.prior,
            bound=self.bound,
            beta=float(self.beta),
            beta_warmup=_whole("beta_warmup", self.beta_warmup),
            optimizer=self.optimizer,
            learning_rate=float(self.learning_rate),
            schedule=self.schedule,
            epochs=float(self.epochs),
            batch_size=_whole("batch_size", self.batch_size),
            consistency=self.consistency,
            seed=seed_of(self.random_state),
        )


class _Teller:
    """Says on stderr, every few seconds, how far training is."""

    def __init__(self) -> None:
        self._said_at = time.monotonic()

    def __call__(self, progress: Progress) -> None:
        now = time.monotonic()
        if now - self._said_at < _SAY_SECONDS and progress.version < progress.steps:
            return
        self._said_at = now
        line = f"step {progress.version:,} of {progress.steps:,}: ELBO {progress.elbo:.3f}, KL {progress.kl:.3f}\n"
        sys.stderr.write(line)


def _nothing(progress: Progress) -> None:
    """Quiet."""


def _single(name: str, rows: Array) -> npt.NDArray[np.float32]:
    with np.errstate(over="ignore"):
        single = np.ascontiguousarray(rows, dtype=np.float32)
    if not np.isfinite(single).all():
        raise DataError(f"{name} has values beyond 3.4e38, which float32 cannot hold; scale it")
    return single


def _whole(name: str, value: Any) -> int:
    """A number of things, of Python's or NumPy's integers."""
    try:
        return operator.index(value)
    except TypeError:
        raise UsageError(f"{name}={value!r}: give a whole number") from None


def _widths(hidden: Any) -> tuple[int, ...]:
    try:
        widths = tuple(hidden)
    except TypeError:
        raise UsageError(f"hidden={hidden!r}: give a tuple of widths, such as (400,), or () for none") from None
    return tuple(_whole("hidden", width) for width in widths)


def _name(row: npt.NDArray[np.float32]) -> int:
    """A number below 2^56 that follows from the values, so that noise does not depend on where a row stands."""
    return int.from_bytes(hashlib.blake2b(row.tobytes(), digest_size=7).digest(), "little")
