"""The slice of a shard: its weights, the optimizer's state, and which steps are in them. Nobody is known here.

An update is computed (`update`), and becomes the newest weights when it is published (`publish`): in between a follower
may be waited for.
"""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from ps_vae.ps.buffers import Buffers
from ps_vae.ps.codecs.pull import PullCodec
from ps_vae.ps.publication import Publication
from ps_vae.ps.record import record
from ps_vae.ps.reduction import Metrics
from ps_vae.ps.rules import RunRules
from ps_vae.ps.state import ShardState
from ps_vae.ps.update import LookAhead, Moment, Update

__all__ = ["TrainedSlice", "Updated"]

Array = npt.NDArray[np.float32]

# The farthest, in updates, that weights are published ahead.
_FARTHEST = 8.0


@record
class Updated:
    """The weights after an update, and where they are expected to go, in arrays of the slice's buffers."""

    weights: Array
    ahead: Array | None


class TrainedSlice:
    """One slice of the parameter vector.

    Invariants: the newest weights hold exactly the steps below `before`, those in `beyond`, and parts of others that
                were published without a step;
                version = before, and it never decreases;
                a published array is never written to again while it is published or being read.

    updates     how many there were
    optimizer   its state, by name; ahead of the weights while an update is not published
    metrics     of the newest step
    """

    def __init__(
        self,
        number: int,
        rules: RunRules,
        state: ShardState,
        update: Update,
        buffers: Buffers,
        is_finite: Callable[[Array], bool],
        look_ahead: LookAhead | None,
        pull: PullCodec | None,
    ) -> None:
        self.before = state.version
        self.beyond: set[int] = set()
        self.updates = state.version if state.updates is None else state.updates
        self.optimizer = state.optimizer
        self.metrics: Metrics = state.metrics
        self._rules = rules
        self._update = update
        self._buffers = buffers
        is_prompt = rules.consistency.is_synchronous and rules.consistency.delay == 0
        self._look_ahead = None if is_prompt else look_ahead
        first = buffers.take()
        first[:] = state.weights
        self.published = Publication(
            state.version,
            first,
            buffers,
            consistency=rules.consistency,
            pull=pull,
            is_ahead=self._look_ahead is not None and rules.consistency.is_synchronous,
            number=number,
            is_finite=is_finite,
            besides=state.published,
        )

    @property
    def version(self) -> int:
        """How many steps, from the first, are in the weights."""
        return self.before

    @property
    def size(self) -> int:
        """How many numbers."""
        return self._buffers.size

    @property
    def weights(self) -> Array:
        """The newest that are published; not to be written to."""
        return self.published.weights

    @property
    def is_milestone(self) -> bool:
        """Whether evaluators are told of this version."""
        return self._rules.is_milestone(self.version)

    def has(self, step: int) -> bool:
        """Whether all of the step is in the weights."""
        return step < self.before or step in self.beyond

    def update(self, parts: tuple[Array, ...], lag: float, *, share: float = 1.0, trust: float = 1.0) -> Updated:
        """What one update makes of the weights; the optimizer's state is that after it from now on.

        parts         one gradient, or two whose sum it is
        lag           updates that others will have made when a gradient arrives that is begun on this
        share, trust  as in `Moment`
        """
        before, out = self.weights, self._buffers.take()
        self._update(before, parts, self.optimizer, Moment(self.version, self.updates, share, trust), out)
        self.updates += 1
        if self._look_ahead is None:
            return Updated(out, None)
        ahead = self._buffers.take()
        self._look_ahead(before, out, min(lag, _FARTHEST), ahead)
        return Updated(out, ahead)

    def publish(self, updated: Updated, step: int | None = None, metrics: Metrics = ()) -> None:
        """These are the newest weights.

        step, metrics  of the step that is whole with it; None: some of one that is not
        """
        version = self.version
        if step is not None:
            self.metrics = metrics
            self._mark(step)
        is_pinned = self.version > version and self.is_milestone
        self.published.add(self.version, updated.weights, is_pinned=is_pinned, ahead=updated.ahead)

    def _mark(self, step: int) -> None:
        self.beyond.add(step)
        while self.before in self.beyond:
            self.beyond.remove(self.before)
            self.before += 1
