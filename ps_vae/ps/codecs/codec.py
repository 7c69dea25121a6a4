"""What a codec is: sizes and two functions over a slice of the flat vector.

Encoded payloads are vectors of 32-bit words, little endian, so that they travel the same ways as float32 tensors do:
as a frame, or as a place in shared memory. A codec remembers nothing. What an encoder has to know of earlier payloads
is in vectors that the sender owns, its state. Of those the residual makes up for what a codec leaves out: with error
feedback (Seide et al. 2014; Karimireddy et al. 2019)

    p = gradient + residual,    sent = decode(encode(p)),    residual <- p - sent

what was sent and what is left add up to the sum of the gradients.
"""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from ps_vae.errors import PeerError
from ps_vae.ps.buffers import aligned
from ps_vae.ps.record import record

__all__ = ["BlockCodec", "Codec", "Key", "Matrix", "State", "Vector", "Words", "check_words"]

Vector = npt.NDArray[np.float32]
Words = npt.NDArray[np.uint32]
State = dict[str, Vector]

Key = tuple[int, int, int]
"""Seed (64 bits), step (32 bits) and a number (32 bits) that tells the payloads of a step apart: what the random
numbers of an encoding are a function of."""


@record
class Matrix:
    """Elements start, …, start + rows * columns - 1 of a slice: a matrix in C order."""

    start: int
    rows: int
    columns: int


@record
class Codec:
    """One way to write `numbers` float32: a codec of the table, with its parameters, for one slice.

    name     the words that users say and messages carry: `int8`, `topk:0.01`
    numbers  how many
    words    how many 32-bit words they take
    state    the vectors of a sender's state, by name -> elements; all zero before the first payload
    encode   encode(gradient, state, key, out): gradient (numbers,) is only read, the state is overwritten, and so is
             out (words,)
    decode   decode(words, out): words of any length and contents are only read, out (numbers,) is overwritten. Raises
             PeerError (`bad-payload`), before anything is indexed, where they are no encoding of so many numbers
    """

    name: str
    numbers: int
    words: int
    state: dict[str, int]
    encode: Callable[[Vector, State, Key, Words], None]
    decode: Callable[[Words, Vector], None]

    def initial_state(self) -> State:
        """The state of a sender that has sent nothing."""
        return {name: aligned(size) for name, size in self.state.items()}


BlockCodec = Callable[[int], Codec]
"""The codec for the sum over a block of so many microbatches, of all of a slice's numbers and one name and state. More
microbatches never take fewer words."""


def check_words(codec: str, words: Words, expected: int, numbers: int) -> None:
    """PeerError unless there are as many words as there have to be."""
    if words.shape != (expected,):
        raise PeerError("bad-payload", f"{codec}: {words.size} words for {numbers} numbers, which take {expected}")
