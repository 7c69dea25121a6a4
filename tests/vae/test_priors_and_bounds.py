"""Names of priors and bounds, and what is refused."""

import pytest

from ps_vae.errors import UsageError
from ps_vae.vae.bounds import Bound, bound
from ps_vae.vae.config import ModelConfig
from ps_vae.vae.priors import prior


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("elbo", Bound(1, weighs=False, is_path=False)),
        ("elbo:5", Bound(5, weighs=False, is_path=False)),
        ("iwae:50", Bound(50, weighs=True, is_path=False)),
        ("stl", Bound(1, weighs=False, is_path=True)),
        ("stl:2", Bound(2, weighs=False, is_path=True)),
        ("dreg:7", Bound(7, weighs=True, is_path=True)),
    ],
)
def test_a_bound_is_its_name_and_its_samples(name: str, expected: Bound) -> None:
    assert bound(name) == expected


@pytest.mark.parametrize(
    "name",
    [
        "",
        "iwae",
        "dreg",
        "elbo:",
        "elbo:0",
        "iwae:-1",
        "iwae:1.5",
        "iwae:ten",
        "vae",
        "iwae:10001",
        "iwae:" + "9" * 9999,
    ],
)
def test_a_bound_that_is_none_is_refused(name: str) -> None:
    with pytest.raises(UsageError, match="use elbo, elbo:K, iwae:K"):
        bound(name)


@pytest.mark.parametrize(
    "name", ["", "gauss", "normal:3", "uniform:", "mixture", "mixture:", "vamp:0", "vamp:many", "mixture:" + "9" * 9999]
)
def test_a_prior_that_is_none_is_refused(name: str) -> None:
    with pytest.raises(UsageError, match="use normal, uniform, mixture:K, vamp:K"):
        ModelConfig(3, prior=name)


def test_what_a_prior_learns_follows_the_model() -> None:
    assert prior("mixture:5", 7, 2).own == (("components", (5, 4)), ("logits", (5,)))
    assert prior("vamp:5", 7, 2).own == (("pseudo_inputs", (5, 7)),)
    assert prior("vamp:5", 7, 2).beside == 5
