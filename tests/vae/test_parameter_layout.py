"""The parameter layout: names, order, alignment, views."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ps_vae.errors import UsageError
from ps_vae.nn.likelihoods import LIKELIHOODS
from ps_vae.vae.config import ModelConfig
from ps_vae.vae.layout import ParameterLayout

CONFIGS = st.builds(
    ModelConfig,
    inputs=st.integers(1, 40),
    hidden=st.lists(st.integers(1, 20), max_size=3),
    latent=st.integers(1, 9),
    likelihood=st.sampled_from(list(LIKELIHOODS)),
)


def test_the_published_model_has_these_tensors() -> None:
    layout = ParameterLayout(ModelConfig(784, hidden=(400,), latent=20))
    assert [(tensor.name, tensor.shape, tensor.offset) for tensor in layout] == [
        ("encoder.0.weight", (784, 400), 0),
        ("encoder.0.bias", (400,), 313_600),
        ("posterior.weight", (400, 40), 314_000),
        ("posterior.bias", (40,), 330_000),
        ("decoder.0.weight", (20, 400), 330_048),
        ("decoder.0.bias", (400,), 338_048),
        ("likelihood.weight", (400, 784), 338_448),
        ("likelihood.bias", (784,), 652_048),
    ]
    assert layout.size == 652_832


def test_the_decoder_mirrors_the_encoder() -> None:
    layout = ParameterLayout(ModelConfig(10, hidden=(7, 5), latent=2))
    shapes = {tensor.name: tensor.shape for tensor in layout}
    assert shapes["encoder.0.weight"] == (10, 7)
    assert shapes["encoder.1.weight"] == (7, 5)
    assert shapes["posterior.weight"] == (5, 4)
    assert shapes["decoder.0.weight"] == (2, 5)
    assert shapes["decoder.1.weight"] == (5, 7)
    assert shapes["likelihood.weight"] == (7, 10)


@settings(deadline=None)
@given(CONFIGS)
def test_tensors_are_aligned_disjoint_and_padded_to_sixteen(config: ModelConfig) -> None:
    layout = ParameterLayout(config)
    end = 0
    for tensor in layout:
        assert tensor.offset % 16 == 0
        assert 0 <= tensor.offset - end < 16
        end = tensor.offset + int(np.prod(tensor.shape))
    assert layout.size % 16 == 0
    assert 0 <= layout.size - end < 16


@settings(deadline=None)
@given(CONFIGS)
def test_views_write_into_the_vector_and_leave_the_padding(config: ModelConfig) -> None:
    layout = ParameterLayout(config)
    vector = layout.zeros()
    assert vector.ctypes.data % 64 == 0
    for number, view in enumerate(layout.views(vector).values(), start=1):
        assert np.shares_memory(view, vector)
        view[:] = number
    names = list(layout.views(vector))
    for index in range(layout.size):
        assert vector[index] in (0, 1 + names.index(layout.tensor_at(index)))
    assert np.count_nonzero(vector) == sum(int(np.prod(tensor.shape)) for tensor in layout)


def test_bound_layers_are_the_named_views() -> None:
    layout = ParameterLayout(ModelConfig(10, hidden=(7, 5), latent=2))
    vector = np.arange(layout.size, dtype=np.float32)
    views, bound = layout.views(vector), layout.bind(vector)
    for name, layer in [
        ("encoder.1", bound.encoder[1]),
        ("posterior", bound.encoder[2]),
        ("decoder.0", bound.decoder[0]),
        ("likelihood", bound.decoder[2]),
    ]:
        np.testing.assert_array_equal(layer.weight, views[f"{name}.weight"])
        np.testing.assert_array_equal(layer.bias, views[f"{name}.bias"])
        assert np.shares_memory(layer.weight, vector)


def test_a_vector_of_another_model_is_refused() -> None:
    layout = ParameterLayout(ModelConfig(10))
    for vector in (np.zeros(layout.size + 1, np.float32), np.zeros((1, layout.size)), np.zeros(2 * layout.size)[::2]):
        with pytest.raises(UsageError, match=f"this model has {layout.size}"):
            layout.bind(vector)


@pytest.mark.parametrize("index", [-1, 652_832])
def test_an_element_outside_of_the_vector_has_no_name(index: int) -> None:
    with pytest.raises(UsageError, match=str(index)):
        ParameterLayout(ModelConfig(784)).tensor_at(index)
