"""powersgd: of each matrix the few columns and rows whose product is nearest to it; what that leaves out is sent later.

For each matrix M = gradient + residual (rows, columns), with r its rank and Q' the Q that was sent last,

    P <- orthonormal columns of M Q'   (rows, r)
    Q <- M^T P                         (columns, r)
    decoded: P Q^T;    residual <- M - decoded

Vogels, Karimireddy & Jaggi, "PowerSGD: Practical low-rank gradient compression for distributed optimization", NeurIPS
2019, algorithm 1 with its warm start, and the error feedback of algorithm 2. There all workers sum up P before it is
made orthonormal, and then Q; here each sends both at once and the server sums up the products: one message in place of
two, and what w workers send has rank w r. P Q^T is the part of M in the span of P's columns, so no other Q is nearer.
Payloads of one M again and again are the iterations of the subspace method for its r largest singular vectors.

r is at most the rows and the columns of a matrix. Matrices for which r (rows + columns) is not less than
rows * columns, and what is in no matrix, are sent as they are.

Words: for each matrix that is not sent as it is, in order, P and then Q, column by column; then all other numbers in
their order; all as float32: the sum of r (rows + columns), and the other numbers. Refused are magnitudes above 2 in P,
above a 4 r-th of the largest float32 in Q, and what is not finite: what is decoded is finite then. (An encoder writes
none of these while magnitudes in M stay below 1e30.)

Before M Q', each column of Q' is divided by its largest magnitude, which changes no span and keeps products in range. A
column that is zero, as all are at the start, or is not finite is replaced: number j of column c of the matrix that
starts at s by the sum of the four words of

    philox(counter [j, c, s, 254], key [seed low, seed high])

less 2^33, times 2^-32: nearly Gaussian, without a logarithm. 254 is this codec's own among the streams.

Orthonormal columns (Gram-Schmidt): each is divided by its largest magnitude; is freed, one after the other and all
twice, of what it has in common with those before; and is divided by its length. A column that loses all but 1e-5 of
its length, which is the rounding of M Q', or that is not finite becomes zero, and so does that of Q, which then starts
anew.

Products are sums in a fixed order, and no BLAS's: M Q' and lengths as the file `dot` has it, M^T P from the first row
on, P Q^T from the first column on.

State: `residual`, n numbers, zero outside of the matrices; `q`, Q', r columns numbers a matrix.
"""

from collections.abc import Iterator

import numpy as np

from ps_vae.errors import PeerError, UsageError
from ps_vae.jit import exact_kernel
from ps_vae.philox import philox
from ps_vae.ps.codecs.codec import Codec, Key, Matrix, State, Vector, Words, check_words
from ps_vae.ps.codecs.dot import dot
from ps_vae.ps.codecs.matrices import check_matrices, outside
from ps_vae.ps.record import record

__all__ = ["powersgd"]


@record
class _Factors:
    """Where a matrix has its factors: P and Q from word `start` on, Q' from number `state` of that state on."""

    matrix: Matrix
    rank: int
    start: int
    state: int

    @property
    def elements(self) -> slice:
        return slice(self.matrix.start, self.matrix.start + self.matrix.rows * self.matrix.columns)

    @property
    def size_p(self) -> int:
        return self.rank * self.matrix.rows

    @property
    def size_q(self) -> int:
        return self.rank * self.matrix.columns

    def matrix_in(self, vector: Vector) -> Vector:
        return vector[self.elements].reshape(self.matrix.rows, self.matrix.columns)

    def p_in(self, words: Vector) -> Vector:
        """P, transposed."""
        return words[self.start : self.start + self.size_p].reshape(self.rank, self.matrix.rows)

    def q_in(self, words: Vector) -> Vector:
        """Q, transposed."""
        start = self.start + self.size_p
        return words[start : start + self.size_q].reshape(self.rank, self.matrix.columns)

    def last_q_in(self, state: Vector) -> Vector:
        return state[self.state : self.state + self.size_q].reshape(self.rank, self.matrix.columns)


def powersgd(name: str, rank: int, numbers: int, matrices: tuple[Matrix, ...]) -> Codec:
    """The codec for so many numbers with these matrices among them, in ascending order.

    Raises UsageError where the rank is not at least 1 or matrices overlap or reach beyond the numbers.
    """
    if rank < 1:
        raise UsageError(f"codec {name!r}: a rank of {rank}; give 1 or more")
    check_matrices(name, numbers, matrices)
    factors = tuple(_plan(rank, matrices))
    rest_at = sum(each.size_p + each.size_q for each in factors)
    rest = outside(numbers, [each.matrix for each in factors])
    words = rest_at + sum(part.stop - part.start for part in rest)
    state = {"residual": numbers, "q": sum(each.size_q for each in factors)}

    def encode(gradient: Vector, state: State, key: Key, out: Words) -> None:
        sent = out.view(np.float32)
        for each in factors:
            m, p, q = each.matrix_in(state["residual"]), each.p_in(sent), each.q_in(sent)
            last_q = each.last_q_in(state["q"])
            _prepare(last_q, np.uint64(each.matrix.start), np.uint64(key[0]))
            _add_and_multiply(each.matrix_in(gradient), m, last_q, p)
            _orthonormalise(p)
            _multiply_transposed(m, p, q)
            _subtract(m, p, q)
            last_q[:] = q
        at = rest_at
        for part in rest:
            sent[at : at + part.stop - part.start] = gradient[part]
            at += part.stop - part.start

    def decode(payload: Words, out: Vector) -> None:
        check_words(name, payload, words, numbers)
        sent = payload.view(np.float32)
        for number, each in enumerate(factors):
            whose = f"of matrix {number} of {len(factors)}"
            _check_magnitudes(name, f"P {whose}", each.p_in(sent), _LARGEST_P)
            _check_magnitudes(name, f"Q {whose}", each.q_in(sent), _LARGEST / (4 * each.rank))
        _check_magnitudes(name, "what is in no matrix", sent[rest_at:], _LARGEST)
        for each in factors:
            _product(each.p_in(sent), each.q_in(sent), each.matrix_in(out))
        at = rest_at
        for part in rest:
            out[part] = sent[at : at + part.stop - part.start]
            at += part.stop - part.start

    return Codec(name, numbers, words, state, encode, decode)


def _plan(rank: int, matrices: tuple[Matrix, ...]) -> Iterator[_Factors]:
    start = state = 0
    for matrix in matrices:
        r = min(rank, matrix.rows, matrix.columns)
        if r * (matrix.rows + matrix.columns) < matrix.rows * matrix.columns:
            yield _Factors(matrix, r, start, state)
            start += r * (matrix.rows + matrix.columns)
            state += r * matrix.columns


def _check_magnitudes(name: str, what: str, sent: Vector, most: np.float32) -> None:
    # As whole numbers magnitudes have the same order, infinity and then NaN at its end.
    largest = np.uint32(_largest(sent.reshape(-1).view(np.uint32))).view(np.float32)
    if not largest <= most:
        raise PeerError("bad-payload", f"{name}: {what} has a magnitude of {largest}; at most {most} can be")


_LARGEST = np.finfo(np.float32).max
_LARGEST_P = np.float32(2)
_MAGNITUDE, _INFINITE = np.uint32(0x7FFFFFFF), np.uint32(0x7F800000)
_ZERO = np.float32(0)
_LOST = np.float32(1e-10)
_STREAM = np.uint64(254)
_WORD, _HALF_WORD = np.uint64(0xFFFFFFFF), np.uint64(32)
_CENTRE = np.int64(1 << 33)
_UNIT = np.float32(2.0**-32)
_TOGETHER = 4


@exact_kernel
def _largest(bits):  # type: ignore[no-untyped-def]
    largest = np.uint32(0)
    for i in range(bits.size):
        largest = max(largest, np.uint32(bits[i] & _MAGNITUDE))
    return largest


@exact_kernel
def _scale(column):  # type: ignore[no-untyped-def]
    """Divide by the largest magnitude; whether there is one, finite and not zero."""
    largest = np.uint32(_largest(column.view(np.uint32)))
    if largest == 0 or largest >= _INFINITE:
        return False
    divisor = largest.view(np.float32)
    for i in range(column.size):
        column[i] /= divisor
    return True


@exact_kernel
def _prepare(q, start, seed):  # type: ignore[no-untyped-def]
    for c in range(q.shape[0]):
        if not _scale(q[c]):
            for j in range(q.shape[1]):
                w0, w1, w2, w3 = philox(
                    np.uint64(j), np.uint64(c), start & _WORD, _STREAM, seed & _WORD, seed >> _HALF_WORD
                )
                q[c, j] = np.float32(np.int64(w0 + w1 + w2 + w3) - _CENTRE) * _UNIT


@exact_kernel
def _add_and_multiply(gradient, m, q, p):  # type: ignore[no-untyped-def]
    """m += gradient; p <- m q, while a row is in the nearest cache."""
    for i in range(m.shape[0]):
        for j in range(m.shape[1]):
            m[i, j] += gradient[i, j]
        for c in range(q.shape[0]):
            p[c, i] = dot(m, i, q, c)


@exact_kernel
def _orthonormalise(p):  # type: ignore[no-untyped-def]
    for c in range(p.shape[0]):
        if not _scale(p[c]):
            p[c, :] = _ZERO
            continue
        before = dot(p, c, p, c)
        for _ in range(2):
            for b in range(c):
                share = dot(p, c, p, b)
                for i in range(p.shape[1]):
                    p[c, i] -= share * p[b, i]
        square = dot(p, c, p, c)
        if square <= _LOST * before:
            p[c, :] = _ZERO
            continue
        length = np.sqrt(square)
        for i in range(p.shape[1]):
            p[c, i] /= length


@exact_kernel
def _multiply_transposed(m, p, q):  # type: ignore[no-untyped-def]
    """q <- m^T p; some rows of m at once, so that q is not read and written for each."""
    q[:] = _ZERO
    whole = m.shape[0] // _TOGETHER * _TOGETHER
    for i in range(0, whole, _TOGETHER):
        for c in range(q.shape[0]):
            p0, p1, p2, p3 = p[c, i], p[c, i + 1], p[c, i + 2], p[c, i + 3]
            for j in range(m.shape[1]):
                q[c, j] = (((q[c, j] + p0 * m[i, j]) + p1 * m[i + 1, j]) + p2 * m[i + 2, j]) + p3 * m[i + 3, j]
    for i in range(whole, m.shape[0]):
        for c in range(q.shape[0]):
            p0 = p[c, i]
            for j in range(m.shape[1]):
                q[c, j] += p0 * m[i, j]


@exact_kernel
def _subtract(m, p, q):  # type: ignore[no-untyped-def]
    """m -= p q^T, with the numbers that `_product` has."""
    row = np.empty((1, m.shape[1]), np.float32)
    for i in range(m.shape[0]):
        _row(p, q, i, row, 0)
        for j in range(m.shape[1]):
            m[i, j] -= row[0, j]


@exact_kernel
def _product(p, q, out):  # type: ignore[no-untyped-def]
    for i in range(out.shape[0]):
        _row(p, q, i, out, i)


@exact_kernel
def _row(p, q, i, out, k):  # type: ignore[no-untyped-def]
    """Row i of p q^T into row k of `out`."""
    share = p[0, i]
    for j in range(out.shape[1]):
        out[k, j] = share * q[0, j]
    for c in range(1, q.shape[0]):
        share = p[c, i]
        for j in range(out.shape[1]):
            out[k, j] += share * q[c, j]
