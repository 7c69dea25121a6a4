"""A learned sigma stays a number that means something on data that would drive it to zero or to infinity."""

import warnings

import numpy as np
import pytest
from sklearn.datasets import load_digits

from ps_vae import VAE
from ps_vae.errors import DataError
from ps_vae.vae.layout import ParameterLayout

LEARNED = ("gaussian-shared", "gaussian-feature", "gaussian-decoder")


def _rows(kind: str) -> np.ndarray:
    generator = np.random.default_rng(5)
    rows = generator.normal(size=(400, 6))
    if kind == "a constant column":
        rows[:, 2] = 3.5
    elif kind == "one-hot columns":
        rows[:, 1:5] = np.eye(4)[generator.integers(4, size=400)]
    elif kind == "duplicated rows":
        rows = np.repeat(rows[:4], 100, axis=0)
    elif kind == "a column of millions":
        rows[:, 3] *= 1e6
    elif kind == "a column of thousandths":
        rows[:, 3] *= 1e-3
    elif kind == "thousandths":
        rows *= 1e-3
    return rows


def _deviations(model: VAE, rows: np.ndarray) -> np.ndarray:
    """Of p(x|z) at the posterior means, (n, features) or what broadcasts to it."""
    parameters = ParameterLayout(model.config_.model).bind(model.weights_.astype(np.float64))
    if model.likelihood != "gaussian-decoder":
        learned, floor = parameters.own
        return np.exp(0.5 * (learned + np.logaddexp(0, floor - learned)))
    hidden, last = parameters.decoder
    outputs = np.maximum(model.transform(rows) @ hidden.weight + hidden.bias, 0) @ last.weight + last.bias
    u, floor = outputs[:, rows.shape[1] :], parameters.own[0]
    return np.exp(0.5 * (u + np.logaddexp(0, floor - u) - np.logaddexp(0, u - floor - 24)))


@pytest.mark.parametrize("likelihood", LEARNED)
@pytest.mark.parametrize("kind", ["a constant column", "one-hot columns", "duplicated rows", "a column of millions"])
def test_a_learned_deviation_neither_collapses_nor_explodes(kind: str, likelihood: str) -> None:
    rows = _rows(kind)
    model = VAE(2, (16,), likelihood=likelihood, epochs=150, batch_size=50, learning_rate=5e-3, random_state=1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.fit(rows)
    scale = np.where(rows.std(axis=0) > 0, rows.std(axis=0), 0.01 * np.abs(rows.mean(axis=0)))
    if likelihood == "gaussian-shared":
        scale = np.sqrt(np.square(scale).mean(keepdims=True))
    relative = _deviations(model, rows) / scale
    assert np.all(relative > np.exp(-8) * 0.99)
    # What the decoder says of values that the encoder cannot make anything of is at least bounded.
    assert np.all(relative < (56 if likelihood == "gaussian-decoder" else 10))
    assert np.isfinite(model.weights_).all()
    assert np.isfinite(model.score_samples(rows)).all()


@pytest.mark.parametrize(
    ("kind", "likelihood", "text"),
    [
        ("a constant column", "gaussian-feature", "never change in column 2"),
        ("a constant column", "gaussian-decoder", "leave them out"),
        ("a column of millions", "gaussian-shared", r"in column 3; .* scale every column"),
        ("a column of millions", "gaussian", r"up to .*e\+0[56] in column 3, and one sigma is for all of them"),
        ("a column of millions", "gaussian-feature", "scale every column"),
        (
            "a column of thousandths",
            "gaussian-feature",
            r"deviations of only 0\.00\d+ in column 3; .* scale every column",
        ),
        (
            "a column of thousandths",
            "gaussian-decoder",
            r"deviations of only 0\.00\d+ in column 3; .* scale every column",
        ),
        ("thousandths", "gaussian-shared", "too little beside a decoder's steps: scale every column"),
        ("thousandths", "gaussian", "too little beside --sigma 1: scale every column"),
    ],
)
def test_a_warning_says_what_to_scale_or_leave_out(kind: str, likelihood: str, text: str) -> None:
    with pytest.warns(UserWarning, match=text):
        VAE(2, (4,), likelihood=likelihood, epochs=1).fit(_rows(kind))


@pytest.mark.parametrize("likelihood", LEARNED)
@pytest.mark.parametrize("unit", [1e-12, 1e17])
def test_a_deviation_that_float32_has_no_room_for_is_refused_with_what_to_do(unit: float, likelihood: str) -> None:
    with pytest.raises(
        DataError, match=r"have a deviation of .*, and one is learned from 1e-10 to 1e\+15; scale every"
    ):
        VAE(2, (4,), likelihood=likelihood, epochs=1).fit(unit * _rows("as it should be"))


def test_times_in_seconds_are_no_constant_column_and_counts_are_not_to_be_scaled() -> None:
    rows = _rows("as it should be")
    rows[:, 1] = 1.7e9 + 1000 * rows[:, 1]
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        model = VAE(2, (4,), likelihood="gaussian-feature", epochs=1).fit(rows)
        VAE(2, (4,), likelihood="poisson", epochs=1).fit(np.full((50, 2), 300.0) + np.arange(50)[:, None])
    (warning,) = [each for each in told if "the data" in str(each.message)]
    assert "scale every column" in str(warning.message)
    # float32 holds such times to 128 seconds.
    assert _deviations(model, rows)[1] == pytest.approx(1000, rel=0.2)


def test_pictures_whose_edges_hardly_change_are_as_they_should_be() -> None:
    rows = load_digits().data / 16
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        VAE(2, (4,), likelihood="gaussian-shared", epochs=1).fit(rows)


@pytest.mark.parametrize("likelihood", LEARNED)
def test_there_is_no_warning_of_data_that_are_as_they_should_be(likelihood: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        VAE(2, (4,), likelihood=likelihood, epochs=1).fit(_rows("as it should be"))
