"""What sender and receiver do with a codec, and the vectors that codecs are tested with."""

from typing import Any

import numpy as np
from hypothesis import strategies as st

from ps_vae.ps.codecs.codec import Codec, Key, State, Vector, Words

KEY = (7, 3, 1)


def encoded(codec: Codec, gradient: Vector, state: State | None = None, key: Key = KEY) -> Words:
    """The words of a gradient, written where other ones were; the state, if there is one, is changed."""
    words = np.full(codec.words, 0xDEADBEEF, np.uint32)
    codec.encode(gradient, codec.initial_state() if state is None else state, key, words)
    return words


def decoded(codec: Codec, words: Words) -> Vector:
    """The numbers of a payload, written where other ones were."""
    numbers = np.full(codec.numbers, np.nan, np.float32)
    codec.decode(words, numbers)
    return numbers


# Around the sizes of words, of blocks and of vector registers, and others.
sizes = st.sampled_from([0, 1, 2, 3, 4, 5, 31, 32, 33, 511, 512, 513, 1023, 1024, 1025]) | st.integers(0, 5000)


@st.composite
def vectors(draw: Any, sizes: st.SearchStrategy[int] = sizes) -> Vector:
    """Numbers of magnitudes from 1e-30 to 1e30, of one magnitude or of many at once, with zeros among them."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    size, magnitude = draw(sizes), draw(st.integers(-30, 30))
    x = rng.standard_normal(size) * 10.0 ** (magnitude + draw(st.sampled_from([0, 3, 10])) * rng.uniform(-1, 1, size))
    x[rng.random(size) < draw(st.sampled_from([0, 0.5, 1]))] = 0
    return np.clip(x, -1e30, 1e30).astype(np.float32)
