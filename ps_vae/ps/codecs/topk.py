"""topk: the largest few numbers, where they are, and in a byte each what they are; all others are sent later.

With g the gradient, k = max(1, round(ratio n)) of n numbers (0 of none) and m the momentum,

    u <- m u + g,    p = residual + u                     velocity and what has been left over
    sent: the k of p with the largest magnitude, of equal ones the first
    residual <- p - decoded;    u <- 0 where a number is sent

Lin, Han, Mao, Wang & Dally, "Deep gradient compression: Reducing the communication bandwidth for distributed
training", ICLR 2018: momentum correction (section 3.2) and factor masking (3.3), without clipping and warm-up. Momentum
is then the workers', and the server is to have none of its own: a number that stays unsent for long adds up to
1 / (1 - m) times its gradients. Without momentum u is g, and what was decoded and the residual add up to the gradients,
up to the rounding of residual + g: p - decoded is exact.

A number is rounded to 3 bits of fraction, away from zero when in the middle, that is by 1/16 of it at most. Of 256
values 128 are negative; the others are zero and 127 ever larger ones, 8 between a power of two and the next, up to the
largest of the payload: what is less than about 2^-16 of that one is sent as zero. What rounding leaves goes to the
residual, so bytes are better spent on more numbers than on more of their bits.

Words, for k > 0:

    1                  the largest magnitude, rounded, as float32
    ceil(k / 4)        bytes, four a word, the first lowest: the sign, then 7 bits, 0 for zero, else exponent and
                       fraction, as one whole number, less those of the largest, plus 127
    ceil(k b / 32) + ceil((k + ((n - 1) >> b)) / 32)
                       the positions in ascending order: low, then high, as the file `positions` has them, with the b
                       that makes them fewest

that is 9 + b + 2^-b n/k bits a number and what rounding up adds: 16.6 bits at a ratio of 0.01 (b = 6), 20.0 at 0.001
(b = 9); of 652,832 numbers 193 and 1,592 times less than float32. They are a function of n and k: no gradient takes
more or fewer. A payload of what is not finite is refused where it arrives.

State: `residual`, n numbers; `velocity`, n numbers, where there is a momentum.
"""

import numpy as np

from ps_vae.errors import PeerError, UsageError
from ps_vae.jit import exact_kernel
from ps_vae.ps.codecs.codec import Codec, Key, Matrix, State, Vector, Words, check_words
from ps_vae.ps.codecs.positions import low_bits, position_words, read_positions, write_positions
from ps_vae.ps.codecs.selection import RUN, SAMPLE, floor_of, gather, kth_largest, sample_starts

__all__ = ["topk"]


def topk(name: str, ratio: float, momentum: float, numbers: int, matrices: tuple[Matrix, ...]) -> Codec:
    """The codec for so many numbers, whatever they belong to.

    ratio     of them is sent, 0 < ratio <= 1
    momentum  0 <= momentum < 1

    Raises UsageError for anything else. Encoding keeps scratch: one payload at a time.
    """
    if not 0 < ratio <= 1:
        raise UsageError(f"codec {name!r}: a ratio of {ratio}; give what part of the numbers is sent, such as 0.01")
    if not 0 <= momentum < 1:
        raise UsageError(f"codec {name!r}: a momentum of {momentum}; give one from 0 to less than 1, such as 0.9")
    k = max(1, round(ratio * numbers)) if numbers else 0
    state = {"residual": numbers} | ({"velocity": numbers} if momentum else {})
    b = low_bits(k, numbers)
    low_words, high_words = position_words(k, numbers)
    low_at = min(k, 1) + -(-k // 4)
    high_at = low_at + low_words
    words = high_at + high_words
    factor = np.float32(momentum)
    without = np.empty(0, np.float32)
    # Memory that is not written to is not taken: of these as much as there are candidates.
    places, keys = np.empty(numbers, np.int64), np.empty(numbers, np.int32)
    starts = sample_starts(max(numbers, SAMPLE))
    sample = np.empty(SAMPLE, np.int32)

    def encode(gradient: Vector, state: State, key: Key, out: Words) -> None:
        if not k:
            return
        residual, velocity = state["residual"], state.get("velocity", without)
        floor = 0
        if numbers > SAMPLE:
            _look(gradient, velocity, residual, factor, starts, sample)
            floor = floor_of(sample, k, numbers, 0)
        found = _add(gradient, velocity, residual, factor, np.int32(floor), places, keys)
        failures = 0
        while found < k:
            failures += 1
            floor = floor_of(sample, k, numbers, failures)
            found = gather(residual.view(np.int32), 0, np.int32(floor), places, keys, 0)
        threshold, ties = kth_largest(keys[:found], k)
        out[0] = _take(residual, velocity, places[:found], keys[:found], threshold, ties, out[1:low_at].view(np.uint8))
        write_positions(places[:k], b, out[low_at:high_at], out[high_at:])

    def decode(payload: Words, out: Vector) -> None:
        check_words(name, payload, words, numbers)
        if not k:
            return
        largest = payload[0]
        if largest >= _INFINITE or largest & _CUT_OFF:
            text = f"the largest magnitude is {largest.view(np.float32)}, no finite number with 3 bits of fraction"
            raise PeerError("bad-payload", f"{name}: {text}")
        positions = np.empty(k, np.int64)
        found, position = read_positions(payload[low_at:high_at], payload[high_at:], b, numbers, positions)
        if position >= 0:
            text = f"position {found} of {k} is {position}, of {numbers} numbers"
            raise PeerError("bad-payload", f"{name}: {text}, after {positions[found - 1] if found else 'none'}")
        if found != k:
            raise PeerError("bad-payload", f"{name}: {'more' if found > k else found} positions, where {k} are sent")
        _put(positions, payload[1:low_at].view(np.uint8), np.int64(largest) >> _CUT, out.view(np.int32))

    return Codec(name, numbers, words, state, encode, decode)


_CUT = 20
_CUT_OFF, _HALF = np.uint32((1 << _CUT) - 1), np.int64(1 << (_CUT - 1))
_INFINITE = np.uint32(0x7F800000)
_FIRST_INFINITE = np.int64(0x7F8)
_SIGN_BIT, _CODES = np.int64(0x80), np.int64(0x7F)
_SIGN_SHIFT = 24
_BLOCK = 512


@exact_kernel
def _look(gradient, velocity, residual, factor, starts, sample):  # type: ignore[no-untyped-def]
    """Magnitudes, as bits, of some of what will be in the residual."""
    values = sample.view(np.float32)
    for run in range(starts.size):
        for i in range(RUN):
            place = starts[run] + i
            u = gradient[place]
            if velocity.size:
                u += factor * velocity[place]
            values[run * RUN + i] = abs(residual[place] + u)


@exact_kernel
def _add(gradient, velocity, residual, factor, floor, places, keys):  # type: ignore[no-untyped-def]
    """Take a gradient into the state, and gather what is not below the floor; how many there are."""
    bits = residual.view(np.int32)
    found = 0
    for start in range(0, gradient.size, _BLOCK):
        g, left = gradient[start : start + _BLOCK], residual[start : start + _BLOCK]
        if velocity.size:
            u = velocity[start : start + _BLOCK]
            for i in range(g.size):
                u[i] = factor * u[i] + g[i]
                left[i] += u[i]
        else:
            for i in range(g.size):
                left[i] += g[i]
        found = gather(bits[start : start + _BLOCK], start, floor, places, keys, found)
    return found


@exact_kernel
def _take(residual, velocity, places, keys, threshold, ties, values):  # type: ignore[no-untyped-def]
    """Write the values of those among the candidates that are sent, take them out of the state, and move their places
    to the front; the largest magnitude, rounded, as bits."""
    largest = np.int64(0)
    for i in range(keys.size):
        largest = max(largest, np.int64(keys[i]))
    top = _rounded(largest)
    bits = residual.view(np.int32)
    sent = 0
    for i in range(places.size):
        key = np.int64(keys[i])
        if key < threshold or (key == threshold and ties == 0):
            continue
        ties -= key == threshold
        place = places[i]
        rounded = _rounded(key)
        code = rounded - top + _CODES
        sign = (np.int64(bits[place]) >> _SIGN_SHIFT) & _SIGN_BIT
        value = sign | code if rounded > 0 and code > 0 else np.int64(0)
        values[sent] = value
        p = residual[place]
        bits[place] = _bits_of(value, top)
        residual[place] = p - residual[place]
        if velocity.size:
            velocity[place] = 0
        places[sent] = place
        sent += 1
    values[sent:] = 0
    return top << _CUT


@exact_kernel
def _put(positions, values, top, bits):  # type: ignore[no-untyped-def]
    bits[:] = 0
    for j in range(positions.size):
        bits[positions[j]] = _bits_of(np.int64(values[j]), top)


@exact_kernel
def _rounded(magnitude):  # type: ignore[no-untyped-def]
    """Exponent and 3 bits of fraction of a magnitude, given as bits."""
    if magnitude >= _INFINITE:
        return magnitude >> _CUT
    return min((magnitude + _HALF) >> _CUT, _FIRST_INFINITE - 1)


@exact_kernel
def _bits_of(value, top):  # type: ignore[no-untyped-def]
    """The float32, as bits, that a byte stands for."""
    code = value & _CODES
    magnitude = code + top - _CODES
    if code == 0 or magnitude <= 0:
        return np.int32(0)
    return np.int32(((value & _SIGN_BIT) << _SIGN_SHIFT) | (magnitude << _CUT))
