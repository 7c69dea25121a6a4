"""A worker program with a fault that it does not see: python faulty_worker.py ADDRESS.

The last number of each gradient is not one. It is not checked here, and nobody is told.
"""

import sys

import numpy as np

from ps_vae.errors import RefusedError
from ps_vae.ps.client import work
from ps_vae.ps.messages import Trouble
from ps_vae.ps.worker import Worker
from ps_vae.train.arithmetic import fingerprint
from ps_vae.train.worker import Program


class FaultyProgram(Program):
    def compute(self, weights, step, blocks):
        results = super().compute(weights, step, blocks)
        for result in results:
            result.gradient[-17:] = np.nan
        return results


def mute(handle):
    def handled(self, shard, message, now):
        actions = handle(self, shard, message, now)
        return [action for action in actions if not isinstance(getattr(action, "message", None), Trouble)]

    return handled


if __name__ == "__main__":
    Worker.handle = mute(Worker.handle)
    program = FaultyProgram(None, lambda text: print(text, flush=True))
    try:
        work(
            sys.argv[1],
            program,
            name="faulty",
            fingerprint=fingerprint(),
            connect_timeout=60.0,
            should_stop=lambda: False,
        )
    except RefusedError as error:
        print(f"{error.code}: {error}", flush=True)
        sys.exit(3)
