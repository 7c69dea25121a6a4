"""Facts of the data among the parameters stay what they are, whatever a codec makes of their zero gradients."""

import numpy as np
import pytest
from small_run import small_config, small_weights

from ps_vae.ps.partition import partition
from ps_vae.ps.update import Moment
from ps_vae.train.facts import keeping_facts
from ps_vae.train.update import fresh_state, update_rule
from ps_vae.vae.layout import ParameterLayout


@pytest.mark.parametrize("likelihood", ["gaussian-shared", "gaussian-feature", "gaussian-decoder", "bernoulli"])
@pytest.mark.parametrize("shards", [1, 2, 5])
def test_all_is_updated_but_the_facts(likelihood: str, shards: int) -> None:
    config = small_config(likelihood=likelihood, hidden=(16,))
    layout, weights = ParameterLayout(config.model), small_weights(config)
    out = np.zeros_like(weights)
    for piece in partition(layout.size, shards):
        part = slice(piece.start, piece.stop)
        state, gradient = fresh_state(config, weights[part]), np.full(piece.size, 0.5, np.float32)
        update = keeping_facts(update_rule(config), layout, piece)
        update(state.weights, (gradient,), state.optimizer, Moment(0, 0), out[part])
    views, before = layout.views(out), layout.views(weights)
    facts = {tensor.name for tensor in layout.facts()}
    assert facts == (set() if likelihood == "bernoulli" else {"likelihood.floor"})
    for name, view in views.items():
        if name in facts:
            np.testing.assert_array_equal(view, before[name], name)
        else:
            assert (view != before[name]).all(), name
