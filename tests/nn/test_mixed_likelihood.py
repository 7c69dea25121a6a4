"""A likelihood for each variable: what each says, added where there is something, in the units of the data."""

import numpy as np
import pytest
from scipy import special, stats

from ps_vae.errors import DataError, UsageError
from ps_vae.nn.likelihoods import LIKELIHOODS, Variable, likelihood, mixed_likelihood
from ps_vae.nn.likelihoods.mixed import OF_ALL_TOGETHER

TABLE = (
    Variable("age", "gaussian-feature", 1, True),
    Variable("city", "categorical", 3, True),
    Variable("income", "gaussian", 1, False),
    Variable("visits", "poisson", 1, True),
    Variable("sex", "bernoulli", 1, False),
)
MEANS = np.array([40, 0.5, 0.3, 0.2, 3e4, 2.5, 0.4])
VARIANCES = np.array([225, 0.25, 0.21, 0.16, 4e8, 3.0, 0.24])
ROWS = 6


def examples() -> np.ndarray:
    generator = np.random.default_rng(0)
    x = np.empty((ROWS, 7))
    x[:, 0], x[:, 4] = generator.normal(40, 15, ROWS), generator.normal(3e4, 2e4, ROWS)
    x[:, 1:4] = np.eye(3)[generator.integers(3, size=ROWS)]
    x[:, 5], x[:, 6] = generator.poisson(2.5, ROWS), generator.integers(2, size=ROWS)
    x[1, 0] = x[2, 5] = x[4, 5] = np.nan
    x[[0, 1], 1:4] = np.nan
    return x


def beginning(table=TABLE, means=MEANS, variances=VARIANCES, dtype=np.float64):
    family = mixed_likelihood(table, 0.8)
    initial = family.initial(means, variances)
    return family, initial.bias.astype(dtype), tuple(np.asarray(part, dtype) for part in initial.own)


@pytest.mark.parametrize("samples", [1, 3])
def test_log_likelihood_is_the_sum_over_what_is_there(samples: int) -> None:
    family, bias, own = beginning()
    x = examples()
    outputs = np.random.default_rng(1).normal(size=(samples * ROWS, family.outputs))
    log_p = np.empty(samples * ROWS)
    family.log_likelihood(outputs, bias, own, x, log_p)
    a, x = outputs + bias, np.tile(x, (samples, 1))
    # The beginning's deviation of age is 15, and its floor, e^-8 of that, is not felt.
    age = stats.norm(40 + 15 * a[:, 0], 15).logpdf(x[:, 0])
    city = np.sum(x[:, 1:4] * special.log_softmax(a[:, 1:4], axis=1), axis=1)
    income = stats.norm(3e4 + 2e4 * a[:, 4], 0.8 * 2e4).logpdf(x[:, 4])
    visits = stats.poisson(np.exp(a[:, 5])).logpmf(x[:, 5])
    sex = stats.bernoulli(special.expit(a[:, 6])).logpmf(x[:, 6])
    visits[np.isnan(x[:, 5])] = 0
    expected = np.nan_to_num(age) + np.nan_to_num(city) + income + visits + sex
    np.testing.assert_allclose(log_p, expected, rtol=1e-6)


def test_a_model_begins_with_the_means_of_the_data() -> None:
    family, bias, own = beginning()
    np.testing.assert_allclose(family.mean(np.zeros((2, family.outputs)), bias, own), [MEANS, MEANS], rtol=1e-9)


def test_another_unit_of_a_number_moves_its_density_by_the_logarithm_and_nothing_else() -> None:
    factor = np.array([1000.0, 1, 1, 1, 1 / 7, 1, 1])
    results = []
    for scale in (np.ones(7), factor):
        family, bias, own = beginning(means=MEANS * scale, variances=VARIANCES * scale**2)
        outputs = np.random.default_rng(1).normal(size=(ROWS, family.outputs))
        x, log_p, seen = examples() * scale, np.empty(ROWS), np.empty((ROWS, 7))
        family.to_encoder(x, own, seen)
        family.log_likelihood(outputs, bias, own, x, log_p)
        d_own, d_bias = tuple(np.empty_like(part) for part in own), np.empty_like(bias)
        family.loss_gradient(outputs, bias, own, x, np.ones(ROWS), np.empty(ROWS), d_bias, d_own)
        results.append((seen, log_p, outputs))
    (seen, log_p, gradient), (seen_scaled, log_p_scaled, gradient_scaled) = results
    np.testing.assert_allclose(seen_scaled, seen, atol=1e-12)
    np.testing.assert_allclose(gradient_scaled, gradient, rtol=1e-9, atol=1e-12)
    there = ~np.isnan(examples())
    np.testing.assert_allclose(log_p_scaled, log_p - there @ np.log(factor), rtol=1e-12)


def test_the_encoder_sees_deviations_from_the_mean_and_none_where_nothing_is() -> None:
    family, _, own = beginning()
    x, seen = examples(), np.empty((ROWS, 7))
    family.to_encoder(x, own, seen)
    deviations = np.array([15, 1, 1, 1, 2e4, np.sqrt(3), 1])
    np.testing.assert_allclose(seen, np.nan_to_num((x - MEANS) / deviations), atol=1e-12)


def test_what_is_missing_has_no_gradient_at_its_outputs() -> None:
    family, bias, own = beginning()
    x = examples()
    outputs = np.random.default_rng(1).normal(size=(ROWS, family.outputs))
    d_own = tuple(np.full_like(part, np.nan) for part in own)
    family.loss_gradient(outputs, bias, own, x, np.ones(ROWS), np.empty(ROWS), np.empty_like(bias), d_own)
    np.testing.assert_array_equal(outputs == 0, np.isnan(x))
    facts = d_own[len(family.own) :]
    assert len(facts) == len(family.facts)
    assert not any(fact.any() for fact in facts)


def test_a_table_of_one_kind_is_that_likelihood_in_units_of_deviations() -> None:
    table = tuple(Variable(f"x{number}", "gaussian-decoder", 1, False) for number in range(4))
    family, bias, own = beginning(table, np.zeros(4), np.ones(4))
    alone = likelihood("gaussian-decoder", 4)
    x, outputs = np.random.default_rng(0).normal(size=(3, 4)), np.random.default_rng(1).normal(size=(3, 8))
    log_p, expected = np.empty((2, 3))
    family.log_likelihood(outputs, bias, own, x, log_p)
    alone.log_likelihood(outputs, bias, own[:1], x, expected)
    np.testing.assert_allclose(log_p, expected, rtol=1e-12)


def test_samples_of_each_variable_are_drawn_alone_and_in_its_units() -> None:
    family, bias, own = beginning()
    outputs = np.zeros((4000, family.outputs))
    x = family.sample(outputs, bias, own, seed=3, step=0, rows=np.arange(4000))
    np.testing.assert_allclose(x.mean(axis=0), MEANS, atol=5 * np.sqrt(VARIANCES / 4000).max(), rtol=0.1)
    np.testing.assert_allclose(x[:, 0].std(), 15, rtol=0.06)
    np.testing.assert_allclose(x[:, 4].std(), 0.8 * 2e4, rtol=0.06)
    assert set(np.unique(x[:, 1:4])) == {0, 1}
    correlations = np.corrcoef(x[:, [0, 1, 4, 5, 6]].T) - np.eye(5)
    # Of 4,000 independent ones; 4 standard errors.
    assert np.abs(correlations).max() < 4 / np.sqrt(4000)


@pytest.mark.parametrize("name", sorted(set(LIKELIHOODS) - set(OF_ALL_TOGETHER)))
def test_a_number_that_never_changes_has_a_finite_beginning(name: str) -> None:
    features = 2 if name == "categorical" else 1
    table = (Variable("x", name, features, False),)
    family, bias, own = beginning(table, np.full(features, 0.5), np.zeros(features), np.float32)
    x, log_p = np.eye(2, dtype=np.float32)[:, :features].copy(), np.empty(2)
    family.log_likelihood(np.zeros((2, family.outputs), np.float32), bias, own, x, log_p)
    assert np.isfinite(log_p).all()


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ((3, 4, np.nan), "'income' has no value in row 3: none was missing"),
        ((3, 5, -1.0), r"'visits', poisson: .*-1.0 in row 3: this likelihood"),
        ((1, 6, 2.0), r"'sex', bernoulli: value 2.0"),
        ((2, 1, 0.5), r"'city', categorical: not one-hot in row 2: "),
    ],
)
def test_what_a_variable_cannot_be_is_refused_with_its_name(change: tuple, text: str) -> None:
    family, x = mixed_likelihood(TABLE), examples()
    family.check_data(x)
    row, column, value = change
    x[row, column] = value
    with pytest.raises(DataError, match=text):
        family.check_data(x)


@pytest.mark.parametrize("name", OF_ALL_TOGETHER)
def test_a_likelihood_of_all_features_is_none_of_a_column(name: str) -> None:
    with pytest.raises(UsageError, match=f"age:{name}: {name} is of all features together"):
        mixed_likelihood((Variable("age", name, 1, False),))
