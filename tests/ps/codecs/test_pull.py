"""Which codecs weights may be sent in, and what the words of users mean."""

import numpy as np
import pytest

from ps_vae.errors import UsageError
from ps_vae.ps.codecs.pull import pull_codec_for


@pytest.mark.parametrize("words", ["fp16", "bf16", "int8"])
def test_codecs_that_round_send_the_weights_themselves(words):
    made = pull_codec_for(words)(100, (), 7)

    assert (made.is_change, made.seed, made.codec.name, made.codec.numbers) == (False, 7, words, 100)


@pytest.mark.parametrize("words", ["fp16", "bf16", "int8", "onebit", "topk:0.1", "powersgd:2"])
def test_any_codec_may_send_changes(words):
    made = pull_codec_for(f"update:{words}")(100, (), 7)

    assert (made.is_change, made.codec.name) == (True, words)


@pytest.mark.parametrize(
    ("words", "why"),
    [
        ("onebit", "update:onebit"),
        ("topk:0.1", "update:topk:0.1"),
        ("powersgd:2", "update:powersgd:2"),
        ("update:none", "update:CODEC"),
        ("update:", "no such codec"),
        ("update:update:int8", "no such codec"),
        ("update:topk:0.1:0.9", "momentum"),
        ("zip", "no such codec"),
    ],
)
def test_what_would_lose_a_part_of_the_weights_is_refused(words, why):
    with pytest.raises(UsageError, match=why):
        pull_codec_for(words)


def test_none_is_no_codec():
    assert pull_codec_for("none") is None


def test_weights_in_int8_are_off_by_less_than_a_step_of_their_scale():
    weights = np.random.default_rng(0).standard_normal(1024).astype(np.float32)
    codec = pull_codec_for("int8")(weights.size, (), 0).codec
    words, came = np.empty(codec.words, np.uint32), np.empty_like(weights)

    codec.encode(weights, codec.initial_state(), (0, 1, 0), words)
    codec.decode(words, came)

    steps = np.abs(weights.reshape(-1, 512)).max(axis=1) / 127
    assert (np.abs(came - weights).reshape(-1, 512) <= 1.001 * steps[:, None]).all()
