"""The worker's loop between its state machine and its arrays."""

import dataclasses
import weakref

import numpy as np

from ps_vae.ps.client import _Work
from ps_vae.ps.messages import Error, Ready, Weights, Welcome, Work
from ps_vae.ps.worker import Worker

SIZE = 48
WELCOME = Welcome(b"s" * 16, b"r" * 16, b"{}", (("a", 0, SIZE),), 4, 100, 0, 0, 0, 0, 0)


class Links:
    """Connections on which what is in `come` has come."""

    def __init__(self):
        self.come = []
        self.gone = []

    def messages(self):
        come, self.come = self.come, []
        return [(0 if message.KIND == "weights" else None, message) for message in come]

    def send(self, sends):
        self.gone += [send.message for send in sends]
        return []

    def open_shards(self, addresses):
        pass


class Program:
    """Remembers what it computed on."""

    def codecs(self, welcome):
        return [], 0

    def pull_codecs(self, welcome):
        return []

    def join(self, welcome, gradients):
        self.seen = []

    def compute(self, weights, step, blocks):
        self.seen.append((id(weights), weights.tolist()))
        return []

    def say(self, text):
        pass


def test_a_worker_without_work_gives_back_the_servers_memory_and_computes_on_the_same_weights_later():
    links, program, session = Links(), Program(), Worker(b"s" * 16, "w", "f")
    state = _Work(session, program, links, "tcp")
    state.perform(session.start(0.0))
    lent = np.arange(SIZE, dtype=np.float32)
    links.come = [WELCOME, Work(1, 0, ((0, 1),)), Weights(0, False, None, (lent,))]
    state.take_messages()
    expected, reader = lent.tolist(), weakref.ref(lent)
    assert program.seen == [(id(lent), expected)]
    del lent
    assert session.state == "idle"
    assert reader() is not None

    state.take_messages()
    assert reader() is None

    # Of the same step: somebody else's work was lost.
    links.come = [Work(2, 0, ((1, 2),))]
    state.take_messages()
    assert [weights for _, weights in program.seen] == [expected, expected]


def test_the_time_between_two_runs_is_no_waiting_for_work():
    links, session = Links(), Worker(b"s" * 16, "w", "f")
    state = _Work(session, Program(), links, "tcp")
    state.perform(session.start(0.0))
    weights = np.zeros(SIZE, np.float32)
    for run in (b"one".ljust(16), b"another".ljust(16)):
        links.come = [dataclasses.replace(WELCOME, run=run), Work(1, 0, ((0, 1),)), Weights(0, False, None, (weights,))]
        state.take_messages()
        links.come = [Error("wrong-run", "the servers were started again")]
        state.take_messages()

    done = [message for message in links.gone if isinstance(message, Ready) and message.ticket]
    assert [ready.waiting for ready in done] == [0, 0]
