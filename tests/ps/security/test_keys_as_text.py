"""Keys as text: ZeroMQ's alphabet, and a secret that is not shown."""

import numpy as np
import pytest
from zmq.utils import z85 as zeromqs

from ps_vae.ps.security.door import new_pair, pair_of
from ps_vae.ps.security.keys import KeyPair, ServerKeys, is_key, z85


def test_the_text_is_that_of_the_rfcs_example():
    assert z85(bytes.fromhex("864FD26FB559F75B")) == "HelloWorld"


@pytest.mark.parametrize("seed", range(20))
def test_the_text_is_zeromqs(seed):
    data = np.random.default_rng(seed).bytes(32)

    assert z85(data) == zeromqs.encode(data).decode()
    assert is_key(z85(data))


@pytest.mark.parametrize("data", [bytes(32), b"\xff" * 32])
def test_the_smallest_and_the_largest_key_have_a_text(data):
    assert z85(data) == zeromqs.encode(data).decode()
    assert is_key(z85(data))


@pytest.mark.parametrize("text", ["", "a" * 39, "a" * 41, "a" * 39 + '"', "a" * 39 + "\n", "é" * 40, "#" * 40])
def test_what_is_no_key_is_told_from_one(text):
    # 85**5 is more than 2**32: the last of these has only digits, and is the text of nothing.
    assert not is_key(text)


def test_bytes_that_are_no_multiple_of_four_have_no_text():
    with pytest.raises(ValueError, match="3 bytes"):
        z85(b"abc")


def test_a_secret_is_not_shown_where_a_pair_is_printed():
    pair = new_pair()

    assert pair.secret not in repr(ServerKeys(pair, {}.get))
    assert pair.public in repr(pair)


def test_a_secret_makes_its_pair_again():
    pair = new_pair()

    assert pair_of(pair.secret) == pair
    assert isinstance(pair, KeyPair)
    assert is_key(pair.public)
    assert is_key(pair.secret)
