"""What a likelihood has to offer."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from ps_vae.errors import DataError
from ps_vae.nn.arrays import Array, Floats, Rows, Sums
from ps_vae.nn.likelihoods.fault import Fault

__all__ = ["Initial", "Likelihood", "Own", "Sampler", "without_own"]

Own = tuple[Floats, ...]
"""What a likelihood has beside the decoder's outputs, or the gradient: an array for each of its `own` and `facts`."""


class Initial(NamedTuple):
    """Values to begin with: of the bias (outputs,), and of each of `own` and `facts`; all float64."""

    bias: Sums
    own: tuple[Sums, ...] = ()


class Sampler(Protocol):
    """How samples are drawn: see `Likelihood.sample`."""

    def __call__(self, outputs: Floats, bias: Floats, own: Own, *, seed: int, step: int, rows: Rows) -> Floats:
        """Draw one x a row."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Likelihood:
    """A family of distributions of x whose parameters are the decoder's outputs plus a bias, and numbers of its own.

    outputs is always (rows, `outputs`), the decoder's last product without its bias, float32 or float64, C order; its
    columns are all features of the first parameter, then all of the second, and so on. x is (n, features), C order, and
    row i of outputs belongs to x[i % n].

    features        of an x
    outputs         decoder outputs of an x
    own             names and sizes of the parameters that are learned and do not depend on z
    facts           the same of numbers that `initial` takes from the data and nobody learns: their gradient is zero
    loss_gradient(outputs, bias, own, x, weight, log_likelihood, d_bias, d_own) -> float
                    outputs become the gradient of -sum over rows of weight log p(x|z) with respect to them, in place;
                    weight (rows,) float64; log_likelihood (rows,) float64, d_bias like bias and d_own like own are
                    overwritten; returns the sum of log_likelihood, in nats, without weights
    log_likelihood(outputs, bias, own, x, log_likelihood)
                    only log p(x|z) for each row; outputs are left as they are
    mean(outputs, bias, own) -> (rows, features)
                    E[x|z]; may overwrite outputs
    sample(outputs, bias, own, *, seed, step, rows) -> (rows, features)
                    x drawn from p(x|z) with the noise of stream OBSERVATION; may overwrite outputs
    fault(data)
                    the first row of data (rows, features) that cannot be an x, and why; None: every row can
    initial(means, variances)
                    of the features of the data, (features,) float64: the bias with which the mean of p(x) is that of
                    the data, and own parameters that fit them
    to_encoder(x, own, out)
                    overwrite out with what the encoder sees of x; None: x itself
    """

    name: str
    features: int
    outputs: int
    own: tuple[tuple[str, int], ...] = ()
    facts: tuple[tuple[str, int], ...] = ()
    loss_gradient: Callable[..., float]
    log_likelihood: Callable[..., None]
    mean: Callable[[Floats, Floats, Own], Floats]
    sample: Sampler
    fault: Callable[[Array], Fault | None]
    initial: Callable[[Sums, Sums], Initial]
    to_encoder: Callable[[Floats, Own, Floats], None] | None = None

    def check_data(self, data: Array) -> None:
        """Raise DataError unless every row of data (rows, features) can be an x."""
        if (fault := self.fault(data)) is not None:
            raise DataError(fault.text())


def without_own(
    loss_gradient: Callable[..., float], log_likelihood: Callable[..., None]
) -> tuple[Callable[..., float], Callable[..., None]]:
    """Kernels of a likelihood that has nothing beside the decoder's outputs, as its functions of these names."""

    def loss_gradient_of(
        outputs: Floats, bias: Floats, own: Own, x: Floats, weight: Sums, log_p: Sums, d_bias: Floats, d_own: Own
    ) -> float:
        return loss_gradient(outputs, bias, x, weight, log_p, d_bias)

    def log_likelihood_of(outputs: Floats, bias: Floats, own: Own, x: Floats, log_p: Sums) -> None:
        log_likelihood(outputs, bias, x, log_p)

    return loss_gradient_of, log_likelihood_of
