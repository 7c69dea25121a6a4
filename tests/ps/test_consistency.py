"""The user's words for consistency, and the versions they allow."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ps_vae.errors import UsageError
from ps_vae.ps.consistency import Consistency, Versions, parse_consistency


@pytest.mark.parametrize(
    ("text", "bound"), [("bsp", 0), ("asp", None), ("ssp:0", 0), ("ssp:3", 3), ("ssp:999999", 999999)]
)
def test_words_are_understood(text, bound):
    assert parse_consistency(text) == Consistency(bound)


@pytest.mark.parametrize(
    "text", ["", "ssp", "ssp:", "ssp:-1", "ssp:1.5", "ssp:x", "ssp:³", "ssp:1000000", "BSP", "bsp:1", "asp:2"]
)
def test_other_words_are_the_users_mistake(text):
    with pytest.raises(UsageError, match="choose bsp, asp or ssp:N"):
        parse_consistency(text)


@pytest.mark.parametrize("text", ["bsp", "asp", "ssp:4"])
def test_a_consistency_is_written_as_it_is_read(text):
    assert str(parse_consistency(text)) == text


@given(st.integers(0, 30), st.integers(0, 6) | st.none(), st.integers(0, 40))
def test_usable_versions_are_those_within_the_bound(step, bound, version):
    expected = bound is None or version >= step - bound if bound != 0 else version == step

    assert (version in Consistency(bound).usable(step)) == expected


ranges = st.tuples(st.integers(0, 9), st.integers(0, 9) | st.none()).filter(lambda r: r[1] is None or r[0] <= r[1])


@given(ranges, ranges)
def test_ranges_overlap_where_a_version_is_in_both(left, right):
    both = [v for v in range(30) if v in Versions(*left) and v in Versions(*right)]

    assert Versions(*left).overlaps(Versions(*right)) == bool(both)
