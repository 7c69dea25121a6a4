"""Slices of the vector."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ps_vae.errors import UsageError
from ps_vae.ps.partition import ALIGNMENT, partition


@given(st.integers(1, 500), st.data())
def test_slices_follow_one_another_on_cache_lines_and_differ_by_one_at_most(lines, data):
    shards = data.draw(st.integers(1, lines))

    slices = partition(lines * ALIGNMENT, shards)

    assert [piece.start for piece in slices] == [0, *(piece.stop for piece in slices[:-1])]
    assert slices[-1].stop == lines * ALIGNMENT
    sizes = {piece.size // ALIGNMENT for piece in slices}
    assert max(sizes) - min(sizes) <= 1
    assert min(sizes) >= 1
    assert all(piece.start % ALIGNMENT == 0 for piece in slices)


@pytest.mark.parametrize("shards", [0, -1, 5])
def test_more_shards_than_cache_lines_are_the_users_mistake(shards):
    with pytest.raises(UsageError, match="between 1 and 4"):
        partition(4 * ALIGNMENT, shards)
