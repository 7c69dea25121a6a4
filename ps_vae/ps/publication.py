"""What a shard gives out: its weights as they are, and what workers compute on where that is something else.

That is where the weights are expected to be, in a run with a delay, or a replica where they are sent encoded, or both.

asked by                gets
push.then of a worker   the words of the newest version, if it is that one and they are to be added to what the worker
                        holds; else as a pull
pull of a worker        the replica itself: that is how a worker begins, and how it gets what was lost on the way
pull of an evaluator    the weights
"""

from collections.abc import Callable, Mapping

import numpy as np
import numpy.typing as npt

from ps_vae.errors import PeerError
from ps_vae.ps.buffers import Buffers
from ps_vae.ps.codecs.pull import PullCodec
from ps_vae.ps.consistency import Consistency, Versions
from ps_vae.ps.messages import Weights
from ps_vae.ps.published import Published
from ps_vae.ps.record import record
from ps_vae.ps.replica import Replica

__all__ = ["Publication", "Want"]

Array = npt.NDArray[np.float32]

_COPY, _CODEC = "copy", "codec/"


@record
class Want:
    """What a client asks for.

    exact  the weights, not the workers' replica
    held   the version that it holds, if that is known
    """

    versions: Versions
    exact: bool = False
    held: int | None = None


class Publication:
    """The published versions of one slice.

    is_ahead  whether `add` is told, in a synchronous run, where the weights are expected to be
    besides   of another one of this kind at this version, which this one goes on from; PeerError where it does not fit

    Invariant: the newest weights are `weights`; with a codec, whoever holds the replica of the version before and takes
    the newest words holds the newest replica.
    """

    def __init__(
        self,
        version: int,
        weights: Array,
        buffers: Buffers,
        *,
        consistency: Consistency,
        pull: PullCodec | None,
        is_ahead: bool = False,
        number: int,
        is_finite: Callable[[Array], bool],
        besides: Mapping[str, Array] | None = None,
    ) -> None:
        self._buffers = buffers
        self._delay = consistency.delay
        before, is_apart = _kept(consistency), pull is not None or is_ahead
        # Nobody but evaluators asks for the weights then, and these for milestones, which are pinned.
        self._exact = Published(version, weights, buffers, before=0 if is_apart else before)
        self._copies = self._exact
        self._replica: Replica | None = None
        self._words: dict[int, tuple[Array, Array]] = {}
        if is_apart:
            first = buffers.take()
            np.copyto(first, weights)
            self._copies = Published(version, first, buffers, before=before)
            self._replica = None if pull is None else Replica(pull, first, number, buffers, is_finite)
        if besides:
            self._restore(besides)

    @property
    def weights(self) -> Array:
        """The newest, as they are; not to be written to."""
        return self._exact.weights

    def add(self, version: int, weights: Array, *, is_pinned: bool, ahead: Array | None = None) -> None:
        """Publish new weights; arguments as those of `Published.add`. `ahead` is given where workers compute on it."""
        if self._copies is self._exact:
            self._exact.add(version, weights, is_pinned=is_pinned, ahead=ahead)
            return
        self._exact.add(version, weights, is_pinned=is_pinned)
        source = weights if ahead is None else ahead
        if self._replica is None:
            self._copies.add(version, source, is_pinned=is_pinned)
            return
        copy, words = self._replica.follow(source, version)
        self._words = {known: kept for known, kept in self._words.items() if version > known >= version - self._delay}
        if words is not None:
            self._words[version] = (copy, words.view(np.float32))
        self._copies.add(version, copy, is_pinned=is_pinned)
        if ahead is not None:
            self._buffers.give(ahead)

    @property
    def besides(self) -> dict[str, Array]:
        """What is needed to go on as this one does, beside the newest weights: not to be written to."""
        if self._copies is self._exact:
            return {}
        state = {} if self._replica is None else self._replica.state
        return {_COPY: self._copies.weights, **{f"{_CODEC}{name}": array for name, array in state.items()}}

    def arrays(self) -> dict[int, Array]:
        """Everything that is kept, by the identity of the array."""
        return {**self._exact.arrays(), **self._copies.arrays()}

    def find(self, want: Want) -> Weights | None:
        """The newest version wanted, if it is here."""
        found = (self._exact if want.exact else self._copies).find(want.versions)
        if found is None:
            return None
        version, array = found
        copy, words = self._words.get(version, (None, array))
        if self._replica is not None and want.held is not None and array is copy:
            if not self._replica.is_change:
                return Weights(version, True, None, (words,))
            # With a delay it will have taken what lies between by then: that was asked for, and goes out, before this.
            if version - 1 - self._delay <= want.held < version:
                return Weights(version, True, version - 1, (words,))
        return Weights(version, False, None, (array,))

    def _restore(self, besides: Mapping[str, Array]) -> None:
        copy = besides.get(_COPY)
        if self._copies is self._exact or copy is None or copy.size != self._copies.weights.size:
            raise PeerError("bad-size", f"{sorted(besides)} are not what is published beside the weights here")
        np.copyto(self._copies.weights, copy)
        if self._replica is not None:
            state = {name[len(_CODEC) :]: array for name, array in besides.items() if name.startswith(_CODEC)}
            self._replica.restore(state)


def _kept(consistency: Consistency) -> int:
    """Versions before the newest.

    In a synchronous run work of the lowest step may be repeated, on the version that it is computed on, while another
    shard has that step and as many more as may be open.
    """
    return 1 + 2 * consistency.delay if consistency.is_synchronous else 0
