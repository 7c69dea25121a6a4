"""Whatever comes is either a message or a PeerError, and what was sent is what comes."""

import dataclasses
import tracemalloc

import msgpack
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ps_vae.errors import PeerError
from ps_vae.ps.fields import Binary, Boolean, Each, Integer, ListOf, Nullable, Number, Span, Text
from ps_vae.ps.frames import HEADER_LIMIT, decode, encode
from ps_vae.ps.messages import TO_CLIENT, TO_SERVER, Pull, Push, Weights

KINDS = {**TO_SERVER, **TO_CLIENT}
RUN = b"r" * 16
SESSION = b"s" * 16


def values(check):
    """What a field of this type may hold."""
    match check:
        case Integer(bits):
            return st.integers(0, 2**bits - 1)
        case Number():
            return st.floats(allow_nan=False)
        case Boolean():
            return st.booleans()
        case Binary(at_most, at_least):
            return st.binary(min_size=at_least, max_size=min(at_most, 64))
        case Text(at_most):
            return st.text(max_size=min(at_most, 32))
        case Nullable(inner):
            return st.none() | values(inner)
        case ListOf(inner, at_most):
            return st.lists(values(inner), max_size=min(at_most, 5)).map(tuple)
        case Each(inner):
            return st.tuples(*(values(one) for one in inner))
        case Span():
            numbers = st.integers(0, 2**63 - 1)
            return st.tuples(numbers, st.none()) | st.tuples(numbers, numbers).map(sorted).map(tuple)
    raise AssertionError(f"no values for {check}")


vectors = st.lists(st.floats(width=32, allow_nan=False), max_size=8).map(lambda numbers: np.array(numbers, np.float32))


def instances(cls):
    fields = {
        field.name: values(field.metadata["check"])
        if "key" in field.metadata
        else st.lists(vectors, max_size=field.metadata["at_most"]).map(tuple)
        for field in dataclasses.fields(cls)
    }
    return st.builds(cls, **fields)


messages = st.sampled_from(sorted(KINDS)).flatmap(lambda kind: instances(KINDS[kind]))
parsed = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats() | st.text(max_size=8) | st.binary(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4) | st.binary(max_size=4), inner),
    max_leaves=10,
)


def take(frames):
    """Decode; anything but a message or a PeerError fails the test."""
    try:
        return decode(frames, KINDS)
    except PeerError as error:
        refusal = error
    assert refusal.code in ("malformed", "unknown-message")
    assert len(str(refusal)) < 2048
    return refusal


@given(messages)
@settings(max_examples=150)
def test_what_is_decoded_is_what_was_encoded(message):
    decoded = decode([bytes(frame) for frame in encode(message)], KINDS)

    assert type(decoded) is type(message)
    for field in dataclasses.fields(message):
        came, sent = getattr(decoded, field.name), getattr(message, field.name)
        if field.name == "payload":
            assert [array.tobytes() for array in came] == [array.tobytes() for array in sent]
        else:
            assert came == sent


@given(messages)
def test_no_message_is_longer_than_a_receiver_takes(message):
    assert len(encode(message)[0]) <= HEADER_LIMIT


@given(st.lists(st.binary(max_size=200), max_size=5))
@settings(max_examples=150)
def test_random_bytes_are_refused(frames):
    assert isinstance(take(frames), PeerError)


@given(messages, st.data())
@settings(max_examples=150)
def test_a_message_with_some_bytes_changed_is_a_message_or_refused(message, data):
    header, *rest = (bytearray(frame) for frame in encode(message))
    for _ in range(data.draw(st.integers(1, 4))):
        header[data.draw(st.integers(0, len(header) - 1))] = data.draw(st.integers(0, 255))
    take([header[: data.draw(st.integers(0, len(header)))], *rest])
    take([header, *rest])


@given(messages, st.data())
@settings(max_examples=150)
def test_a_header_with_other_values_or_keys_is_a_message_or_refused(message, data):
    header = msgpack.unpackb(encode(message)[0])
    key = data.draw(st.sampled_from(sorted(header)) | st.text(max_size=3))
    header[key] = data.draw(parsed)
    take([msgpack.packb(header)])


@given(parsed)
def test_a_header_that_is_anything_else_is_refused(value):
    assert isinstance(take([msgpack.packb(value)]), PeerError)


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_a_missing_key_is_named(kind):
    for field in dataclasses.fields(KINDS[kind]):
        if "key" in field.metadata:
            keys = {f.metadata["key"] for f in dataclasses.fields(KINDS[kind]) if "key" in f.metadata}
            header = {"t": kind} | dict.fromkeys(keys - {field.metadata["key"]})
            assert isinstance(take([msgpack.packb(header)]), PeerError)
    with pytest.raises(PeerError, match="'w' is missing"):
        decode([msgpack.packb({"t": "pull", "run": RUN, "i": 0})], KINDS)


@pytest.mark.parametrize(
    ("header", "reason"),
    [
        (b"", "not msgpack"),
        (b"\xc1", "not msgpack"),
        (b"\x91" * 60_000 + b"\xc0", "not msgpack"),
        (b"\x81" * 60_000, "not msgpack"),
        (b"\xdd\xff\xff\xff\xff", "not msgpack"),
        (b"\xdf\xff\xff\xff\xff", "not msgpack"),
        (b"\xc6\xff\xff\xff\xff", "not msgpack"),
        (b"\x81\xa1t\xc7\x08\x01" + bytes(8), "not msgpack"),
        (b"\x81\xa1t\xd6\xff" + bytes(4), "not msgpack"),
        (b"\x80" + b"\x80", "not msgpack"),
        (msgpack.packb([[[]] * 4096]) + b"x", "not msgpack"),
        (msgpack.packb({"t": [[]] * 4097}), "not msgpack"),
        (msgpack.packb({"t": {str(n): n for n in range(65)}}), "not msgpack"),
        (b"\x81\xa1t\xa1\xff", "not msgpack"),
        (msgpack.packb([1, 2]), "not a map"),
        (msgpack.packb({b"t": "bye"}), "not a map with text keys"),
        (b"\x80" * (HEADER_LIMIT + 1), "longer than 65536"),
        (msgpack.packb({"t": "bye", "s": RUN, "x": 1}), "1 keys that it does not have"),
        (msgpack.packb({"t": "bye", "s": RUN[:15]}), "'s' is not 16 to 16 bytes"),
        (msgpack.packb({"t": "bye", "s": "r" * 16}), "'s' is not 16 to 16 bytes"),
        (msgpack.packb({"t": "weights", "v": -1}), "'v' is not an integer"),
        (msgpack.packb({"t": "weights", "v": True}), "'v' is not an integer"),
        (msgpack.packb({"t": "weights", "v": 2**63}), "'v' is not an integer"),
        (msgpack.packb({"t": "weights", "v": 1.0}), "'v' is not an integer"),
        (msgpack.packb({"t": "pull", "run": RUN, "i": 0, "w": [5, 4]}), "4 is below 5"),
        (msgpack.packb({"t": "pull", "run": RUN, "i": 0, "w": [5]}), "not an array of 2"),
        (msgpack.packb({"t": "stop", "f": 1, "e": ""}), "'f' is not a boolean"),
        (msgpack.packb({"t": "stop", "f": False, "e": "x" * 2049}), "'e' is not text"),
    ],
)
def test_a_malformed_header_is_refused_with_the_reason(header, reason):
    with pytest.raises(PeerError, match=reason) as caught:
        decode([header], KINDS)

    assert caught.value.code == "malformed"


def test_no_frame_at_all_is_refused():
    with pytest.raises(PeerError, match="missing"):
        decode([], KINDS)


@pytest.mark.parametrize("kind", [None, 7, "no-such", "weights", ["t"], {"a": 1}, "x" * 60_000])
def test_a_kind_that_does_not_come_here_is_refused_in_a_short_text(kind):
    with pytest.raises(PeerError) as caught:
        decode([msgpack.packb({"t": kind, "v": 1})], TO_SERVER)

    assert caught.value.code == "unknown-message"
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize(
    ("message", "extra", "reason"),
    [
        (Weights(1, False, None), [b"123"], "3 bytes is not made of float32"),
        (Weights(1, False, None), [b"1234", b"1234"], "2 tensors, at most 1"),
        (Pull(RUN, 0, (0, None), False), [b""], "1 frames after the header"),
        (Weights(1, False, None), [b"1234"] * 200, "200 tensors, at most 1"),
    ],
)
def test_tensors_that_do_not_fit_are_refused(message, extra, reason):
    with pytest.raises(PeerError, match=reason):
        decode([encode(message)[0], *extra], KINDS)


def test_tensors_are_views_and_not_copies():
    vector = np.arange(4, dtype=np.float32)

    frames = encode(Push(RUN, 0, SESSION, 1, 0, 0, 1, 0, (), None, (vector,)))
    received = bytes(frames[1])
    decoded = decode([frames[0], received], KINDS).payload[0]

    assert np.shares_memory(np.frombuffer(frames[1], np.uint8), vector)
    assert np.shares_memory(decoded, np.frombuffer(received, np.uint8))
    assert not decoded.flags.writeable


def test_text_that_is_not_unicode_travels_with_question_marks():
    header = encode(KINDS["trouble"](RUN, 1, "caf\udce9.npy"))[0]

    assert decode([header], KINDS).text == "caf?.npy"


SMALL = [b"\x90", b"\x80", b"\xa0", b"\xc4\x00"]


@pytest.mark.parametrize("leaf", SMALL, ids=["arrays", "maps", "texts", "bytes"])
@pytest.mark.parametrize("in_parcels", [False, True])
def test_a_header_takes_a_bounded_amount_of_memory_whatever_is_in_it(leaf, in_parcels):
    room = HEADER_LIMIT - 3 - (0 if not in_parcels else 3 * 15)
    if in_parcels:
        # 15 arrays, none longer than an array may be, as full as the header has room for.
        count = room // len(leaf) // 15
        header = b"\x9f" + 15 * (b"\xdc" + min(count, 4096).to_bytes(2, "big") + min(count, 4096) * leaf)
    else:
        header = b"\xdc" + min(room // len(leaf), 65535).to_bytes(2, "big") + room // len(leaf) * leaf
    assert len(header) <= HEADER_LIMIT

    tracemalloc.start()
    with pytest.raises(PeerError) as caught:
        decode([header], KINDS)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()

    assert caught.value.code == "malformed"
    # 64 KiB of empty maps, at 72 bytes each.
    assert peak < 6_000_000
