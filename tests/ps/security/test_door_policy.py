"""Who is let in, by ZeroMQ RFC 27's question and answer."""

import pytest

from ps_vae.ps.security.door import new_pair
from ps_vae.ps.security.keys import SERVER, KeyPair, ServerKeys, z85
from ps_vae.ps.security.policy import DOMAIN, judge

KEY, OTHER = bytes(range(32)), bytes(range(1, 33))
OWN = new_pair()
KEYS = ServerKeys(OWN, {z85(KEY): "w"}.get)


def question(*, version=b"1.0", domain=DOMAIN, mechanism=b"CURVE", credentials=(KEY,)):
    return [version, b"7", domain, b"10.0.0.9", b"", mechanism, *credentials]


def test_a_known_key_comes_in_and_is_the_users_id():
    verdict = judge(question(), KEYS)

    assert verdict.reply == (b"1.0", b"7", b"200", b"", z85(KEY).encode(), b"")
    assert verdict.code == ""


def test_an_unknown_key_stays_outside_and_is_named_with_its_address():
    verdict = judge(question(credentials=(OTHER,)), KEYS)

    assert verdict.reply == (b"1.0", b"7", b"400", b"unknown-key", b"", b"")
    assert (verdict.code, verdict.address) == ("unknown-key", "10.0.0.9")
    assert z85(OTHER) in verdict.text


def test_the_servers_own_key_comes_in_unasked_and_has_its_name():
    keys = ServerKeys(KeyPair(z85(OTHER), ""), {}.get)

    assert judge(question(credentials=(OTHER,)), keys).code == ""
    assert keys.admits(z85(OTHER)) == SERVER


def test_where_there_is_no_room_a_known_key_stays_outside_too():
    assert judge(question(), KEYS, is_full=True).reply[2] == b"500"


@pytest.mark.parametrize(
    "asked",
    [
        [],
        [b"1.0"],
        question(version=b"2.0"),
        question(domain=b"another"),
        question(mechanism=b"NULL", credentials=()),
        question(mechanism=b"PLAIN", credentials=(b"admin", b"secret")),
        question(mechanism=b"NULL"),
        question(credentials=()),
        question(credentials=(b"",)),
        question(credentials=(KEY[:-1],)),
        question(credentials=(KEY, KEY)),
    ],
)
def test_whatever_is_not_one_key_of_32_bytes_stays_outside(asked):
    verdict = judge(asked, ServerKeys(OWN, lambda public: "anybody"))

    assert verdict.reply[2] in (b"400", b"500")
    assert verdict.reply[4] == b""
    assert verdict.code == "malformed"
