"""What a shard gives out: its weights as they are, and, where the run encodes them, the workers' replica and its words.

asked by                gets
push.then of a worker   the words of the newest version, if it is that one and they are to be added to what the worker
                        holds; else as a pull
pull of a worker        the replica as it is: that is how a worker begins, and how it gets what was lost on the way
pull of an evaluator    the weights
"""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from ps_vae.ps.buffers import Buffers
from ps_vae.ps.codecs.pull import PullCodec
from ps_vae.ps.consistency import Versions
from ps_vae.ps.messages import Weights
from ps_vae.ps.published import Published
from ps_vae.ps.record import record
from ps_vae.ps.replica import Replica

__all__ = ["Publication", "Want"]

Array = npt.NDArray[np.float32]


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

    Invariant: the newest weights are `weights`; with a codec, whoever holds the replica of the version before and takes
    the newest words holds the newest replica.
    """

    def __init__(
        self,
        version: int,
        weights: Array,
        buffers: Buffers,
        *,
        keeps_the_one_before: bool,
        pull: PullCodec | None,
        number: int,
        is_finite: Callable[[Array], bool],
    ) -> None:
        self._buffers = buffers
        self._exact = Published(version, weights, buffers, keeps_the_one_before=keeps_the_one_before)
        self._copies = self._exact
        self._replica: Replica | None = None
        self._words: tuple[Array, Array] | None = None
        if pull is not None:
            first = buffers.take()
            np.copyto(first, weights)
            self._replica = Replica(pull, first, number, buffers, is_finite)
            self._copies = Published(version, first, buffers, keeps_the_one_before=keeps_the_one_before)

    @property
    def weights(self) -> Array:
        """The newest, as they are; not to be written to."""
        return self._exact.weights

    def add(self, version: int, weights: Array, *, is_pinned: bool, ahead: Array | None = None) -> None:
        """Publish new weights; arguments as those of `Published.add`."""
        if self._replica is None:
            self._exact.add(version, weights, is_pinned=is_pinned, ahead=ahead)
            return
        copy, words = self._replica.follow(weights if ahead is None else ahead, version)
        self._words = None if words is None else (copy, words.view(np.float32))
        self._copies.add(version, copy, is_pinned=is_pinned)
        self._exact.add(version, weights, is_pinned=is_pinned)
        if ahead is not None:
            self._buffers.give(ahead)

    def arrays(self) -> dict[int, Array]:
        """Everything that is kept, by the identity of the array."""
        return {**self._exact.arrays(), **self._copies.arrays()}

    def find(self, want: Want) -> Weights | None:
        """The newest version wanted, if it is here."""
        found = (self._exact if want.exact else self._copies).find(want.versions)
        if found is None:
            return None
        version, array = found
        if self._replica is not None and self._words is not None and want.held is not None:
            copy, words = self._words
            if not self._replica.is_change and array is copy:
                return Weights(version, True, None, (words,))
            if array is copy and want.held == version - 1:
                return Weights(version, True, want.held, (words,))
        return Weights(version, False, None, (array,))
