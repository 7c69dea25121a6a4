"""What a shard with a codec for pulls gives to whom."""

import numpy as np
import pytest

from ps_vae.errors import PeerError
from ps_vae.ps.buffers import Buffers
from ps_vae.ps.codecs.pull import pull_codec_for
from ps_vae.ps.consistency import Consistency, Versions
from ps_vae.ps.partition import Slice
from ps_vae.ps.publication import Publication, Want
from ps_vae.ps.replica import ReplicaReader

SIZE = 1024
RANDOM = np.random.default_rng(0)
FIRST = RANDOM.standard_normal(SIZE).astype(np.float32)


def is_finite(array):
    return bool(np.isfinite(array).all())


def publication(words, version=0, bound=0):
    buffers = Buffers(SIZE)
    first = buffers.take()
    first[:] = FIRST
    pull = None if words == "none" else pull_codec_for(words)(SIZE, (), 3)
    made = Publication(
        version, first, buffers, consistency=Consistency(bound), pull=pull, number=0, is_finite=is_finite
    )
    return made, buffers


def exactly(version, **more):
    return Want(Versions(version, version), **more)


def publish(made, buffers, version, weights, *, is_pinned=False):
    array = buffers.take()
    array[:] = weights
    made.add(version, array, is_pinned=is_pinned)


def reader(words):
    return ReplicaReader([pull_codec_for(words)(SIZE, (), 3).codec], [Slice(0, SIZE)])


@pytest.mark.parametrize("words", ["int8", "update:int8", "update:onebit", "update:topk:0.05"])
def test_a_worker_that_follows_the_words_holds_what_a_worker_that_joins_gets(words):
    made, buffers = publication(words)
    follower, takes = FIRST.copy(), reader(words)
    weights = FIRST.copy()
    for version in range(1, 9):
        weights += RANDOM.standard_normal(SIZE).astype(np.float32) / 10
        publish(made, buffers, version, weights)
        answer = made.find(exactly(version, held=version - 1))
        assert answer.encoded
        takes.take(0, answer.payload[0], follower, is_change=answer.base is not None)
        joiner = made.find(exactly(version))
        assert (joiner.encoded, joiner.base) == (False, None)
        np.testing.assert_array_equal(follower, joiner.payload[0])
        np.testing.assert_array_equal(made.find(exactly(version, exact=True)).payload[0], weights)


@pytest.mark.parametrize("words", ["update:onebit", "update:topk:0.05", "update:int8"])
def test_what_a_change_leaves_out_comes_with_the_next_ones(words):
    made, buffers = publication(words)
    far = FIRST + RANDOM.standard_normal(SIZE).astype(np.float32)
    gaps = []
    for version in range(1, 60):
        publish(made, buffers, version, far)
        gaps.append(float(np.abs(made.find(exactly(version)).payload[0] - far).mean()))

    assert gaps[-1] < 0.3 * gaps[0]


def test_words_are_for_whoever_holds_the_version_before_and_others_get_the_replica():
    made, buffers = publication("update:int8")
    publish(made, buffers, 1, FIRST + 1)
    publish(made, buffers, 2, FIRST + 2)

    assert made.find(exactly(2, held=1)).base == 1
    assert not made.find(exactly(2, held=0)).encoded
    assert not made.find(exactly(1, held=0)).encoded


def test_weights_that_are_not_finite_are_sent_as_they_are():
    made, buffers = publication("update:int8")
    broken = FIRST.copy()
    broken[5] = np.inf
    publish(made, buffers, 1, broken)

    answer = made.find(exactly(1, held=0))
    assert not answer.encoded
    np.testing.assert_array_equal(answer.payload[0], broken)


def test_the_replica_starts_as_the_weights_whatever_the_version():
    made, _ = publication("update:onebit", version=70)

    np.testing.assert_array_equal(made.find(exactly(70)).payload[0], FIRST)


def test_arrays_rotate_also_where_there_are_replicas():
    made, buffers = publication("update:int8")
    for version in range(1, 50):
        publish(made, buffers, version, FIRST + version, is_pinned=version % 7 == 0)

    assert buffers.made <= 10


def test_words_that_are_none_change_no_weights():
    held = FIRST.copy()
    for words, is_change in (("int8", False), ("update:onebit", True)):
        with pytest.raises(PeerError):
            reader(words).take(0, np.zeros(3, np.float32), held, is_change=is_change)
    np.testing.assert_array_equal(held, FIRST)


@pytest.mark.parametrize("words", ["none", "int8"])
def test_who_takes_any_version_gets_the_newest_weights_also_while_their_version_is_a_milestone(words):
    """In an asynchronous run, where a step after a milestone lacks a part and later ones are applied meanwhile."""
    made, buffers = publication(words, bound=None)
    publish(made, buffers, 1, FIRST, is_pinned=True)
    publish(made, buffers, 1, FIRST + 10)
    anything = Versions(0, None)

    worker, puller = made.find(Want(anything, held=1)), made.find(Want(anything))
    evaluator = made.find(exactly(1, exact=True))

    assert worker.encoded == (words != "none")
    # A number of int8 is at most one of its scale's steps away.
    step = np.abs(FIRST + 10).max() / 127 if words == "int8" else 0.0
    np.testing.assert_allclose(puller.payload[0], FIRST + 10, rtol=0, atol=1.0001 * step)
    np.testing.assert_array_equal(evaluator.payload[0], FIRST)
