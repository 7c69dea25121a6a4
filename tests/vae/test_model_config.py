"""A configuration that cannot be is refused when it is made, in words."""

import pytest

from ps_vae.errors import UsageError
from ps_vae.vae.config import ModelConfig


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"inputs": 0}, "0 inputs"),
        ({"latent": 0}, "0 latent"),
        ({"hidden": (400, 0)}, "400, 0"),
        ({"activation": "gelu"}, "'gelu' is not known: use identity, relu"),
        ({"likelihood": "cauchy"}, "'cauchy' is not known: use bernoulli, continuous-bernoulli, gaussian"),
        ({"sigma": 0.0}, "sigma 0.0"),
        ({"sigma": float("nan")}, "sigma nan"),
    ],
)
def test_what_cannot_be_is_refused(wrong: dict, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        ModelConfig(**{"inputs": 784, **wrong})


def test_hidden_widths_from_a_list_make_the_same_configuration() -> None:
    assert ModelConfig(784, hidden=[400, 200]) == ModelConfig(784, hidden=(400, 200))


def test_a_model_without_hidden_layers_is_a_model() -> None:
    assert ModelConfig(784, hidden=()).hidden == ()
