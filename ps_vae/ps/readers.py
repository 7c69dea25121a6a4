"""Who wants which versions of a slice, and what each gets: at once, or when it is published."""

from ps_vae.ps.lag import Lag
from ps_vae.ps.outbox import Output, Send, Sender
from ps_vae.ps.publication import Want
from ps_vae.ps.traffic import Traffic
from ps_vae.ps.trained_slice import TrainedSlice
from ps_vae.ps.waiting import Waiting

__all__ = ["Readers"]


class Readers:
    """Those who read one slice.

    delay    of the run, in steps
    traffic  where is counted what the answers had been as plain tensors
    lag      of the pushes that follow on what was read
    """

    def __init__(self, held: TrainedSlice, delay: int, traffic: Traffic) -> None:
        self.lag = Lag()
        self._slice = held
        self._traffic = traffic
        self._waiting = Waiting(delay)

    def answer(self, sender: Sender, want: Want) -> list[Output] | None:
        """The newest published version wanted; nothing yet where it is to come; None where it is gone."""
        if (found := self._slice.published.find(want)) is not None:
            self._waiting.remove(sender, want)
            if want.held is not None:
                # The first weights of a worker, and evaluators', are sent as they are in any case.
                self._traffic.dense += 4 * self._slice.size
            self.lag.weights_sent(sender, self._slice.updates)
            return [Send(sender, found)]
        if want.versions.high is not None and want.versions.high <= self._slice.version:
            return None
        self._waiting.add(sender, want)
        return []

    def answers(self) -> list[Output]:
        """What those get who have waited for what is published now."""
        return [output for sender, want in self._waiting for output in self.answer(sender, want) or []]

    def forget(self, sender: Sender) -> None:
        """The sender is gone: it is not answered any more."""
        self._waiting.forget(sender)
        self.lag.forget(sender)
