"""factors: of a layer's weights the two factors of their gradient, where these are smaller than it. Nothing is lost.

Over the R examples of a microbatch the gradient of a matrix (rows, columns) of weights is a product,

    G = A^T D,    A (R, rows) the layer's inputs,    D (R, columns) the gradients with respect to its outputs

of rank R at most. So A and D may go in its place, and whoever sums the gradients up multiplies them: Chilimbi, Suzue,
Apacible & Kalyanaraman, "Project Adam", OSDI 2014; Xie, Kim, Zhou, Ho, Kumar, Yu & Xing, "Distributed machine learning
via sufficient factor broadcasting", 2015 (arXiv:1511.08486). For a block of m microbatches there are m pairs. They are
sent where they are fewer numbers, a matrix at a time (as in Zhang et al., "Poseidon", USENIX ATC 2017):

    m R (rows + columns) < rows columns,    up to m R = 264 for 784 x 400, 36 for 400 x 40, 19 for 20 x 400

All other numbers are sent as they are, summed over the block. Words, with those matrices factored:

    n - sum of (rows columns - m R (rows + columns))

of 784-400-20-400-784 with its 652,832 numbers 53,280 for a block of 16 rows, 99,488 for 32, 177,184 for 64. Of a matrix
that is cut by slices each has some rows: D goes to each of them.

The vector that is encoded holds the factors where it would hold the product: A of the first microbatch, D of it, A of
the second and so on from the matrix's first element on; what is left of the matrix is not read. The words are the
numbers of that vector that mean something, in its order. Decoded, each microbatch has its product, and the block's
are added in the order of its tree (ps.blocks). With the product that workers would use these are the bits of the
gradient that they would have sent: all of them where an element of the product depends on its row of A^T and column of
D alone, else where a slice holds the whole matrix.

Words that are not finite are refused. Finite factors may still have a product that is not; that is for the receiver
to see, as in any sum. No state.
"""

from collections.abc import Callable, Sequence
from functools import cache

import numpy as np

from ps_vae.errors import PeerError
from ps_vae.ps.blocks import Block, halves
from ps_vae.ps.buffers import Buffers
from ps_vae.ps.codecs.codec import BlockCodec, Codec, Key, Matrix, State, Vector, Words, check_words
from ps_vae.ps.codecs.matrices import check_matrices, outside
from ps_vae.ps.record import record

__all__ = ["Factors", "Products", "factors", "to_factor"]


@record
class Products:
    """How the gradients of matrices come about.

    rows      examples of a microbatch, at least 1
    multiply  multiply(a, d, out): `out` (rows, columns) is overwritten with a^T d of a (R, rows) and d (R, columns)
    """

    rows: int
    multiply: Callable[[Vector, Vector, Vector], None]


@record
class Factors:
    """Where the factors of a matrix, of a block of so many microbatches of R rows, lie in a vector: from `start` on."""

    matrix: Matrix
    microbatches: int
    r: int
    start: int

    @property
    def size(self) -> int:
        return self.microbatches * self.r * (self.matrix.rows + self.matrix.columns)

    def pair(self, vector: Vector, microbatch: int) -> tuple[Vector, Vector]:
        """A and D of one of the microbatches 0, 1, … of the block, as parts of the vector."""
        of_a, of_d = self.r * self.matrix.rows, self.r * self.matrix.columns
        begin = self.start + microbatch * (of_a + of_d)
        a, d = vector[begin : begin + of_a], vector[begin + of_a : begin + of_a + of_d]
        return a.reshape(self.r, self.matrix.rows), d.reshape(self.r, self.matrix.columns)


def to_factor(matrices: Sequence[Matrix], r: int, microbatches: int) -> list[Factors]:
    """The matrices that are sent as factors, these where a gradient in factored form has them."""
    found = [Factors(matrix, microbatches, r, matrix.start) for matrix in matrices]
    return [each for each in found if each.size < each.matrix.rows * each.matrix.columns]


def factors(name: str, numbers: int, matrices: tuple[Matrix, ...], products: Products) -> BlockCodec:
    """The codecs for so many numbers with these matrices among them, in ascending order.

    Those that it makes share memory for sums: one decodes at a time. Raises UsageError where matrices overlap or reach
    beyond the numbers.
    """
    check_matrices(name, numbers, matrices)
    sums = Buffers(max((matrix.rows * matrix.columns for matrix in matrices), default=0))

    @cache
    def of_block(microbatches: int) -> Codec:
        return _codec(name, numbers, to_factor(matrices, products.rows, microbatches), products, sums)

    return of_block


def _codec(name: str, numbers: int, factored: list[Factors], products: Products, sums: Buffers) -> Codec:
    rest = outside(numbers, [each.matrix for each in factored])
    parts = sorted([*rest, *(slice(each.start, each.start + each.size) for each in factored)], key=lambda p: p.start)
    places, words = {}, 0
    for part in parts:
        places[part.start] = words
        words += part.stop - part.start
    received = [Factors(each.matrix, each.microbatches, each.r, places[each.start]) for each in factored]

    def encode(gradient: Vector, state: State, key: Key, out: Words) -> None:
        sent = out.view(np.float32)
        for part in parts:
            at = places[part.start]
            sent[at : at + part.stop - part.start] = gradient[part]

    def decode(payload: Words, out: Vector) -> None:
        check_words(name, payload, words, numbers)
        sent = payload.view(np.float32)
        if not np.isfinite(sent).all():
            at = int(np.argmin(np.isfinite(sent)))
            raise PeerError("bad-payload", f"{name}: word {at} of {words} is {sent[at]}")
        for part in rest:
            at = places[part.start]
            out[part] = sent[at : at + part.stop - part.start]
        # A sum that is not finite is the receiver's to see; NumPy's warnings would only repeat it.
        with np.errstate(invalid="ignore", over="ignore"):
            for each in received:
                m = each.matrix
                product = out[m.start : m.start + m.rows * m.columns].reshape(m.rows, m.columns)
                _add_up(each, sent, 0, each.microbatches, product, products, sums)

    return Codec(name, numbers, words, {}, encode, decode)


def _add_up(each: Factors, sent: Vector, start: int, stop: int, out: Vector, products: Products, sums: Buffers) -> None:
    """Overwrite `out` with the sum of the products of microbatches start, …, stop - 1, in the order of their tree."""
    if stop - start == 1:
        products.multiply(*each.pair(sent, start), out)
        return
    first, second = halves(Block(start, stop))
    _add_up(each, sent, first.start, first.stop, out, products, sums)
    memory = sums.take()
    right = memory[: out.size].reshape(out.shape)
    _add_up(each, sent, second.start, second.stop, right, products, sums)
    np.add(out, right, out=out)
    sums.give(memory)
