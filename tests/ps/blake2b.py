"""BLAKE2b as RFC 7693 writes it down (sections 2 and 3), slowly: what the library's is held against."""

import math

WORD = 2**64
# Fractional parts of the square roots of the first eight primes.
IV = [math.isqrt(prime << 128) % WORD for prime in (2, 3, 5, 7, 11, 13, 17, 19)]
SIGMA = [
    [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15],
    [14, 10, 4, 8, 9, 15, 13, 6, 1, 12, 0, 2, 11, 7, 5, 3],
    [11, 8, 12, 0, 5, 2, 15, 13, 10, 14, 3, 6, 7, 1, 9, 4],
    [7, 9, 3, 1, 13, 12, 11, 14, 2, 6, 5, 10, 4, 0, 15, 8],
    [9, 0, 5, 7, 2, 4, 10, 15, 14, 1, 11, 12, 6, 8, 3, 13],
    [2, 12, 6, 10, 0, 11, 8, 3, 4, 13, 7, 5, 15, 14, 1, 9],
    [12, 5, 1, 15, 14, 13, 4, 10, 0, 7, 6, 3, 9, 2, 8, 11],
    [13, 11, 7, 14, 12, 1, 3, 9, 5, 0, 15, 4, 8, 6, 2, 10],
    [6, 15, 14, 9, 11, 3, 0, 8, 12, 2, 13, 7, 1, 4, 10, 5],
    [10, 2, 8, 4, 7, 6, 1, 5, 15, 11, 9, 14, 3, 12, 13, 0],
]
COLUMNS = [(0, 4, 8, 12), (1, 5, 9, 13), (2, 6, 10, 14), (3, 7, 11, 15)]
DIAGONALS = [(0, 5, 10, 15), (1, 6, 11, 12), (2, 7, 8, 13), (3, 4, 9, 14)]


def blake2b(text, key, size):
    """The digest of `size` bytes."""
    text = (key.ljust(128, b"\0") if key else b"") + text
    blocks = [text[at : at + 128] for at in range(0, len(text), 128)] or [b""]
    state = [IV[0] ^ 0x01010000 ^ len(key) << 8 ^ size, *IV[1:]]
    length = 0
    for block in blocks:
        length += len(block)
        state = compress(state, block.ljust(128, b"\0"), length, is_last=block is blocks[-1])
    return b"".join(word.to_bytes(8, "little") for word in state)[:size]


def compress(state, block, length, *, is_last):
    words = [int.from_bytes(block[at : at + 8], "little") for at in range(0, 128, 8)]
    v = [*state, *IV]
    v[12] ^= length
    v[14] ^= WORD - 1 if is_last else 0
    for turn in range(12):
        order = SIGMA[turn % 10]
        for number, (a, b, c, d) in enumerate(COLUMNS + DIAGONALS):
            for word, right, left in ((words[order[2 * number]], 32, 24), (words[order[2 * number + 1]], 16, 63)):
                v[a] = (v[a] + v[b] + word) % WORD
                v[d] = turned(v[d] ^ v[a], right)
                v[c] = (v[c] + v[d]) % WORD
                v[b] = turned(v[b] ^ v[c], left)
    return [word ^ v[at] ^ v[at + 8] for at, word in enumerate(state)]


def turned(word, by):
    return (word >> by | word << 64 - by) % WORD
