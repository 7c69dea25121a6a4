"""What workers compute on where weights are sent encoded: one replica, the same bits at the shard and at every worker.

Weights w of version v, replica r of version v - 1. A codec of weights sends encode(w): the replica becomes
decode(encode(w)). A codec of changes sends encode(w - r): the replica becomes r + decode(encode(w - r)). So what one
change leaves out is in the next: error feedback with the residual w - r, the server's half of DoubleSqueeze (Tang et
al. 2019). The optimizer goes on from w; gradients are taken at r.

The replica starts as the weights themselves: with a resumed run the residual is empty. A worker that joins gets the
replica as it is. A worker that takes the words does the same addition as the shard, so that all hold the same bits.
"""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import numpy.typing as npt

from ps_vae.errors import PeerError
from ps_vae.ps.buffers import Buffers
from ps_vae.ps.codecs.codec import Codec, Words
from ps_vae.ps.codecs.pull import PullCodec
from ps_vae.ps.partition import Slice

__all__ = ["Replica", "ReplicaReader"]

Array = npt.NDArray[np.float32]

# Apart from the numbers that pushes of the same step are rounded with.
_OTHER_SEED = 0x9E3779B97F4A7C15


class Replica:
    """The shard's side.

    Invariant: the array that `follow` returned last is not written to before the next call has returned.

    pull     how weights are written
    weights  what the replica starts as; read by the first call of `follow` at the latest
    number   of the shard
    buffers  replicas are written into arrays taken from here, which are the caller's to give back
    """

    def __init__(
        self, pull: PullCodec, weights: Array, number: int, buffers: Buffers, is_finite: Callable[[Array], bool]
    ) -> None:
        self.is_change = pull.is_change
        self._codec = pull.codec
        self._seed = pull.seed ^ _OTHER_SEED
        self._number = number
        self._buffers = buffers
        self._is_finite = is_finite
        self._state = pull.codec.initial_state()
        self._held = weights
        self._missing = np.empty_like(weights)

    @property
    def state(self) -> dict[str, Array]:
        """What the codec remembers."""
        return self._state

    def restore(self, state: Mapping[str, Array]) -> None:
        """Go on with what another replica of this kind remembered. PeerError where that does not fit."""
        if {name: array.size for name, array in state.items()} != {
            name: array.size for name, array in self._state.items()
        }:
            raise PeerError("bad-size", f"a codec's state of {sorted(state)}, this one has {sorted(self._state)}")
        for name, array in state.items():
            np.copyto(self._state[name], array)

    def follow(self, weights: Array, version: int) -> tuple[Array, Words | None]:
        """The replica of these weights, and the words that it follows from.

        No words where the codec cannot carry them, as numbers that are not finite: the replica is the weights then.
        """
        out = self._buffers.take()
        words = np.empty(self._codec.words, np.uint32)
        try:
            self._encode(weights, version, words)
            self._codec.decode(words, out)
        except PeerError:
            np.copyto(out, weights)
            self._held = out
            return out, None
        if self.is_change:
            np.add(self._held, out, out=out)
        self._held = out
        return out, words

    def _encode(self, weights: Array, version: int, words: Words) -> None:
        if not self._is_finite(weights):
            raise PeerError("not-finite", "weights that are not finite have no encoding")
        source = weights
        if self.is_change:
            source = np.subtract(weights, self._held, out=self._missing)
            # The codec's own would count twice what is still missing.
            if "residual" in self._state:
                self._state["residual"].fill(0)
        key = (self._seed, version & 0xFFFFFFFF, self._number)
        self._codec.encode(source, self._state, key, words)


def _sizes(state: Mapping[str, Array]) -> dict[str, int]:
    return {name: array.size for name, array in state.items()}


class ReplicaReader:
    """A worker's side: the slices of one vector.

    codecs  one a shard
    """

    def __init__(self, codecs: Sequence[Codec], slices: Sequence[Slice]) -> None:
        self._codecs, self._slices = tuple(codecs), tuple(slices)
        self._change = np.empty(max(piece.size for piece in slices), np.float32)

    def take(self, shard: int, payload: Array, weights: Array, *, is_change: bool) -> None:
        """Overwrite the shard's slice of `weights`, or add to it; PeerError for words that are none."""
        piece = self._slices[shard]
        held = weights[piece.start : piece.stop]
        words = payload.view(np.uint32)
        if not is_change:
            self._codecs[shard].decode(words, held)
            return
        change = self._change[: piece.size]
        self._codecs[shard].decode(words, change)
        np.add(held, change, out=held)
