"""What a shard makes of a push's payload: the gradient of its slice, checked.

Without a codec that is the payload itself, where it came; with one, an array of the shard's own that it was decoded
into.
"""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from ps_vae.errors import PeerError
from ps_vae.ps.buffers import Buffers
from ps_vae.ps.codecs.codec import BlockCodec
from ps_vae.ps.messages import Push

__all__ = ["Decoder"]

Array = npt.NDArray[np.float32]


class Decoder:
    """The receiver's side of a codec.

    codec      how the gradients of pushes are written; None: as they are
    buffers    of arrays of the slice's size, which gradients are decoded into
    is_finite  whether an array has neither NaN nor infinity in it
    name_of    what an element of the slice is called, for people
    shard      its number, for people
    """

    def __init__(
        self,
        codec: BlockCodec | None,
        buffers: Buffers,
        is_finite: Callable[[Array], bool],
        name_of: Callable[[int], str],
        *,
        shard: int,
    ) -> None:
        self._codec = codec
        self._buffers = buffers
        self._is_finite = is_finite
        self._name_of = name_of
        self._shard = shard

    @property
    def is_pooled(self) -> bool:
        """Whether gradients are in arrays of `buffers`, and the caller's from then on."""
        return self._codec is not None

    def check_size(self, push: Push) -> None:
        """PeerError unless the payload is as long as that of its block, which there is, has to be."""
        codec = None if self._codec is None else self._codec(push.stop - push.start)
        expected = self._buffers.size if codec is None else codec.words
        if len(push.payload) != 1 or push.payload[0].size != expected:
            sizes = [vector.size for vector in push.payload]
            how = "" if codec is None else f", in {codec.name} {expected} words"
            raise PeerError("bad-size", f"a push of {sizes} numbers, this shard owns {self._buffers.size}{how}")

    def gradient(self, push: Push) -> Array:
        """Of a push whose size was checked. PeerError where it cannot be counted; no array is kept back then."""
        if self._codec is None:
            self._check_numbers(push, push.payload[0])
            return push.payload[0]
        gradient = self._buffers.take()
        try:
            self._codec(push.stop - push.start).decode(push.payload[0].view(np.uint32), gradient)
            self._check_numbers(push, gradient)
        except PeerError:
            self._buffers.give(gradient)
            raise
        return gradient

    def done_with(self, gradient: Array) -> None:
        """Nobody reads it any more."""
        if self._codec is not None:
            self._buffers.give(gradient)

    def _check_numbers(self, push: Push, gradient: Array) -> None:
        if not self._is_finite(gradient):
            at = int(np.flatnonzero(~np.isfinite(gradient))[0])
            text = f"step {push.step}: the gradient is {gradient[at]} at {self._name_of(at)} of shard {self._shard + 1}"
            raise PeerError("not-finite", text)
