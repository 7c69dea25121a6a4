"""The bytes on the wire and PROTOCOL.md: neither changes without the other."""

import ast
import dataclasses
import re
import struct
from pathlib import Path

import msgpack
import numpy as np
import pytest
from blake2b import blake2b

import ps_vae.ps
from ps_vae.errors import PeerError
from ps_vae.ps.frames import decode, encode
from ps_vae.ps.messages import (
    TO_CLIENT,
    TO_SERVER,
    Admit,
    Applied,
    Bye,
    Copy,
    Error,
    Follow,
    Hello,
    Join,
    Lead,
    Meet,
    Milestone,
    Moved,
    Present,
    Pull,
    Push,
    Ready,
    Replicate,
    Replicated,
    Report,
    Share,
    Snapshot,
    Standby,
    State,
    Status,
    Stop,
    TakeSnapshot,
    Trouble,
    Weights,
    Welcome,
    Who,
    Work,
)

ROOM = Path(ps_vae.ps.__file__).parent
PROTOCOL = (ROOM / "PROTOCOL.md").read_text(encoding="utf-8")
KINDS = {**TO_SERVER, **TO_CLIENT}

RUN = bytes(range(16))
SESSION = bytes(range(16, 32))
VECTOR = np.array([1, -2.5], np.float32)
OTHER = np.array([0.5, 3], np.float32)

GOLDEN = [
    (
        Hello(5, SESSION, "worker", "host:1", "avx2"),
        [
            "86a174a568656c6c6fa17005a173c410101112131415161718191a1b1c1d1e1fa172a6776f726b6572a16ea6686f73743a31a166a461767832"
        ],
    ),
    (
        Welcome(SESSION, RUN, b"{}", (("", 0, 16), ("tcp://*:2", 16, 48)), 4, 100, None, 0, 0, 7, 2),
        [
            "8ca174a777656c636f6d65a173c410101112131415161718191a1b1c1d1e1fa372756ec410000102030405060708090a0b0c0d0e0fa163c4027b7da1689293a0001093a97463703a2f2f2a3a321030a16d04a16e64a162c0a16400a16600a17607a26d7602"
        ],
    ),
    (
        Ready(SESSION, 3, 1_500_000, 0, 0, 2),
        ["87a174a57265616479a173c410101112131415161718191a1b1c1d1e1fa16b03a26e73ce0016e360a2656e00a2777400a26d7602"],
    ),
    (
        Work(4, 7, ((0, 2), (2, 3))),
        ["84a174a4776f726ba16b04a16e07a16292920002920203"],
    ),
    (
        Push(RUN, 1, SESSION, 4, 7, 0, 2, 7, (-1.5, 0.25), (8, 8), (VECTOR,)),
        [
            "8ba174a470757368a372756ec410000102030405060708090a0b0c0d0e0fa16901a173c410101112131415161718191a1b1c1d1e1fa16b04a16e07a16100a17a02a17607a16d92cbbff8000000000000cb3fd0000000000000a177920808",
            "0000803f000020c0",
        ],
    ),
    (
        Pull(RUN, 1, (7, None), False),
        ["85a174a470756c6ca372756ec410000102030405060708090a0b0c0d0e0fa16901a1779207c0a178c2"],
    ),
    (
        Weights(8, False, None, (VECTOR,)),
        ["84a174a777656967687473a17608a165c2a162c0", "0000803f000020c0"],
    ),
    (
        Trouble(SESSION, 4, "NaN"),
        ["84a174a774726f75626c65a173c410101112131415161718191a1b1c1d1e1fa16b04a165a34e614e"],
    ),
    (
        Milestone(100, True),
        ["83a174a96d696c6573746f6e65a17664a16cc3"],
    ),
    (
        Report(SESSION, 100, (("elbo", -99.5),), 2),
        [
            "85a174a67265706f7274a173c410101112131415161718191a1b1c1d1e1fa17664a16d9192a4656c626fcbc058e00000000000a26d7602"
        ],
    ),
    (
        Bye(SESSION),
        ["82a174a3627965a173c410101112131415161718191a1b1c1d1e1f"],
    ),
    (
        Status(),
        ["81a174a6737461747573"],
    ),
    (
        State(b"{}"),
        ["82a174a57374617465a16ac4027b7d"],
    ),
    (
        Stop(False, "done"),
        ["83a174a473746f70a166c2a165a4646f6e65"],
    ),
    (
        Error("gone", "too late"),
        ["83a174a56572726f72a163a4676f6e65a165a8746f6f206c617465"],
    ),
    (
        Share(),
        ["81a174a57368617265"],
    ),
    (
        Meet(b"\0ps", SESSION),
        ["83a174a46d656574a16ec403007073a177c410101112131415161718191a1b1c1d1e1f"],
    ),
    (
        Join(5, SESSION, "tcp://b:2", True),
        ["85a174a46a6f696ea17005a173c410101112131415161718191a1b1c1d1e1fa161a97463703a2f2f623a32a166c3"],
    ),
    (
        Admit(RUN, b"{}", 1, 16, 48, 4, 100, 0, 0, 10, 5, "", 2, 7, ("m",), (VECTOR, OTHER)),
        [
            "de0010a174a561646d6974a372756ec410000102030405060708090a0b0c0d0e0fa163c4027b7da16901a16110a17a30a16d04a16e64a16200a16400a26d730aa16605a16ca0a2696302a17607a16f91a16d",
            "0000803f000020c0",
            "0000003f00004040",
        ],
    ),
    (
        Applied(
            run=RUN,
            shard=0,
            before=8,
            beyond=(9, 11),
            pushed=4096,
            pulled=300,
            shared=5,
            dense=0,
            incarnation=1,
            follower=SESSION,
            leaving=None,
            refused=(("gone", 2),),
            blamed=((SESSION, 4, "not-finite"),),
            session=SESSION,
            metrics=(-1.5, 0.25),
            duplicates=6,
        ),
        [
            "de0011a174a76170706c696564a372756ec410000102030405060708090a0b0c0d0e0fa16900a17608a17992090ba2696ecd1000a36f7574cd012ca2736805a2646500a2696301a166c410101112131415161718191a1b1c1d1e1fa16cc0a272659192a4676f6e6502a2626c9193c410101112131415161718191a1b1c1d1e1f04aa6e6f742d66696e697465a173c410101112131415161718191a1b1c1d1e1fa16d92cbbff8000000000000cb3fd0000000000000a2647506"
        ],
    ),
    (
        Who(RUN),
        ["82a174a377686fa372756ec410000102030405060708090a0b0c0d0e0f"],
    ),
    (
        Present(RUN, 1, SESSION, "tcp://b:2", leads=False, incarnation=2, leader="tcp://a:1"),
        [
            "88a174a770726573656e74a372756ec410000102030405060708090a0b0c0d0e0fa16901a173c410101112131415161718191a1b1c1d1e1fa161a97463703a2f2f623a32a26c64c2a2696302a16ca97463703a2f2f613a31"
        ],
    ),
    (
        TakeSnapshot(9),
        ["82a174ad74616b652d736e617073686f74a17609"],
    ),
    (
        Snapshot(RUN, 1, 9, (-1.5,), ("m",), (VECTOR, OTHER)),
        [
            "86a174a8736e617073686f74a372756ec410000102030405060708090a0b0c0d0e0fa16901a17609a16d91cbbff8000000000000a16f91a16d",
            "0000803f000020c0",
            "0000003f00004040",
        ],
    ),
    (
        Moved(2, ("", "tcp://b:2")),
        ["83a174a56d6f766564a26d7602a16892a0a97463703a2f2f623a32"],
    ),
    (
        Lead(RUN, 1, 2, SESSION),
        [
            "85a174a46c656164a372756ec410000102030405060708090a0b0c0d0e0fa16901a2696302a167c410101112131415161718191a1b1c1d1e1f"
        ],
    ),
    (
        Follow(RUN, 1, SESSION),
        [
            "84a174a6666f6c6c6f77a372756ec410000102030405060708090a0b0c0d0e0fa16901a166c410101112131415161718191a1b1c1d1e1f"
        ],
    ),
    (
        Copy(SESSION, 9, 12, (-1.5,), ("weights", "optimizer/m"), (VECTOR, OTHER)),
        [
            "86a174a4636f7079a166c410101112131415161718191a1b1c1d1e1fa17609a1750ca16d91cbbff8000000000000a16f92a777656967687473ab6f7074696d697a65722f6d",
            "0000803f000020c0",
            "0000003f00004040",
        ],
    ),
    (
        Replicate(SESSION, 9, (-1.5,), (VECTOR,)),
        [
            "84a174a97265706c6963617465a166c410101112131415161718191a1b1c1d1e1fa17609a16d91cbbff8000000000000",
            "0000803f000020c0",
        ],
    ),
    (
        Replicated(SESSION, 10),
        ["83a174aa7265706c696361746564a166c410101112131415161718191a1b1c1d1e1fa1760a"],
    ),
    (
        Standby(RUN, 1, SESSION, None, 5, 9),
        [
            "87a174a77374616e646279a372756ec410000102030405060708090a0b0c0d0e0fa16901a173c410101112131415161718191a1b1c1d1e1fa166c0a16205a17609"
        ],
    ),
]


SECRET = bytes(range(32, 48))
PERMITS = bytes.fromhex("eec8a572e75807cfbdae413df04390ac"), bytes.fromhex("9312c80f70f65ee7d8ab4fabcddeb78e")

# With what is left out where a run has no permits.
GOLDEN_PERMITTED = [
    (
        Work(4, 7, ((2, 3), (3, 4)), PERMITS),
        [
            "85a174a4776f726ba16b04a16e07a16292920203920304a2706d92c410eec8a572e75807cfbdae413df04390acc4109312c80f70f65ee7d8ab4fabcddeb78e"
        ],
    ),
    (
        Push(RUN, 1, SESSION, 4, 7, 2, 3, 7, (-1.5, 0.25), (8, 8), (VECTOR,), PERMITS[0]),
        [
            "8ca174a470757368a372756ec410000102030405060708090a0b0c0d0e0fa16901a173c410101112131415161718191a1b1c1d1e1fa16b04a16e07a16102a17a03a17607a16d92cbbff8000000000000cb3fd0000000000000a177920808a2706dc410eec8a572e75807cfbdae413df04390ac",
            "0000803f000020c0",
        ],
    ),
    (
        Admit(RUN, b"{}", 1, 16, 48, 4, 100, 0, 0, 10, 5, "", 2, 7, ("m",), (VECTOR, OTHER), SECRET),
        [
            "de0011a174a561646d6974a372756ec410000102030405060708090a0b0c0d0e0fa163c4027b7da16901a16110a17a30a16d04a16e64a16200a16400a26d730aa16605a16ca0a2696302a17607a16f91a16da27363c410202122232425262728292a2b2c2d2e2f",
            "0000803f000020c0",
            "0000003f00004040",
        ],
    ),
]
ALL_GOLDEN = [*GOLDEN, *GOLDEN_PERMITTED]


def test_the_golden_permits_are_what_the_specification_says():
    words = struct.pack("<16sQQII", SESSION, 4, 7, 2, 3), struct.pack("<16sQQII", SESSION, 4, 7, 3, 4)

    assert tuple(blake2b(of_one, SECRET, 16) for of_one in words) == PERMITS


def test_every_message_has_a_golden_vector():
    assert {type(message) for message, _ in GOLDEN} == set(KINDS.values())


@pytest.mark.parametrize(("message", "frames"), ALL_GOLDEN, ids=lambda value: getattr(value, "KIND", ""))
def test_a_message_is_exactly_these_bytes(message, frames):
    assert [bytes(frame).hex() for frame in encode(message)] == frames


@pytest.mark.parametrize(("message", "frames"), ALL_GOLDEN, ids=lambda value: getattr(value, "KIND", ""))
def test_these_bytes_are_exactly_that_message(message, frames):
    decoded = decode([bytes.fromhex(frame) for frame in frames], KINDS)

    assert type(decoded) is type(message)
    for field in dataclasses.fields(message):
        came, expected = getattr(decoded, field.name), getattr(message, field.name)
        if field.name == "payload":
            assert [array.tolist() for array in came] == [array.tolist() for array in expected]
        else:
            assert came == expected


@pytest.mark.parametrize("kind", ["hello", "work", "push", "weights"])
def test_the_specification_shows_the_golden_vectors(kind):
    for frames in [frames for message, frames in ALL_GOLDEN if kind == message.KIND]:
        assert f"    {' | '.join(frames)}\n" in PROTOCOL


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_the_specification_says_which_keys_are_left_out(kind):
    expected = [field.metadata["key"] for field in dataclasses.fields(KINDS[kind]) if "is_extra" in field.metadata]

    assert re.findall(r"^\| `(\w+)` \|.*; left out where", section(f"### `{kind}`"), re.MULTILINE) == expected


@pytest.mark.parametrize(("message", "frames"), GOLDEN_PERMITTED, ids=lambda value: getattr(value, "KIND", ""))
def test_a_key_that_may_be_left_out_is_checked_where_it_is_there(message, frames):
    header = msgpack.unpackb(bytes.fromhex(frames[0]))
    (key,) = [field.metadata["key"] for field in dataclasses.fields(message) if "is_extra" in field.metadata]
    for wrong in (None, 1, b"", b"x" * 15, b"x" * 17, [b"x" * 17], [None], "x" * 16):
        changed = [msgpack.packb(header | {key: wrong}), *map(bytes.fromhex, frames[1:])]
        with pytest.raises(PeerError, match=f"'{key}' is not"):
            decode(changed, KINDS)


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_the_specification_has_the_keys_names_and_types_of_a_message(kind):
    fields = [field for field in dataclasses.fields(KINDS[kind]) if "key" in field.metadata]
    expected = [(field.metadata["key"], field.name, str(field.metadata["check"])) for field in fields]

    assert re.findall(r"^\| `(\w+)` \| (\w+) \| ([^|]+) \|", section(f"### `{kind}`"), re.MULTILINE) == expected


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_the_specification_says_which_messages_carry_tensors(kind):
    carries = any("at_most" in field.metadata for field in dataclasses.fields(KINDS[kind]))

    assert ("frame 1:" in section(f"### `{kind}`")) == carries


def test_the_specification_lists_every_message_once():
    assert sorted(re.findall(r"^### `([\w-]+)`$", PROTOCOL, re.MULTILINE)) == sorted(KINDS)


def test_the_codes_of_the_specification_are_those_of_the_source():
    listed = re.findall(r"^\| `([\w-]+)` \|", section("## Errors"), re.MULTILINE)

    assert len(set(listed)) == len(listed)
    assert set(listed) == set(codes())


def section(heading):
    """The text from a heading to the next of its level or above."""
    start = PROTOCOL.index(f"{heading}\n")
    level = heading.split()[0]
    end = re.compile(rf"^#{{2,{len(level)}}} ", re.MULTILINE).search(PROTOCOL, start + len(heading))
    return PROTOCOL[start : end.start() if end else None]


def codes():
    """First argument of every PeerError and Error in the source."""
    for file in ROOM.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            match node:
                case ast.Call(func=ast.Name(id="PeerError" | "Error"), args=[ast.Constant(value=code), *_]):
                    yield code
