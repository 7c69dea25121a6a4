"""What an update rule is: names, numbers and one function over a slice of the flat parameter vector.

An `Optimizer` is plain data. It holds no weights and no state: the shard that owns a slice owns both. Every rule works
element by element in float32, in the order written (`exact_kernel`), so the bits of an element do not depend on where
in a slice it stands, and the same run gives the same bits on one shard or on four. The padding between tensors, where
weight, gradient and state are zero, stays zero.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ps_vae.errors import DataError
from ps_vae.jit import exact_kernel

__all__ = ["Coefficients", "Optimizer", "State", "Vector", "before", "mean_gradient"]

Vector = npt.NDArray[np.float32]
State = Mapping[str, Vector]

# (rate, step, hyperparameters) -> the scalars of one step, computed in float64, passed to the kernel as float32
Coefficients = Callable[[float, int, Mapping[str, float]], tuple[float, ...]]


@dataclass(frozen=True, slots=True)
class Optimizer:
    """An update rule with its hyper-parameters; the learning rate is not one of them, a schedule gives it.

    name             the word in the table `OPTIMIZERS`
    state_names      one float32 vector of the slice's length each, zero at the start
    hyperparameters  name -> value
    coefficients     what is the same for all parameters in a step, in the order of the kernel's last arguments
    kernel           kernel(weights, gradient, addend, is_pair, scale, out, *state, *coefficients): the arithmetic, with
                     `before` and `mean_gradient` of the first few; weights None: they are in `out`
    """

    name: str
    state_names: tuple[str, ...]
    hyperparameters: Mapping[str, float]
    coefficients: Coefficients
    kernel: Callable[..., None]

    def initial_state(self, size: int) -> dict[str, Vector]:
        """The state before step 0 for a slice of `size` parameters."""
        return {name: np.zeros(size, np.float32) for name in self.state_names}

    def update(
        self,
        weights: Vector,
        gradient: Vector,
        scale: float,
        state: State,
        rate: float,
        step: int,
        out: Vector,
        addend: Vector | None = None,
    ) -> None:
        """Write the weights of version `step + 1` to `out`; allocates no array.

        weights   (size,) float32, version `step`; read only. May be `out` itself
        gradient  (size,) float32, the sum over examples; read only
        addend    (size,) float32, added to the gradient on the way: the last addition of a sum takes no pass
        scale     1 / examples in the sum
        state     `state_names` -> (size,) float32, overwritten with the state after the step
        rate      learning rate of this step
        step      counted from 0
        out       (size,) float32, overwritten

        All vectors are contiguous. Raises DataError for one that is not as said: compiled code does not look again.
        """
        _check("out", out, out.size)
        _check("weights", weights, out.size)
        _check("gradient", gradient, out.size)
        if addend is not None:
            _check("addend", addend, out.size)
        if len(state) != len(self.state_names) or any(name not in state for name in self.state_names):
            raise DataError(
                f"the state of {self.name} consists of {list(self.state_names)}, not of {list(state)}; "
                "was it saved by another optimizer?"
            )
        for name in self.state_names:
            _check(name, state[name], out.size)
        scalars = self.coefficients(rate, step, self.hyperparameters)
        self.kernel(
            None if weights is out else weights,
            gradient,
            gradient if addend is None else addend,
            addend is not None,
            np.float32(scale),
            out,
            *(state[name] for name in self.state_names),
            *(np.float32(scalar) for scalar in scalars),
        )


@exact_kernel
def before(weights: Any, out: Any, i: int) -> Any:
    """Weight `i` as it was, for use inside kernels.

    A kernel that got `out` under two names would have to expect each store to change what it reads next: five times
    slower. None among the types of its arguments makes it another kernel, in which there is one array.
    """
    if weights is None:
        return out[i]
    else:
        return weights[i]


@exact_kernel
def mean_gradient(gradient: Any, addend: Any, is_pair: bool, scale: Any, i: int) -> Any:
    """Element `i` of scale * gradient, or of scale * (gradient + addend), for use inside kernels."""
    return (gradient[i] + addend[i] if is_pair else gradient[i]) * scale


def _check(name: str, vector: Vector, size: int) -> None:
    if vector.dtype != np.float32 or vector.shape != (size,) or not vector.flags.c_contiguous:
        raise DataError(
            f"{name} is {vector.dtype} {vector.shape} with strides {vector.strides}; "
            f"an update needs contiguous float32 of shape ({size},)"
        )
