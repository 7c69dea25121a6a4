"""The evaluator's program: at every milestone, the ELBO of the validation split. It only pulls."""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from ps_vae.jit import announce_compilation, start_numba
from ps_vae.ps.client import Outcome, evaluate
from ps_vae.ps.messages import Welcome
from ps_vae.ps.security.keys import ClientKeys
from ps_vae.train.arithmetic import use_one_thread
from ps_vae.train.elbo import mean_elbo
from ps_vae.train.examples import fixed_rows
from ps_vae.train.member import configuration, own_name, same_data
from ps_vae.train.processes import StopSignal
from ps_vae.train.warm_up import warm_up_elbo
from ps_vae.vae.layout import ParameterLayout

__all__ = ["evaluate_run"]

# More would take time from the workers and tell little more.
_ROWS = 2_000


def evaluate_run(
    server: str,
    *,
    connect_timeout: float,
    data: str | None,
    transport: str,
    keys: ClientKeys | None = None,
    say: Callable[[str], None],
    should_stop: StopSignal,
) -> Outcome:
    """Follow the run at `server` until it ends, reporting on up to 2,000 rows of the validation split."""
    use_one_thread()
    announce_compilation(say)
    start_numba()
    program = _Program(data, say)
    return evaluate(
        server,
        program,
        name=own_name(),
        connect_timeout=connect_timeout,
        should_stop=should_stop,
        transport=transport,
        keys=keys,
    )


class _Program:
    def __init__(self, data: str | None, say: Callable[[str], None]) -> None:
        self.say = say
        self._data = data

    def join(self, welcome: Welcome) -> npt.NDArray[np.float32]:
        config = configuration(welcome)
        data = same_data(config, self._data)
        layout = ParameterLayout(config.model)
        self._config = config
        self._count = min(_ROWS, len(data.validation))
        self._examples = fixed_rows(config, data, "validation", 0, self._count) if self._count else None
        self._weights: npt.NDArray[np.float32] = layout.zeros()
        self._parameters = layout.bind(self._weights)
        if self._count:
            warm_up_elbo(self._parameters)
        return self._weights

    def measure(self, version: int) -> dict[str, float]:
        if self._examples is None:
            return {}
        return mean_elbo(self._parameters, self._examples, self._config.seed, np.arange(self._count, dtype=np.int64))
