"""What a key may say: a session is that of the key that opened it, and only servers speak for shards."""

import dataclasses

import pytest

from ps_vae.errors import PeerError
from ps_vae.ps.messages import (
    PROTOCOL,
    Applied,
    Bye,
    Follow,
    Hello,
    Join,
    Present,
    Pull,
    Push,
    Ready,
    Replicated,
    Report,
    Snapshot,
    Standby,
    Status,
    Trouble,
)
from ps_vae.ps.security import visitors
from ps_vae.ps.security.door import new_pair
from ps_vae.ps.security.keys import ServerKeys
from ps_vae.ps.security.visitors import Visitors

OWN = new_pair()
SESSION, RUN = b"s" * 16, b"r" * 16
HELLO = Hello(PROTOCOL, SESSION, "worker", "w", "f")
OF_A_SESSION = [
    HELLO,
    Ready(SESSION, 0, 0, 0, 0, 0),
    Trouble(SESSION, 1, "no"),
    Report(SESSION, None, (), 0),
    Bye(SESSION),
]
OF_A_SERVER = [
    Join(PROTOCOL, SESSION, "tcp://x:1", False),
    Applied(RUN, 1, 0, (), 0, 0, 0, 0, 0, None, None),
    Present(RUN, 1, SESSION, "tcp://x:1", leads=True, incarnation=0, leader=""),
    Snapshot(RUN, 1, 0, (), (), ()),
    Standby(RUN, 1, SESSION, None, 0, 0),
    Follow(RUN, 1, SESSION),
    Replicated(SESSION, 0),
]
OF_ANYBODY = [Status(), Pull(RUN, 0, (0, None), False)]


@pytest.fixture
def allowed():
    return {"ann": "ann's", "bob": "bob's"}


@pytest.fixture
def guests(allowed):
    """Ann and Bob, each on a connection of that name, a server on another."""
    guests = Visitors(ServerKeys(OWN, allowed.get))
    for sender, public in (("a", "ann"), ("b", "bob"), ("s", OWN.public)):
        guests.came(sender, public)
    return guests


def refused(guests, sender, message):
    with pytest.raises(PeerError) as refusal:
        guests.check(sender, message)
    return refusal.value.code


@pytest.mark.parametrize("message", OF_A_SESSION, ids=lambda message: message.KIND)
def test_a_session_is_the_key_s_that_opened_it(guests, message):
    guests.check("a", HELLO)

    assert refused(guests, "b", message) == "wrong-key"
    assert refused(guests, "s", message) == "wrong-key"
    guests.check("a", message)


def test_a_session_goes_on_over_another_connection_with_the_same_key(guests):
    guests.check("a", HELLO)
    guests.came("a2", "ann")

    guests.check("a2", OF_A_SESSION[1])


def test_words_of_a_session_that_nobody_opened_do_not_open_it(guests):
    guests.check("b", OF_A_SESSION[1])

    guests.check("a", HELLO)
    assert refused(guests, "b", HELLO) == "wrong-key"


@pytest.mark.parametrize("message", OF_A_SERVER, ids=lambda message: message.KIND)
def test_only_the_servers_key_speaks_for_a_shard(guests, message):
    assert refused(guests, "a", message) == "wrong-key"
    guests.check("s", message)


@pytest.mark.parametrize("message", OF_ANYBODY, ids=lambda message: message.KIND)
def test_every_allowed_key_may_say_the_rest(guests, message):
    for sender in "abs":
        guests.check(sender, message)


def test_a_key_that_is_taken_away_is_cut_off_once_and_refused_from_then_on(guests, allowed):
    guests.came("a2", "ann")
    del allowed["ann"]

    assert sorted(guests.revoked()) == ["a", "a2"]
    assert guests.revoked() == []
    for public in ("ann", None):
        with pytest.raises(PeerError) as refusal:
            guests.came("a", public)
        assert refusal.value.code == "revoked"
    guests.came("b", "bob")


def test_a_message_without_a_key_is_its_sender_s_who_had_one(guests):
    guests.came("b", None)
    guests.check("b", HELLO)

    assert refused(guests, "a", HELLO) == "wrong-key"


def test_a_sender_that_nobody_knows_is_refused_without_a_key(guests):
    with pytest.raises(PeerError):
        guests.came("c", None)


def test_a_push_with_a_permit_is_the_session_s_key_s_where_that_is_known(guests):
    session = OF_A_SESSION[0].session
    pushed = Push(bytes(16), 0, session, 1, 0, 0, 1, 0, (), None, (), bytes(16))
    guests.check("b", pushed)
    guests.check("a", HELLO)

    assert refused(guests, "b", pushed) == "wrong-key"
    guests.check("a", pushed)
    guests.check("b", dataclasses.replace(pushed, permit=None))


def test_without_keys_everybody_says_everything():
    guests = Visitors(None)
    for message in [*OF_A_SESSION, *OF_A_SERVER, *OF_ANYBODY]:
        guests.came("c", None)
        guests.check("c", message)
    assert guests.revoked() == []


def test_what_is_remembered_is_bounded_and_the_busy_are_not_forgotten(guests, monkeypatch):
    monkeypatch.setattr(visitors, "_MOST", 10)
    guests.check("a", HELLO)
    for number in range(100):
        guests.came(number, "bob")
        guests.came("a", None)
        guests.check(number, dataclasses.replace(HELLO, session=number.to_bytes(16, "little")))
        guests.check("a", OF_A_SESSION[1])

    assert len(guests._senders) == len(guests._sessions) == 10
    assert refused(guests, 99, HELLO) == "wrong-key"
