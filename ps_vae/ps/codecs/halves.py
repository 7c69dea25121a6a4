"""What codecs of 16 bits a number have in common."""

from collections.abc import Callable

import numpy as np

from ps_vae.errors import PeerError
from ps_vae.ps.codecs.codec import Codec, Key, State, Vector, Words, check_words

__all__ = ["halves_codec"]


def halves_codec(name: str, numbers: int, pack: Callable[..., None], unpack: Callable[..., bool]) -> Codec:
    """Two numbers a word, the first in the low half; the last half word is zero where their number is odd. No state.

    pack(bits, halves)    of uint32, the bits of float32, the halves of as many words as they need, uint16
    unpack(halves, bits)  the other way, of as many as there are bits; whether all of them are finite
    """
    words = (numbers + 1) // 2

    def encode(gradient: Vector, state: State, key: Key, out: Words) -> None:
        pack(gradient.view(np.uint32), out.view(np.uint16))

    def decode(payload: Words, out: Vector) -> None:
        check_words(name, payload, words, numbers)
        if not unpack(payload.view(np.uint16), out.view(np.uint32)):
            at = int(np.argmin(np.isfinite(out)))
            raise PeerError("bad-payload", f"{name}: number {at} of {numbers} is {out[at]}")

    return Codec(name, numbers, words, {}, encode, decode)
