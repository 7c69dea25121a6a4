"""Which part of the model a shard's codec sees as matrices."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ps_vae.errors import UsageError
from ps_vae.nn.dense import weight_gradient
from ps_vae.ps.codecs.factors import Products
from ps_vae.ps.codecs.table import CODECS, codec_for, push_codec_for
from ps_vae.ps.partition import Slice, partition
from ps_vae.train.encoding import matrices_in
from ps_vae.vae.config import ModelConfig
from ps_vae.vae.layout import ParameterLayout

LAYOUT = ParameterLayout(ModelConfig(inputs=12, hidden=(10, 7), latent=3))
PRODUCTS = Products(4, weight_gradient)


@given(shards=st.integers(1, 9))
def test_matrices_are_the_whole_rows_of_the_weights_in_a_slice(shards: int) -> None:
    owner = np.full(LAYOUT.size, -1)
    for tensor in LAYOUT:
        if len(tensor.shape) == 2:
            for row in range(tensor.shape[0]):
                start = tensor.offset + row * tensor.shape[1]
                owner[start : start + tensor.shape[1]] = start

    for piece in partition(LAYOUT.size, shards):
        found = []
        for matrix in matrices_in(LAYOUT, piece):
            for row in range(matrix.rows):
                start = piece.start + matrix.start + row * matrix.columns
                assert (owner[start : start + matrix.columns] == start).all()
                found.append(start)
        here = owner[piece.start : piece.stop]
        whole = {int(start) for start in np.unique(here[here >= 0]) if (here == start).sum() == (owner == start).sum()}
        assert found == sorted(whole)


def test_one_shard_sees_every_layer_as_it_is() -> None:
    shapes = [tensor.shape for tensor in LAYOUT if len(tensor.shape) == 2]

    assert [(m.rows, m.columns) for m in matrices_in(LAYOUT, Slice(0, LAYOUT.size))] == shapes


@pytest.mark.parametrize("words", ["", "fp17", "fp16:2", "none:1", "onebit:"])
def test_words_that_name_no_codec_are_the_users_mistake(words: str) -> None:
    with pytest.raises(UsageError, match=r"there are none, fp16|write fp16$|write onebit$"):
        codec_for(words)


def test_none_is_no_codec_and_every_row_of_the_table_makes_one() -> None:
    assert codec_for("none") is None
    assert push_codec_for("none") is None
    for name, entry in CODECS.items():
        if all(default is not None for _, _, default in entry.parameters):
            make = push_codec_for(name)
            assert make is not None
            assert [make(100, (), PRODUCTS)(microbatches).numbers for microbatches in (1, 5)] == [100, 100]


def test_factors_are_for_pushes_alone() -> None:
    with pytest.raises(UsageError, match="it is for pushes alone"):
        codec_for("factors")
    with pytest.raises(UsageError, match=r"too many parts; write factors$"):
        push_codec_for("factors:1")
