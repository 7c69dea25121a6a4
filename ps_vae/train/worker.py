"""A worker's program: it needs the server's address, and computes what it is told to."""

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from ps_vae.data import Dataset
from ps_vae.jit import announce_compilation, start_numba
from ps_vae.lines import Line
from ps_vae.ps.actions import Result
from ps_vae.ps.blocks import Block
from ps_vae.ps.buffers import Buffers
from ps_vae.ps.client import Outcome, work
from ps_vae.ps.codecs.codec import BlockCodec, Codec
from ps_vae.ps.codecs.table import FACTORS
from ps_vae.ps.messages import Welcome
from ps_vae.ps.partition import Slice
from ps_vae.ps.security.keys import ClientKeys
from ps_vae.train.arithmetic import fingerprint, use_one_thread
from ps_vae.train.config import RunConfig
from ps_vae.train.encoding import pull_codecs, push_codecs
from ps_vae.train.form import FormOf, factored_form
from ps_vae.train.gradient import BlockGradient
from ps_vae.train.local_steps import LocalSteps, contribution
from ps_vae.train.member import configuration, own_name, same_data
from ps_vae.train.processes import StopSignal, let_others_first
from ps_vae.train.warm_up import warm_up_codecs

__all__ = ["Program", "work_for"]

Say = Callable[[str], None]
Vector = npt.NDArray[np.float32]


def work_for(
    server: str,
    *,
    connect_timeout: float,
    data: str | None,
    transport: str,
    keys: ClientKeys | None = None,
    say: Say,
    should_stop: StopSignal,
) -> Outcome:
    """Work for the run at `server` until it ends.

    data       where the run's data lie on this host, if not where they lie on the server's
    transport  how tensors travel: one of ps_vae.ps.transport.TRANSPORTS
    keys       what is shown to the servers, if anything

    Raises Unreachable, RefusedError or DataError where it cannot.
    """
    use_one_thread()
    let_others_first()
    announce_compilation(say)
    start_numba()
    program = Program(data, say)
    return work(
        server,
        program,
        name=own_name(),
        fingerprint=fingerprint(),
        connect_timeout=connect_timeout,
        should_stop=should_stop,
        transport=transport,
        keys=keys,
    )


class Program:
    """Model and data of the run that was joined: what a worker does between the messages (a WorkerProgram)."""

    def __init__(self, data: str | Dataset | None, say: Say) -> None:
        self.say = say
        self._data = data
        self._gradient: BlockGradient | LocalSteps | None = None

    def codecs(self, welcome: Welcome) -> tuple[list[BlockCodec], int]:
        config = configuration(welcome)
        return push_codecs(config, _slices(welcome)), config.seed

    def pull_codecs(self, welcome: Welcome) -> list[Codec]:
        return [pull.codec for pull in pull_codecs(configuration(welcome), _slices(welcome))]

    def join(self, welcome: Welcome, gradients: Buffers) -> None:
        config = configuration(welcome)
        form = factored_form(config, _slices(welcome)) if config.push_codec == FACTORS else None
        description = self.prepare(config, gradients, form)
        warm_up_codecs(config)
        run = welcome.run.hex()[:8]
        self.say(Line("joined", "joined run {run}: {data}", run=run, data=description))

    def prepare(self, config: RunConfig, gradients: Buffers, form: FormOf | None = None) -> str:
        """What `join` does for a run's configuration; the data in words."""
        data = same_data(config, self._data)
        self._gradient = contribution(config, data.train, gradients, form)
        # Before the first lease runs.
        self._gradient.warm_up()
        return data.description

    def compute(self, weights: Vector, step: int, blocks: Sequence[Block]) -> list[Result]:
        if self._gradient is None:
            raise RuntimeError("there is no run yet")
        return self._gradient(weights, step, blocks)


def _slices(welcome: Welcome) -> list[Slice]:
    return [Slice(start, stop) for _, start, stop in welcome.shards]
