"""What a worker sends in place of its gradients, where the run has a codec for pushes.

A result is encoded once for each shard, with the state that this worker keeps for it. In a synchronous run a piece of
work that is given to it again, because its push was lost on the way, has the same gradient, and is answered with the
words of the first time: encoded anew, what they carried of the residual would be lost. Where others do it instead, or
on newer weights in an asynchronous run, that much is: the gradients of the lost work are counted, what earlier ones
had left over for its payload is not.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from ps_vae.ps.actions import Result
from ps_vae.ps.buffers import Buffers
from ps_vae.ps.codecs.codec import BlockCodec, Codec
from ps_vae.ps.partition import ALIGNMENT, Slice

__all__ = ["Encoder", "room_for"]

Array = npt.NDArray[np.float32]

# The number that tells payloads of a step apart: the first microbatch, then the shard.
_SHARD_BITS = 12


def room_for(codecs: Sequence[BlockCodec], microbatches: int) -> int:
    """Elements of an array that takes the words for every shard, of any block of a step of so many microbatches."""
    return sum(_room(codec(microbatches)) for codec in codecs)


class Encoder:
    """The sender's side of a codec.

    codecs   one a shard
    slices   of the gradient, of the shards
    seed     of the run
    buffers  arrays of `room_for(codecs, …)` elements; those that `encode` returns are to be given back
    repeats  whether the same work has the same gradient when it is given out again
    """

    def __init__(
        self, codecs: Sequence[BlockCodec], slices: Sequence[Slice], seed: int, buffers: Buffers, *, repeats: bool
    ) -> None:
        self._codecs, self._slices, self._seed = tuple(codecs), tuple(slices), seed
        self._buffers = buffers
        self._states = [codec(1).initial_state() for codec in codecs]
        # Without a state the same gradient is encoded to the same words again.
        self._keeps_words = repeats and any(self._states)
        self._newest = -1
        self._done: dict[tuple[int, int, int], Array] = {}

    def encode(self, step: int, result: Result) -> Array:
        """The words for all shards; `parts` finds each one's."""
        microbatches = len(result.block)
        if step > self._newest:
            self._newest = step
            # With a delay, work of the step before may be given out again.
            self._done = {place: words for place, words in self._done.items() if place[0] >= step - 1}
        out = self._buffers.take()
        place = (step, result.block.start, result.block.stop)
        if (before := self._done.get(place)) is not None:
            np.copyto(out, before)
            return out
        for shard, (codec, part) in enumerate(zip(self._codecs, self.parts(out, microbatches), strict=True)):
            piece = self._slices[shard]
            key = (self._seed, step & 0xFFFFFFFF, result.block.start << _SHARD_BITS | shard)
            gradient, words = result.gradient[piece.start : piece.stop], part.view(np.uint32)
            codec(microbatches).encode(gradient, self._states[shard], key, words)
        if self._keeps_words:
            self._done[place] = out.copy()
        return out

    def parts(self, words: Array, microbatches: int) -> list[Array]:
        """What goes to each shard, of a block of so many."""
        parts, start = [], 0
        for of_blocks in self._codecs:
            codec = of_blocks(microbatches)
            parts.append(words[start : start + codec.words])
            start += _room(codec)
        return parts


def _room(codec: Codec) -> int:
    return -(-codec.words // ALIGNMENT) * ALIGNMENT
