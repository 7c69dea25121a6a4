"""What a client does where a server does not let it in."""

import pytest

from ps_vae.ps.security.approach import BROKEN, FULL, MECHANISM, OTHER, REFUSED, SILENT, Approach
from ps_vae.ps.security.keys import ClientKeys, KeyPair

KEYS = ClientKeys(KeyPair("mine", ""), "theirs")
SPARE = ClientKeys(KeyPair("mine", ""), "theirs", if_asked=True)


@pytest.mark.parametrize(
    ("keys", "failure", "code", "words"),
    [
        (KEYS, REFUSED, "unknown-key", "does not know the key mine: have its operator run `ps-vae keys allow`"),
        (KEYS, FULL, "full", "as many connections as it may have"),
        (KEYS, BROKEN, "wrong-server", "is not the one whose public key lies with our keys"),
        (KEYS, MECHANISM, "no-keys", "knows no keys"),
        (KEYS, OTHER, "protocol", "another language"),
        (None, MECHANISM, "unknown-key", "--keys"),
        (None, OTHER, "protocol", "another language"),
    ],
)
def test_a_refusal_says_who_and_what_to_do(keys, failure, code, words):
    approach = Approach("tcp://h:1", keys)
    approach.failed(failure, 3.0)

    assert approach.refusal is not None
    assert approach.refusal[0] == code
    assert "tcp://h:1" in approach.refusal[1]
    assert words in approach.refusal[1]


def test_a_handshake_that_breaks_off_in_the_clear_is_a_refusal_the_second_time():
    approach = Approach("tcp://h:1", None)
    approach.failed(BROKEN, 3.0)
    assert approach.refusal is None

    approach.failed(BROKEN, 3.2)

    assert approach.refusal is not None
    assert "give the folder of yours with --keys" in approach.refusal[1]
    # ZeroMQ knocks by itself.
    assert approach.knock_at is None


@pytest.mark.parametrize("keys", [None, KEYS, SPARE])
def test_a_server_that_stands_still_has_refused_nothing(keys):
    approach = Approach("tcp://h:1", keys)
    before = approach.keys

    for number in range(3):
        approach.failed(SILENT, float(number))

    assert (approach.refusal, approach.knock_at, approach.keys) == (None, None, before)


@pytest.mark.parametrize("failure", [MECHANISM, BROKEN])
def test_keys_to_fall_back_on_are_shown_at_once_where_the_server_may_want_some_and_not_before(failure):
    approach = Approach("tcp://h:1", SPARE)
    assert approach.keys is None

    approach.failed(failure, 3.0)

    # Who goes on from here, to other servers of the run, insists on them.
    assert approach.keys == KEYS
    assert approach.refusal is None
    assert approach.knock_at == 3.0


def test_keys_to_fall_back_on_are_taken_back_where_they_do_not_fit_either_but_not_in_a_hurry():
    approach = Approach("tcp://h:1", SPARE)
    for number in range(10):
        approach.failed(BROKEN, float(number))
        assert approach.keys == (None if number % 2 else KEYS)
        assert approach.knock_at == (number + 0.5 if number else 0.0)
    assert approach.refusal is not None
    assert approach.refusal[0] == "wrong-server"


def test_with_keys_in_hand_it_never_goes_on_in_the_clear():
    approach = Approach("tcp://h:1", KEYS)
    for failure in (MECHANISM, BROKEN, OTHER, REFUSED):
        approach.failed(failure, 3.0)
        assert approach.keys is KEYS


def test_it_knocks_again_and_forgets_the_refusal_when_it_is_let_in():
    approach = Approach("tcp://h:1", KEYS)
    approach.failed(REFUSED, 3.0)
    assert approach.knock_at == 3.5

    approach.opened()

    assert approach.refusal is None
    assert approach.knock_at is None
