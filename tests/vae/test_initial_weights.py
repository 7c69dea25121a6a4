"""Initial weights have the published variances and follow from the seed."""

import math

import numpy as np
import pytest
from scipy import stats

from ps_vae.errors import UsageError
from ps_vae.vae.config import ModelConfig
from ps_vae.vae.initial import initial_weights
from ps_vae.vae.layout import ParameterLayout


def _views(activation: str, **options) -> dict[str, np.ndarray]:
    layout = ParameterLayout(ModelConfig(120, hidden=(100,), latent=10, activation=activation))
    return layout.views(initial_weights(layout, 5, **options))


@pytest.mark.parametrize("name", ["encoder.0.weight", "decoder.0.weight"])
def test_weights_before_a_relu_are_he_normal(name: str) -> None:
    weight = _views("relu")[name]
    assert stats.kstest(weight.ravel(), stats.norm(0, math.sqrt(2 / weight.shape[0])).cdf).pvalue > 0.01


@pytest.mark.parametrize(
    ("activation", "name"), [("tanh", "encoder.0.weight"), ("relu", "posterior.weight"), ("relu", "likelihood.weight")]
)
def test_other_weights_are_glorot_uniform(activation: str, name: str) -> None:
    weight = _views(activation)[name]
    limit = math.sqrt(6 / sum(weight.shape))
    assert stats.kstest(weight.ravel(), stats.uniform(-limit, 2 * limit).cdf).pvalue > 0.01


def test_biases_are_zero_but_for_the_logits_of_the_means() -> None:
    means = np.linspace(0.1, 0.9, 120)
    for name, view in _views("relu", moments=(means, np.ones(120))).items():
        if name == "likelihood.bias":
            np.testing.assert_allclose(view, np.log(means / (1 - means)), rtol=1e-5, atol=1e-7)
        elif name.endswith(".bias"):
            assert not view.any()
    assert not _views("relu")["likelihood.bias"].any()


def test_the_seed_makes_the_weights_and_padding_is_zero() -> None:
    layout = ParameterLayout(ModelConfig(7, hidden=(5,), latent=3))
    first, again, other = (initial_weights(layout, seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert np.mean(first == other) < 0.6
    for view in layout.views(first).values():
        view[:] = 0
    assert not first.any()


def test_means_of_other_features_are_refused() -> None:
    with pytest.raises(UsageError, match="120 inputs"):
        _views("relu", moments=(np.zeros(121), np.ones(121)))


def test_no_two_tensors_share_their_noise() -> None:
    views = _views("relu")
    first, second = views["encoder.0.weight"][:10], views["decoder.0.weight"]
    assert abs(np.corrcoef(first.ravel(), second.ravel())[0, 1]) < 0.15
