"""Messages that travel together arrive as they were sent, one tensor at most among them."""

import msgpack
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ps_vae.errors import PeerError
from ps_vae.ps.frames import HEADER_LIMIT, PARCEL_LIMIT, decode, pack, unpack
from ps_vae.ps.messages import TO_CLIENT, TO_SERVER, Bye, Push, Ready, Stop, Weights, Welcome, Work
from ps_vae.ps.parcels import parcels

RUN, SESSION = b"r" * 16, b"s" * 16
KINDS = {**TO_SERVER, **TO_CLIENT}
VECTOR = np.arange(4, dtype=np.float32)
READY, PUSH = Ready(SESSION, 1, 2, 0, 0, 0), Push(RUN, 0, SESSION, 1, 0, 0, 1, 0, (1.0,), (1, 1), (VECTOR,))
OTHER_PUSH = Push(RUN, 0, SESSION, 1, 0, 1, 2, 0, (1.0,), (1, 1), (VECTOR + 1,))
WELCOME = Welcome(SESSION, RUN, bytes(32 * 1024), (("tcp://a:1", 0, 4),), 1, 1, 0, 0, 0, 0, 0)


def shown(messages):
    """Something that can be compared: arrays have no truth."""
    return [(type(m), [a.tolist() for a in getattr(m, "payload", ())], repr(m).split("payload")[0]) for m in messages]


some = st.sampled_from([READY, PUSH, WELCOME, Work(1, 2, ((0, 1),)), Weights(3, False, None, (VECTOR,)), Bye(SESSION)])


@given(st.lists(some, max_size=30))
def test_parcels_keep_the_order_and_fit_into_a_header_with_one_tensor_at_most(messages):
    made = list(parcels(messages))

    assert shown([message for parcel in made for message in parcel]) == shown(messages)
    for parcel in made:
        assert 0 < len(parcel) <= PARCEL_LIMIT
        assert sum(bool(getattr(message, "payload", ())) for message in parcel) <= 1
        frames, _ = pack(parcel)
        assert len(frames[0]) <= HEADER_LIMIT
        assert shown(unpack([bytes(frame) for frame in frames], KINDS)) == shown(parcel)


def test_the_tensor_belongs_to_the_message_that_has_none_in_shared_memory():
    places = iter([(7, 2, 16, 4), None])
    frames, lent = pack([PUSH, OTHER_PUSH, Stop(False, "")], lambda array: next(places))

    assert len(lent) == 1
    first, second, stop = unpack([bytes(frame) for frame in frames], KINDS, {(7, 2, 16, 4): 2 * VECTOR}.__getitem__)

    np.testing.assert_array_equal(first.payload[0], 2 * VECTOR)
    np.testing.assert_array_equal(second.payload[0], OTHER_PUSH.payload[0])
    assert stop == Stop(False, "")


def test_an_array_that_is_lent_is_named_instead_of_sent():
    frames, lent = pack([READY, PUSH], lambda array: (7, 2, 16, array.size))

    assert lent == [(7, 2, 16, 4)]
    assert len(frames) == 1
    ready, push = unpack(frames, KINDS, {(7, 2, 16, 4): VECTOR}.__getitem__)
    assert ready == READY
    assert push.payload == (VECTOR,)


def test_an_array_that_cannot_be_lent_is_sent():
    frames, lent = pack([PUSH], lambda array: None)

    assert (len(frames), lent) == (2, [])


def test_a_place_in_memory_that_is_not_shared_is_refused():
    frames, _ = pack([PUSH], lambda array: (7, 2, 16, array.size))

    with pytest.raises(PeerError) as refusal:
        unpack(frames, KINDS)
    assert refusal.value.code == "not-shared"


@pytest.mark.parametrize(
    "place", [[], [7, 2, 16], [[7, 2, 16, 4]], [7, -1, 16, 4], [7, 2, 16.0, 4], [1 << 32, 0, 0, 1], 7, None]
)
def test_a_place_that_makes_no_sense_is_malformed(place):
    header = msgpack.unpackb(pack([PUSH])[0][0])

    with pytest.raises(PeerError, match=r"push: .@. is not") as refusal:
        unpack([msgpack.packb({**header, "@": place})], KINDS, lambda place: VECTOR)
    assert refusal.value.code == "malformed"


@pytest.mark.parametrize("count", [0, PARCEL_LIMIT + 1])
def test_no_message_and_too_many_are_malformed(count):
    header = msgpack.packb([{"t": "bye", "s": SESSION}] * count)

    with pytest.raises(PeerError, match=f"{count} messages at once"):
        unpack([header], KINDS)


def test_a_tensor_of_nobody_is_malformed():
    with pytest.raises(PeerError, match="belong to no message"):
        unpack([msgpack.packb([{"t": "bye", "s": SESSION}] * 2), b"1234"], KINDS)


def test_one_message_is_not_two():
    with pytest.raises(PeerError, match="2 messages where one"):
        decode(pack([READY, READY])[0], KINDS)
