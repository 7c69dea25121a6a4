"""A hostile worker program: python grabbing_worker.py ADDRESS.

What it was given it computes as it should. Before that it pushes something else as what all others were given, with its
own permit and with none, and does not mind what it is told.
"""

import sys

import numpy as np

from ps_vae.ps import client
from ps_vae.ps.actions import Compute
from ps_vae.ps.messages import Error, Push
from ps_vae.ps.outbox import Send, ShardAddress
from ps_vae.ps.worker import Worker
from ps_vae.train.arithmetic import fingerprint
from ps_vae.train.worker import Program


class GrabbingWorker(Worker):
    def handle(self, shard, message, now):
        if isinstance(message, Error) and message.code == "not-yours":
            return []
        actions = super().handle(shard, message, now)
        return [*self._grabbed(), *actions] if any(isinstance(action, Compute) for action in actions) else actions

    def _grabbed(self):
        task, welcome = self._work, self._welcome
        given = {start for start, _ in task.blocks}
        for shard, (_, start, stop) in enumerate(welcome.shards):
            for index in sorted(set(range(welcome.microbatches)) - given):
                for permit in (task.permits[0], None):
                    push = Push(
                        run=welcome.run,
                        shard=shard,
                        session=self._session,
                        ticket=task.ticket,
                        step=task.step,
                        start=index,
                        stop=index + 1,
                        version=self._held[shard],
                        metrics=(0.0, 0.0),
                        then=None,
                        payload=(np.full(stop - start, 1e3, np.float32),),
                        permit=permit,
                    )
                    yield Send(ShardAddress(shard), push)


if __name__ == "__main__":
    client.Worker = GrabbingWorker
    client.work(
        sys.argv[1],
        Program(None, lambda text: print(text, flush=True)),
        name="grabbing",
        fingerprint=fingerprint(),
        connect_timeout=60.0,
        should_stop=lambda: False,
    )
