"""Philox with the fewest rounds that its authors found safe; ten rounds are tested where noise is."""

import numba
import numpy as np
import pytest

from ps_vae.philox import philox_after

# Random123, tests/kat_vectors, philox4x32 with 7 rounds
KNOWN_ANSWERS = [
    ("00000000 00000000 00000000 00000000", "00000000 00000000", "5f6fb709 0d893f64 4f121f81 4f730a48"),
    ("ffffffff ffffffff ffffffff ffffffff", "ffffffff ffffffff", "5207ddc2 45165e59 4d8ee751 8c52f662"),
    ("243f6a88 85a308d3 13198a2e 03707344", "a4093822 299f31d0", "4dfccaba 190a87f0 c47362ba b6b5242a"),
]


@numba.njit
def after_seven_rounds(c0, c1, c2, c3, k0, k1):  # type: ignore[no-untyped-def]
    return philox_after(7, c0, c1, c2, c3, k0, k1)


@pytest.mark.parametrize(("counter", "key", "expected"), KNOWN_ANSWERS)
def test_seven_rounds_give_the_published_words(counter: str, key: str, expected: str) -> None:
    words = after_seven_rounds(*(np.uint64(int(word, 16)) for word in f"{counter} {key}".split()))

    assert " ".join(f"{word:08x}" for word in words) == expected
