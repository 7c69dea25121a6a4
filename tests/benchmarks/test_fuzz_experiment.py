"""The experiment with tampered messages: what is sent is reproducible and of every sort, and servers survive it."""

import random
import threading
from collections import Counter
from typing import Any

import numpy as np
import pytest
import zmq
from faults import fuzz
from faults.expected import judge
from faults.fuzzer import Fuzzer, Speaker, knowledge
from faults.hostile import pack_map
from faults.mutations import MUTATIONS, Message, mutate, plain
from faults.valid import KINDS, Known, valid
from ps.test_sockets import VALUE, FirstServer, worker

from ps_vae.ps.client import Outcome
from ps_vae.ps.frames import decode, encode
from ps_vae.ps.messages import PROTOCOL, Applied, Hello, Push, Ready
from ps_vae.ps.outbox import RunEnded

KNOWN = Known(b"r" * 16, b"s" * 16, b"f" * 16, 0, 160, 4, 1000, 10)
MESSAGES = {kind: Message(message) for kind, message in valid(KNOWN).items()}


def drawn(seed: int, count: int) -> list[tuple[str, str, list[bytes]]]:
    draw = random.Random(seed)
    kinds = [draw.choice(list(MESSAGES)) for _ in range(count)]
    return [(kind, *mutate(draw, kind, MESSAGES)) for kind in kinds]


def test_there_is_a_valid_message_of_every_kind_and_it_is_that_message() -> None:
    assert MESSAGES.keys() == KINDS.keys()
    for kind, message in valid(KNOWN).items():
        again = decode(plain(MESSAGES[kind]), dict(KINDS))
        assert [bytes(frame) for frame in encode(again)] == [bytes(frame) for frame in encode(message)]


def test_the_same_seed_tampers_with_the_same_messages_in_the_same_way_and_another_does_not() -> None:
    assert drawn(1, 300) == drawn(1, 300)
    assert drawn(1, 300) != drawn(2, 300)


def test_every_kind_is_tampered_with_in_every_way() -> None:
    found = {(kind, name) for kind, name, _ in drawn(0, 60_000)}
    assert found == {(kind, name) for kind in KINDS for name in MUTATIONS}


def test_most_of_what_is_sent_is_refused_and_for_more_than_one_reason() -> None:
    codes = Counter(code for _, _, frames in drawn(3, 5000) for code in judge(frames, KNOWN, (), is_member=True).codes)
    assert codes["malformed"] > 1000
    assert codes["unknown-message"] > 500
    assert codes.keys() >= {"not-shared", "unknown-session", "wrong-run", "protocol"}


def test_a_map_may_have_a_key_twice() -> None:
    assert pack_map([(b"\xa1a", b"\x01"), (b"\xa1a", b"\x02")]) == b"\x82\xa1a\x01\xa1a\x02"


def pushed(**changes: Any) -> Push:
    words: dict[str, Any] = {"step": 10, "version": 10, "payload": (np.ones(160, np.float32),)}
    words |= changes
    run, shard, session = words.get("run", KNOWN.run), words.get("shard", 0), KNOWN.session
    return Push(run, shard, session, 1, words["step"], 0, 4, words["version"], (), None, words["payload"])


@pytest.mark.parametrize(
    ("message", "withheld"),
    [
        (pushed(), "push"),
        (pushed(step=9), None),
        (pushed(shard=1), None),
        (pushed(run=b"x" * 16), None),
        (pushed(payload=(np.full(160, np.nan, np.float32),)), None),
        (pushed(payload=(np.ones(159, np.float32),)), None),
        (Ready(KNOWN.session, 0, 0, 0, 0, 0), "ready"),
        (Ready(b"y" * 16, 0, 0, 0, 0, 0), None),
        (Applied(KNOWN.run, 0, 5, (), 0, 0, 0, 0, 0, None, None), "applied"),
        (Applied(KNOWN.run, 0, 5, (), 0, 0, 0, 0, 0, None, None, session=KNOWN.session), None),
        (Applied(b"x" * 16, 0, 5, (), 0, 0, 0, 0, 0, None, None), None),
        (Hello(PROTOCOL, KNOWN.session, "worker", "w", "f"), None),
    ],
    ids=repr,
)
def test_only_lies_are_withheld(message: Any, withheld: str | None) -> None:
    found = judge(encode(message), KNOWN, {KNOWN.session}, is_member=True)
    assert found.withheld == withheld


def test_who_has_not_come_in_does_not_say_hello() -> None:
    hello = encode(Hello(PROTOCOL, KNOWN.session, "worker", "w", "f"))
    assert judge(hello, KNOWN, (), is_member=False).withheld == "hello"


@pytest.mark.parametrize("phase", ["before", "after"])
def test_thousands_of_tampered_messages_are_answered_and_the_worker_s_sum_is_exact(phase: str) -> None:
    with FirstServer("tcp://127.0.0.1:*", steps=1_000_000) as server:
        one = worker(server.address)
        with zmq.Context() as context:
            shards, known = knowledge(context, server.address, None)
            fuzzer = Fuzzer(context, shards, known, 11, None)
            found = fuzzer.say(0, 2500, phase, 1e9)
            fuzzer.close()
        assert server.failure is None
        assert server.ended_when_told() == RunEnded(False, "stopped")
        assert one.outcome() == Outcome(False, "stopped")

    assert found["faults"] == []
    assert found["sent"] > 2200
    assert sum(found["mutations"].values()) == 2500
    assert set(found["answers"]) >= {"malformed", "unknown-message", "wrong-run", "not-shared", "state", "meet"}
    np.testing.assert_array_equal(server.result, server.shard.version * 4 * VALUE)


def test_a_server_that_leaves_out_an_error_and_one_that_says_nothing_are_found_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("faults.fuzzer._PATIENCE_SECONDS", 0.5)
    with zmq.Context() as context, context.socket(zmq.ROUTER) as router:
        port = router.bind_to_random_port("tcp://127.0.0.1")
        is_silent = threading.Event()

        def serve() -> None:
            # It answers the marks alone, which are unknown messages with a word in them.
            while not is_silent.is_set():
                if router.poll(20):
                    sender, *frames = router.recv_multipart()
                    if b"mark" in frames[0]:
                        text = frames[0][4:].decode()
                        router.send_multipart([sender, pack_map([(b"\xa1t", b"\xa5error"), *_error(text)])])

        server = threading.Thread(target=serve, daemon=True)
        server.start()
        speaker = Speaker(context, f"tcp://127.0.0.1:{port}", "stranger", KNOWN, set(), 0, None)
        speaker.say(0, 24)
        speaker.hear()
        is_silent.set()
        server.join()
        speaker.say(24, 24)
        speaker.hear()
        speaker.close()

    lacking, unanswered = speaker.found.faults
    assert "lack these errors" in lacking
    assert "were not answered within 0.5 s" in unanswered


def _error(text: str) -> list[tuple[bytes, bytes]]:
    return [(b"\xa1c", b"\xa1x"), (b"\xa1e", b"\xd9" + bytes([len(text)]) + text.encode())]


def stretch(phase: str = "before", **changes: Any) -> dict[str, Any]:
    usual: dict[str, Any] = {"beside": 95.0, "alone": 100.0, "faults": [], "sent": 50, "seconds": 1.0, "us": 40.0}
    usual |= {"answers": {"malformed": 3, "state": 1}, "withheld": {"ready": 2}, "held": {"memory": [100, 100]}}
    return {"phase": phase, **usual, **changes}


def found_with(**changes: Any) -> dict[str, Any]:
    stretches = [stretch(phase) for phase in ("before", "after") * 2]
    usual = {"stretches": stretches, "stuck": "", "there": True, "codes": [0, 0, 0], "same_bits": True, "version": 9}
    return usual | changes


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"stuck": "the fuzzer has ended"}, "the fuzzer has ended"),
        ({"codes": [0, 1, 0]}, "exit codes"),
        ({"same_bits": False}, "other bits"),
        ({"there": False, "last_words": "a traceback"}, "a traceback"),
        ({"stretches": [stretch(beside=80.0)] * 4}, "0.80 of its pace"),
        ({"stretches": [*[stretch()] * 3, stretch(held={"memory": [100, 106]})]}, "shard 2 has 1.06 times"),
        ({"stretches": [*[stretch()] * 3, stretch(faults=["messages 0 to 23 ..."])]}, "messages 0 to 23"),
    ],
)
def test_what_does_not_hold_is_said(changes: dict[str, Any], words: str) -> None:
    assert fuzz.faults(found_with()) == []
    (fault,) = fuzz.faults(found_with(**changes))
    assert words in fault


def test_the_table_has_a_row_for_each_side_of_the_handshake() -> None:
    before, after = fuzz.rows(found_with())
    assert (before["handshake"], after["handshake"]) == ("before", "after")
    assert (before["messages"], before["withheld"], before["errors"], before["of kinds"]) == (100, 4, 6, 1)
