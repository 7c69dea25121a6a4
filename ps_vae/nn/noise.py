"""Noise that is a function of its name: (seed, stream, step, row, column) gives one number, for ever.

A counter-based generator has no state: the noise of a row does not depend on the batch it stands in, on the
process that asks, or on how many columns are asked for. Generator: Philox4x32-10 (Salmon, Moraes, Dror & Shaw,
"Parallel random numbers: as easy as 1, 2, 3", SC'11). One call of it turns 128 bits of counter
under 64 bits of key into four 32-bit words:

    key       [seed low, seed high]                                          32 + 32 bits
    counter   [column / 4, row low, step, stream | row high << 8]            32 + 32 + 32 + (8 + 24) bits
    word w    belongs to column 4 (column / 4) + w

    uniform   (word >> 8) 2^-24, in [0, 1)
    bernoulli uniform < probability: probability 0 never, 1 always
    normal    Box & Muller (1958), two columns from two words a, b:
              sqrt(-2 log((a + 1/2) 2^-32)) (cos, sin)(pi b 2^-31), b taken as signed; |normal| < 6.8

Numbers are made in float32; float64 outputs hold the same numbers.
"""

from enum import IntEnum

import numpy as np

from ps_vae.errors import UsageError
from ps_vae.jit import exact_kernel
from ps_vae.nn.arrays import Array, Floats, Rows
from ps_vae.nn.elementary import log, sin_cos_pi
from ps_vae.philox import philox

__all__ = ["Stream", "bernoulli", "philox4x32", "standard_normal", "uniform"]


class Stream(IntEnum):
    """What noise is for; two streams never share a counter. Numbers are part of every saved result: only add."""

    POSTERIOR = 0  # reparameterisation in training; row = place in the step's batch
    BINARIZE = 1  # pixels drawn from grey values
    PRIOR = 2  # samples from the prior
    EVIDENCE = 3  # importance samples
    INITIAL = 4  # initial weights; step = tensor, row = input
    OBSERVATION = 5  # x drawn from p(x|z)
    EVALUATION = 6  # reparameterisation outside of training
    ENCODING = 7  # samples of q(z|x) that were asked for; row = index in the split


def uniform(out: Floats, *, seed: int, stream: Stream, step: int, rows: Rows) -> None:
    """Fill `out` (rows, columns), float32 or float64, C order, with uniforms in [0, 1).

    seed    0 <= seed < 2^64
    step    0 <= step < 2^32
    rows    (rows,) int64: the name of each row, 0 <= name < 2^56, in any order

    Raises UsageError when a number is outside of its range.
    """
    _uniform(out, *_name(seed, stream, step), _one_name_a_row(rows, out))


def bernoulli(probabilities: Floats, out: Floats, *, seed: int, stream: Stream, step: int, rows: Rows) -> None:
    """Fill `out` with 1 where a uniform of `uniform` is below the probability, else 0.

    probabilities, out      (rows, columns), same dtype; they may be the same array
    """
    _bernoulli(probabilities, out, *_name(seed, stream, step), _one_name_a_row(rows, out))


def standard_normal(out: Floats, *, seed: int, stream: Stream, step: int, rows: Rows) -> None:
    """Fill `out` (rows, columns) with standard normals; arguments as for `uniform`."""
    _standard_normal(out, *_name(seed, stream, step), _one_name_a_row(rows, out))


def philox4x32(counter: Array, key: Array) -> Array:
    """Philox4x32-10 of one counter (4,) under one key (2,), all uint32: four words (4,) uint32."""
    words = philox(*(np.uint64(word) for word in (*counter, *key)))
    return np.array(words, dtype=np.uint32)


def _name(seed: int, stream: Stream, step: int) -> tuple[np.uint64, np.uint64, np.uint64]:
    if not 0 <= seed < 2**64:
        raise UsageError(f"seed {seed}: give a number from 0 to 2^64 - 1")
    if not 0 <= step < 2**32:
        raise UsageError(f"step {step}: noise is defined for steps from 0 to 2^32 - 1")
    return np.uint64(seed), np.uint64(stream), np.uint64(step)


def _one_name_a_row(rows: Rows, out: Floats) -> Rows:
    if rows.shape != out.shape[:1]:
        raise UsageError(f"{rows.shape} names for an array of shape {out.shape}: give one name for each row")
    if rows.size and not (rows.min() >= 0 and rows.max() < _MOST_ROWS):
        raise UsageError(f"rows named {rows.min()} to {rows.max()}: noise is defined for names from 0 to 2^56 - 1")
    return rows


_MOST_ROWS = 1 << 56
_WORD, _HALF_WORD, _BYTE = np.uint64(0xFFFFFFFF), np.uint64(32), np.uint64(8)
_TO_UNIT = np.float32(2.0**-24)
_TO_HALF_TURNS = np.float32(2.0**-31)
_TO_OPEN_UNIT, _CENTRE = np.float32(2.0**-32), np.float32(0.5)
_MINUS_TWO = np.float32(-2)


@exact_kernel
def _row_words(words: Array, seed: np.uint64, stream: np.uint64, step: np.uint64, row: np.int64) -> None:
    name = np.uint64(row)
    low, high = name & _WORD, stream | ((name >> _HALF_WORD) << _BYTE)
    for block in range(words.shape[0]):
        c0, c1, c2, c3 = philox(np.uint64(block), low, step, high, seed & _WORD, seed >> _HALF_WORD)
        words[block, 0] = c0
        words[block, 1] = c1
        words[block, 2] = c2
        words[block, 3] = c3


@exact_kernel
def _uniform(out: Floats, seed: np.uint64, stream: np.uint64, step: np.uint64, rows: Rows) -> None:
    words = np.empty(((out.shape[1] + 3) // 4, 4), np.uint32)
    flat = words.reshape(-1)
    for i in range(out.shape[0]):
        _row_words(words, seed, stream, step, rows[i])
        for j in range(out.shape[1]):
            out[i, j] = np.float32(flat[j] >> np.uint32(8)) * _TO_UNIT


@exact_kernel
def _bernoulli(
    probabilities: Floats, out: Floats, seed: np.uint64, stream: np.uint64, step: np.uint64, rows: Rows
) -> None:
    words = np.empty(((out.shape[1] + 3) // 4, 4), np.uint32)
    flat = words.reshape(-1)
    row = np.empty(out.shape[1], out.dtype)
    for i in range(out.shape[0]):
        _row_words(words, seed, stream, step, rows[i])
        # By way of `row`: a loop that may write what it reads does not become vector instructions.
        for j in range(out.shape[1]):
            row[j] = np.float32(flat[j] >> np.uint32(8)) * _TO_UNIT < probabilities[i, j]
        for j in range(out.shape[1]):
            out[i, j] = row[j]


@exact_kernel
def _standard_normal(out: Floats, seed: np.uint64, stream: np.uint64, step: np.uint64, rows: Rows) -> None:
    words = np.empty(((out.shape[1] + 3) // 4, 4), np.uint32)
    flat = words.reshape(-1)
    normals = np.empty(flat.shape, np.float32)
    for i in range(out.shape[0]):
        _row_words(words, seed, stream, step, rows[i])
        for pair in range(flat.shape[0] // 2):
            radius = np.sqrt(_MINUS_TWO * log((np.float32(flat[2 * pair]) + _CENTRE) * _TO_OPEN_UNIT))
            sine, cosine = sin_cos_pi(np.float32(np.int32(flat[2 * pair + 1])) * _TO_HALF_TURNS)
            normals[2 * pair] = radius * cosine
            normals[2 * pair + 1] = radius * sine
        for j in range(out.shape[1]):
            out[i, j] = normals[j]
