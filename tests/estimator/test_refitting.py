"""`VAE.fit` once more: what is known of the columns belongs to the weights, even where the new fit fails."""

from pathlib import Path

import numpy as np
import pandas
import pytest

from ps_vae import VAE
from ps_vae.errors import DataError, NumericalError

SMALL = {"latent_dim": 2, "hidden": (8,), "epochs": 2, "batch_size": 32, "random_state": 1}
FRAME = pandas.DataFrame(np.random.default_rng(1).random((60, 4)), columns=list("abcd"))


@pytest.mark.parametrize(
    ("rows", "changed", "error"),
    [
        (FRAME[list("dcba")] * 1e9, {}, DataError),
        (FRAME[list("abc")] * 1e9, {}, DataError),
        (FRAME.to_numpy()[:, :3] * 1e9, {}, DataError),
        (FRAME[list("dcba")], {"learning_rate": 1e30, "optimizer": "sgd"}, NumericalError),
    ],
    ids=["other names", "other width", "no names", "diverges"],
)
def test_a_fit_that_fails_leaves_the_model_that_was_there(
    rows: object, changed: dict, error: type, tmp_path: Path
) -> None:
    model = VAE(**SMALL).fit(FRAME)
    z, scores = model.transform(FRAME), model.score_samples(FRAME)
    with pytest.raises(error):
        model.set_params(**changed).fit(rows)
    assert (model.n_features_in_, model.feature_names_in_.tolist()) == (4, list("abcd"))
    np.testing.assert_array_equal(model.transform(FRAME), z)
    np.testing.assert_array_equal(model.score_samples(FRAME), scores)
    with pytest.raises(ValueError, match="feature names"):
        model.transform(FRAME[list("dcba")])
    model.save(tmp_path / "model.safetensors")
    loaded = VAE.load(tmp_path / "model.safetensors")
    assert loaded.feature_names_in_.tolist() == list("abcd")
    np.testing.assert_array_equal(loaded.transform(FRAME), z)


def test_a_fit_that_fails_makes_no_fitted_model() -> None:
    model = VAE(**SMALL)
    with pytest.raises(DataError):
        model.fit(FRAME * 1e9)
    assert [name for name in vars(model) if name.endswith("_")] == []


def test_a_fit_without_names_forgets_those_of_the_fit_before() -> None:
    model = VAE(**SMALL).fit(FRAME).fit(FRAME.to_numpy()[:, :3])
    assert (model.n_features_in_, hasattr(model, "feature_names_in_")) == (3, False)
    assert model.transform(FRAME.to_numpy()[:, :3]).shape == (60, 2)
