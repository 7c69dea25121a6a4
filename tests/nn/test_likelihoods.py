"""Likelihoods: normalised, differentiated, summed and drawn as they say."""

import decimal
import itertools
import math

import numpy as np
import pytest
from scipy import integrate, special, stats

from ps_vae.errors import DataError, UsageError
from ps_vae.nn.likelihoods import LIKELIHOODS, Likelihood, likelihood

SIGMA = 0.7
FEATURES = 67
COUNTS = ("poisson", "negative-binomial")
SHARES = ("categorical", "multinomial")
HALF = 0.5 / 255
DTYPES = [(np.float32, 2e-6), (np.float64, 1e-12)]


def _bounded(u: np.ndarray, floor: np.ndarray) -> np.ndarray:
    return u + np.logaddexp(0, floor - u)


def _parameters(name: str, outputs: np.ndarray, bias: np.ndarray, own: tuple) -> tuple[np.ndarray, np.ndarray]:
    """Logits, logarithms of rates or means; and standard deviations of those that have one."""
    a = (outputs + bias).astype(np.float64)
    own = tuple(array.astype(np.float64) for array in own)
    features = a.shape[1]
    if name in ("gaussian-shared", "gaussian-feature"):
        return a, np.exp(0.5 * _bounded(*own)) * np.ones(features)
    if name == "gaussian-decoder":
        mean, u = np.split(a, 2, axis=1)
        return mean, np.exp(0.5 * (_bounded(u, own[0]) - np.logaddexp(0, u - own[0] - 24)))
    return a, np.full(features, SIGMA)


def _log_density(name: str, outputs: np.ndarray, bias: np.ndarray, own: tuple, x: np.ndarray) -> np.ndarray:
    a, deviation = _parameters(name, outputs, bias, own)
    if "bernoulli" in name:
        bernoulli = np.sum(x * -np.logaddexp(0, -a) + (1 - x) * -np.logaddexp(0, a), axis=1)
        return bernoulli + (name != "bernoulli") * np.log(2 * np.arctanh(np.tanh(a / 2)) / np.tanh(a / 2)).sum(axis=1)
    if name == "poisson":
        return stats.poisson(np.exp(a - np.logaddexp(0, a - 26))).logpmf(x).sum(axis=1)
    if name == "negative-binomial":
        mean, r = np.exp(a - np.logaddexp(0, a - 26)), _dispersion(own)
        return stats.nbinom(r, r / (r + mean)).logpmf(x).sum(axis=1)
    if name in SHARES:
        return stats.multinomial(x.sum(axis=1), special.softmax(a, axis=1)).logpmf(x)
    if name == "logistic":
        upper, lower = stats.logistic(a, _scale(own)), stats.logistic(a, _scale(own))
        # By the smaller tail, where less is lost.
        interior = np.where(x > a, lower.sf(x - HALF) - upper.sf(x + HALF), upper.cdf(x + HALF) - lower.cdf(x - HALF))
        p = np.where(x < HALF, upper.cdf(x + HALF), np.where(x > 1 - HALF, lower.sf(x - HALF), interior))
        return np.log(p).sum(axis=1)
    return stats.norm(a, deviation).logpdf(x).sum(axis=1)


def _scale(own: tuple) -> np.ndarray:
    u = own[0].astype(np.float64)
    return np.exp(u + np.logaddexp(0, -10 - u) - np.logaddexp(0, u - 2))


def _dispersion(own: tuple) -> np.ndarray:
    rho = own[0].astype(np.float64)
    return np.exp(rho + np.logaddexp(0, -12 - rho) - np.logaddexp(0, rho - 12))


class Drawn:
    """A likelihood with outputs, bias, own parameters and examples at random."""

    def __init__(self, name: str, dtype: type = np.float64, rows: int = 4, features: int = FEATURES) -> None:
        generator = np.random.default_rng(6)
        self.family: Likelihood = likelihood(name, features, SIGMA)
        self.outputs = (3 * generator.normal(size=(rows, self.family.outputs))).astype(dtype)
        if name == "gaussian-decoder":
            self.outputs[:, features:] /= 3
        self.bias = generator.normal(size=self.family.outputs).astype(dtype)
        self.own = tuple(generator.normal(-1, 1, size).astype(dtype) for _, size in self.family.own)
        self.own += tuple(generator.normal(-2, 1, size).astype(dtype) for _, size in self.family.facts)
        x = generator.random((rows, features))
        x[:, ::3] = x[:, ::3].round()
        if name in COUNTS:
            x = generator.poisson(3 * x)
            self.outputs /= 3
        elif name == "multinomial":
            x = generator.poisson(x)
        elif name == "categorical":
            x = np.eye(features)[generator.integers(features, size=rows)]
        elif name == "logistic":
            x = np.round(255 * x) / 255
            self.outputs /= 10
        self.x = x.astype(dtype)
        self.weight = generator.random(rows)
        self.log_likelihood = np.full(rows, np.nan)
        self.d_bias = np.full_like(self.bias, np.nan)
        self.d_own = tuple(np.full_like(array, np.nan) for array in self.own)

    def loss_gradient(self) -> float:
        into = self.log_likelihood, self.d_bias, self.d_own
        return self.family.loss_gradient(self.outputs, self.bias, self.own, self.x, self.weight, *into)


def test_bernoulli_probabilities_sum_to_one() -> None:
    family = likelihood("bernoulli", 8)
    x = np.array(list(itertools.product([0.0, 1.0], repeat=8)))
    outputs, bias = np.tile(np.linspace(-4, 6, 8), (256, 1)), np.linspace(1, -1, 8)
    log_likelihood = np.empty(256)
    family.log_likelihood(outputs, bias, (), x, log_likelihood)
    assert np.exp(log_likelihood).sum() == pytest.approx(1, rel=1e-12)


@pytest.mark.parametrize(
    "name", [name for name in LIKELIHOODS if name not in ("bernoulli", "logistic", *COUNTS, *SHARES)]
)
def test_densities_integrate_to_one(name: str) -> None:
    drawn = Drawn(name, rows=1, features=1)

    def density(value: float) -> float:
        drawn.family.log_likelihood(drawn.outputs, drawn.bias, drawn.own, np.array([[value]]), drawn.log_likelihood)
        return math.exp(drawn.log_likelihood[0])

    mean = drawn.family.mean(drawn.outputs.copy(), drawn.bias, drawn.own)[0, 0]
    low, high = (0, 1) if name == "continuous-bernoulli" else (mean - 50, mean + 50)
    assert integrate.quad(density, low, high, points=[mean])[0] == pytest.approx(1, rel=1e-9)
    assert integrate.quad(lambda x: x * density(x), low, high, points=[mean])[0] == pytest.approx(mean, rel=1e-9)


def test_probabilities_of_levels_sum_to_one_and_have_the_mean() -> None:
    drawn = Drawn("logistic", rows=256, features=1)
    for middle in (-0.5, 0.01, 0.4, 1.2):
        outputs, levels = np.full_like(drawn.outputs, middle), np.arange(256) / 255
        drawn.family.log_likelihood(outputs, drawn.bias, drawn.own, levels[:, None], drawn.log_likelihood)
        probabilities = np.exp(drawn.log_likelihood)
        assert probabilities.sum() == pytest.approx(1, rel=1e-12)
        mean = drawn.family.mean(outputs[:1].copy(), drawn.bias, drawn.own)[0, 0]
        assert probabilities @ levels == pytest.approx(mean, rel=1e-12)


def test_probabilities_of_all_draws_sum_to_one() -> None:
    draws = np.array([row for row in itertools.product(range(5), repeat=4) if sum(row) == 4], float)
    generator, log_likelihood = np.random.default_rng(3), np.empty(len(draws))
    outputs, bias = np.tile(generator.normal(size=4), (len(draws), 1)), generator.normal(size=4)
    likelihood("multinomial", 4).log_likelihood(outputs, bias, (), draws, log_likelihood)
    assert np.exp(log_likelihood).sum() == pytest.approx(1, rel=1e-12)
    likelihood("categorical", 4).log_likelihood(outputs[:4], bias, (), np.eye(4), log_likelihood[:4])
    assert np.exp(log_likelihood[:4]).sum() == pytest.approx(1, rel=1e-12)


@pytest.mark.parametrize("name", ["logistic", "categorical", "multinomial"])
def test_far_outputs_give_finite_numbers_and_nan_is_not_hidden(name: str) -> None:
    drawn = Drawn(name, np.float32, rows=3)
    drawn.outputs[0] *= 1e4
    drawn.outputs[2, 5] = np.nan
    drawn.loss_gradient()
    assert np.isfinite(drawn.outputs[:2]).all()
    np.testing.assert_array_equal(np.isfinite(drawn.log_likelihood), [True, True, False])
    assert np.isnan(drawn.outputs[2, 5])


@pytest.mark.parametrize("name", COUNTS)
def test_probabilities_of_counts_sum_to_one_and_have_the_mean(name: str) -> None:
    drawn = Drawn(name, rows=200, features=1)
    outputs, counts = np.full_like(drawn.outputs, 1.3), np.arange(200.0)
    drawn.family.log_likelihood(outputs, drawn.bias, drawn.own, counts[:, None], drawn.log_likelihood)
    probabilities = np.exp(drawn.log_likelihood)
    assert probabilities.sum() == pytest.approx(1, rel=1e-12)
    assert probabilities @ counts == pytest.approx(drawn.family.mean(outputs, drawn.bias, drawn.own)[0, 0], rel=1e-12)


@pytest.mark.parametrize(("dtype", "rtol"), DTYPES)
@pytest.mark.parametrize("name", LIKELIHOODS)
def test_log_likelihood_of_each_row_is_the_formula(name: str, dtype: type, rtol: float) -> None:
    drawn = Drawn(name, dtype)
    given = name, drawn.outputs.copy(), drawn.bias, drawn.own
    expected = _log_density(*given, drawn.x)
    of_few = _log_density(*given, drawn.x[[0, 1, 0, 1]])
    plain = drawn.family.log_likelihood
    plain(drawn.outputs, drawn.bias, drawn.own, drawn.x, drawn.log_likelihood)
    np.testing.assert_allclose(drawn.log_likelihood, expected, rtol=rtol)
    plain(drawn.outputs, drawn.bias, drawn.own, drawn.x[:2], drawn.log_likelihood)
    np.testing.assert_allclose(drawn.log_likelihood, of_few, rtol=rtol)
    np.testing.assert_array_equal(drawn.outputs, given[1])

    total = drawn.loss_gradient()

    np.testing.assert_allclose(drawn.log_likelihood, expected, rtol=rtol)
    assert total == pytest.approx(expected.sum(), rel=rtol)


@pytest.mark.parametrize("name", LIKELIHOODS)
def test_loss_gradient_matches_central_differences(name: str) -> None:
    drawn, step = Drawn(name), 1e-5
    # Few examples for many outputs, as where several z belong to one x.
    drawn.x = drawn.x[:2]
    outputs, bias, own = drawn.outputs.copy(), drawn.bias, drawn.own
    x = drawn.x[[0, 1, 0, 1]]
    slopes = np.empty_like(outputs)
    for column in range(outputs.shape[1]):
        moved = np.zeros_like(bias)
        moved[column] = step
        above, below = (_log_density(name, outputs + way, bias, own, x) for way in (moved, -moved))
        slopes[:, column] = -drawn.weight * (above - below) / (2 * step)
    drawn.loss_gradient()
    np.testing.assert_allclose(drawn.outputs, slopes, rtol=1e-6, atol=1e-7)
    np.testing.assert_allclose(drawn.d_bias, slopes.sum(axis=0), rtol=1e-6, atol=1e-6)
    for number, array in enumerate(own):
        for k in range(array.size):
            either = [list(own), list(own)]
            for sign, ways in zip((1, -1), either, strict=True):
                ways[number] = array.copy()
                ways[number][k] += sign * step
            above, below = (drawn.weight @ _log_density(name, outputs, bias, tuple(ways), x) for ways in either)
            slope = -(above - below) / (2 * step) if number < len(drawn.family.own) else 0.0
            assert drawn.d_own[number][k] == pytest.approx(slope, rel=1e-6, abs=1e-7)


@pytest.mark.parametrize("name", LIKELIHOODS)
def test_float32_gradient_agrees_with_float64(name: str) -> None:
    drawn, exact = Drawn(name, np.float32), Drawn(name)
    exact.outputs[:], exact.bias[:], exact.x[:] = drawn.outputs, drawn.bias, drawn.x
    exact.own = tuple(array.astype(np.float64) for array in drawn.own)
    drawn.loss_gradient()
    exact.loss_gradient()
    own = zip(drawn.d_own, exact.d_own, strict=True)
    for got, expected in ((drawn.outputs, exact.outputs), (drawn.d_bias, exact.d_bias), *own):
        np.testing.assert_allclose(got, expected, rtol=2e-5, atol=2e-6 * np.abs(expected).max())


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_continuous_bernoulli_is_smooth_where_its_formulas_are_not_defined(dtype: type) -> None:
    a = np.array([[-1e4, -90, -0.25, -1e-3, 0, 1e-30, 0.2499, 0.2501, 90, 1e4]], dtype)
    family, x = likelihood("continuous-bernoulli", 10), np.full((1, 10), 0.5, dtype)
    with decimal.localcontext(prec=80):
        exact = [decimal.Decimal(float(one)) for one in a[0]]
        means = [1 / (1 - (-one).exp()) - 1 / one if one else decimal.Decimal("0.5") for one in exact]
        # With e = exp(a): C = a (e + 1) / (e - 1), so the density at 1/2 is a exp(a/2) / (e - 1); 1 at a = 0.
        expected = sum((one * (one / 2).exp() / (one.exp() - 1)).ln() for one in exact if one)
    outputs, bias, log_likelihood, d_bias = a.copy(), np.zeros(10, dtype), np.empty(1), np.empty(10, dtype)
    family.loss_gradient(outputs, bias, (), x, np.ones(1), log_likelihood, d_bias, ())
    tolerance = 40 * float(np.finfo(dtype).eps)
    np.testing.assert_allclose(outputs[0], [float(mean) - 0.5 for mean in means], rtol=tolerance, atol=tolerance)
    assert log_likelihood[0] == pytest.approx(float(expected), rel=tolerance)


def test_bernoulli_is_finite_at_extreme_logits_and_nan_is_not_hidden() -> None:
    family = likelihood("bernoulli", 3)
    outputs = np.array([[1e4, -1e4, 300], [1e4, -1e4, np.nan]], np.float32)
    x, log_likelihood, d_bias = np.array([[1, 0, 0]] * 2, np.float32), np.empty(2), np.empty(3, np.float32)
    family.loss_gradient(outputs, np.zeros(3, np.float32), (), x, np.ones(2), log_likelihood, d_bias, ())
    assert log_likelihood[0] == -300
    assert np.isnan(log_likelihood[1])
    np.testing.assert_array_equal(outputs[0], [0, 0, 1])
    assert np.isnan(d_bias[2])


def test_a_deviation_from_the_decoder_is_bounded_and_has_a_gradient_at_every_output() -> None:
    family = likelihood("gaussian-decoder", 1)
    floor = (np.array([-16.0], np.float32),)
    outputs = np.array([[0.5, u] for u in (-1e6, -30, -17, 0, 7, 9, 1e6, np.nan)], np.float32)
    x, log_likelihood, d_bias = np.zeros((1, 1), np.float32), np.empty(8), np.empty(2, np.float32)
    family.loss_gradient(
        outputs, np.zeros(2, np.float32), floor, x, np.ones(8), log_likelihood, d_bias, (floor[0] * 0,)
    )
    v = -2 * (log_likelihood + 0.5 * math.log(2 * math.pi))
    assert np.isfinite(outputs[:-1]).all()
    # At the floor the difference counts e^16 times, at the ceiling hardly at all.
    np.testing.assert_allclose(v[[0, 6]], [0.25 * math.exp(16) - 16, 0.25 * math.exp(-8) + 8], rtol=1e-5)
    assert np.isnan(outputs[-1]).any()
    assert (outputs[1:6, 1] != 0).all()


@pytest.mark.parametrize("name", LIKELIHOODS)
def test_samples_have_the_mean_and_deviation_of_the_distribution(name: str) -> None:
    rows, features = 20_000, 5
    drawn = Drawn(name, np.float32, rows=1, features=features)
    outputs = np.repeat(drawn.outputs / 3, rows, axis=0)
    first, deviation = _parameters(name, outputs[:1], drawn.bias, drawn.own)
    expected, deviation = first[0], deviation.reshape(-1)
    if name == "bernoulli":
        expected = 1 / (1 + np.exp(-expected))
        deviation = np.sqrt(expected * (1 - expected))
    elif name == "continuous-bernoulli":
        # Equations 8 and 9 of the paper, in terms of a.
        a, expected = expected, 1 / (1 - np.exp(-expected)) - 1 / expected
        deviation = np.sqrt(1 / a**2 - 1 / (4 * np.sinh(a / 2) ** 2))
    elif name == "poisson":
        expected = np.exp(expected)
        deviation = np.sqrt(expected)
    elif name == "negative-binomial":
        expected = np.exp(expected)
        deviation = np.sqrt(expected + expected**2 / _dispersion(drawn.own))
    elif name == "logistic":
        levels = np.arange(256)[:, None] / 255
        columns = [
            np.exp(
                [_log_density(name, outputs[:1, j : j + 1], drawn.bias[j : j + 1], (drawn.own[0][j : j + 1],), levels)]
            )
            for j in range(features)
        ]
        expected = np.array([column[0] @ levels[:, 0] for column in columns])
        deviation = np.sqrt([column[0] @ np.square(levels[:, 0]) for column in columns] - expected**2)
    elif name in SHARES:
        expected = special.softmax(expected)
        deviation = np.sqrt(expected * (1 - expected))
    mean = drawn.family.mean(outputs.copy(), drawn.bias, drawn.own)[0].astype(np.float64)
    x = drawn.family.sample(outputs, drawn.bias, drawn.own, seed=1, step=0, rows=np.arange(rows))
    np.testing.assert_allclose(mean, expected, rtol=1e-6)
    assert np.all(np.abs(x.mean(axis=0) - expected) < 4 * deviation / math.sqrt(rows))
    np.testing.assert_allclose(x.std(axis=0), deviation, rtol=0.1 if name == "negative-binomial" else 0.03)


@pytest.mark.parametrize("name", LIKELIHOODS)
def test_initial_values_make_the_mean_of_the_data(name: str) -> None:
    family, means = likelihood(name, 3, SIGMA), np.array([0.01, 0.5, 0.9])
    initial = family.initial(means, np.array([0.01, 0.2, 0.1]))
    assert len(initial.own) == len(family.own) + len(family.facts)
    mean = family.mean(np.zeros((1, family.outputs)), initial.bias, initial.own)
    expected = means / means.sum() if name in SHARES else means
    np.testing.assert_allclose(mean[0], expected, rtol=1e-8 if name in COUNTS else 1e-12)


@pytest.mark.parametrize("name", ["gaussian-shared", "gaussian-feature", "gaussian-decoder"])
def test_initial_values_make_the_variance_of_the_data(name: str) -> None:
    variances = np.array([4.0, 4.0, 4.0]) if name == "gaussian-shared" else np.array([1e-12, 0.2, 1e12])
    family = likelihood(name, 3)
    initial = family.initial(np.zeros(3), variances)
    _, deviation = _parameters(name, np.zeros((1, family.outputs)), initial.bias, initial.own)
    np.testing.assert_allclose(deviation.reshape(-1) ** 2, variances, rtol=1e-5)


@pytest.mark.parametrize("name", ["gaussian-shared", "gaussian-feature", "gaussian-decoder"])
def test_features_that_never_change_have_a_finite_beginning(name: str) -> None:
    initial = likelihood(name, 3).initial(np.array([0.0, 5.0, -1e6]), np.zeros(3))
    assert all(np.isfinite(array).all() for array in (initial.bias, *initial.own))


@pytest.mark.parametrize("name", COUNTS)
def test_large_counts_lose_no_nats_in_float32(name: str) -> None:
    """Nearly all of the sum is taken away again by the gamma functions."""
    features, generator = 1000, np.random.default_rng(1)
    family = likelihood(name, features)
    outputs = (math.log(1000) + 0.01 * generator.normal(size=(10, features))).astype(np.float32)
    own = tuple(np.full(size, 10, np.float32) for _, size in family.own)
    x = generator.poisson(1000, size=(1, features)).astype(np.float32)
    log_likelihood, bias = np.empty(10), np.zeros(features, np.float32)
    family.log_likelihood(outputs, bias, own, x, log_likelihood)
    np.testing.assert_allclose(log_likelihood, _log_density(name, outputs, bias, own, x), rtol=0, atol=0.05)
    again, d_own = np.empty(10), tuple(map(np.copy, own))
    family.loss_gradient(outputs, bias, own, x, np.ones(10), again, bias.copy(), d_own)
    np.testing.assert_allclose(again, log_likelihood, rtol=0, atol=1e-6)


@pytest.mark.parametrize("count", [1e5, 1e7])
def test_the_largest_counts_are_as_likely_as_float64_says(count: float) -> None:
    bias, log_likelihood = np.zeros(2, np.float32), np.empty(1)
    a = np.array([[math.log(count), math.log(2 * count)]], np.float32)
    x = np.array([[1.0003 * count, 1.9997 * count]], np.float32)
    likelihood("poisson", 2).log_likelihood(a, bias, (), x, log_likelihood)
    eta = (a - np.logaddexp(np.float32(0), a - np.float32(26))).astype(float)
    # What is left is float32's rounding of eta, half a unit in its last place.
    atol = 2 * np.spacing(a.max()) * np.abs(x - np.exp(eta)).max()
    assert log_likelihood[0] == pytest.approx(stats.poisson.logpmf(x.astype(float), np.exp(eta)).sum(), abs=atol)

    likelihood("multinomial", 2).log_likelihood(a, bias, (), x, log_likelihood)
    shares, draws = special.softmax(a.astype(float) - a.max(), axis=1), x.astype(float)
    expected = special.gammaln(draws.sum() + 1) - special.gammaln(draws + 1).sum() + special.xlogy(draws, shares).sum()
    assert log_likelihood[0] == pytest.approx(expected, abs=1e-6 * count)


def test_shares_of_many_values_begin_as_those_of_the_data() -> None:
    means = np.zeros(30_000)
    means[:100] = 1.0
    bias = likelihood("multinomial", 30_000).initial(means, means).bias
    shares = special.softmax(bias)
    assert shares[:100].sum() > 0.999
    assert np.isfinite(bias).all()


@pytest.mark.parametrize("rate", [1e-3, 0.7, 20.0, 900.0, 1e6])
def test_counts_are_distributed_as_poisson_says(rate: float) -> None:
    rows = 20_000
    outputs = np.full((rows, 1), np.log(rate))
    family = likelihood("poisson", 1)
    rate = family.mean(outputs[:1].copy(), np.zeros(1), ())[0, 0]
    x = family.sample(outputs, np.zeros(1), (), seed=3, step=0, rows=np.arange(rows))[:, 0]
    edges = np.unique(stats.poisson(rate).ppf(np.linspace(0.1, 0.9, 9)))
    got = np.bincount(np.searchsorted(edges, x, side="left"), minlength=len(edges) + 1)
    below = stats.poisson(rate).cdf(edges)
    expected = rows * np.diff(np.concatenate([[0.0], below, [1.0]]))
    assert stats.chisquare(got, expected).pvalue > 0.001


@pytest.mark.parametrize(
    ("value", "hint"),
    [
        (-1.0, "gaussian-feature"),
        (0.5, "continuous-bernoulli"),
        (2.5, "gaussian-feature"),
        (2e7, "16,777,216 is the largest"),
        (np.nan, "mend the data"),
    ],
)
def test_what_is_no_count_is_refused_with_what_fits_it(value: float, hint: str) -> None:
    data = np.full((6, 5), 3.0, np.float32)
    likelihood("poisson", 5).check_data(data)
    data[3, 2] = value
    with pytest.raises(DataError, match="row 3, column 2.*" + hint):
        likelihood("poisson", 5).check_data(data)


@pytest.mark.parametrize(
    ("rows", "hint"),
    [
        ([[1, 0, 0], [1, 1, 0]], "take bernoulli"),
        ([[1, 0, 0], [0, 0, 0]], "take bernoulli"),
        ([[1, 0, 0], [0, 2, 0]], "multinomial"),
        ([[1, 0, 0], [0.5, 0.5, 0]], "gaussian-feature"),
        ([[1], [3]], "OneHotEncoder"),
    ],
)
def test_what_is_not_one_hot_is_refused_with_what_fits_it(rows: list, hint: str) -> None:
    with pytest.raises(DataError, match=r"not one-hot in row 1: .*" + hint):
        likelihood("categorical", len(rows[0])).check_data(np.array(rows, np.float32))


def test_values_between_levels_are_refused_with_what_takes_them() -> None:
    data = (np.arange(256, dtype=np.float32) / np.float32(255)).reshape(16, 16)
    likelihood("logistic", 16).check_data(data)
    data[3, 2] += 0.002
    with pytest.raises(DataError, match=r"row 3, column 2.*continuous-bernoulli"):
        likelihood("logistic", 16).check_data(data)


def test_initial_bias_of_a_pixel_that_is_never_on_is_finite() -> None:
    bias = likelihood("bernoulli", 2).initial(np.array([0.0, 1.0]), np.zeros(2)).bias
    np.testing.assert_allclose(bias, [-6.906755, 6.906755])


@pytest.mark.parametrize(
    ("name", "value"), [("bernoulli", 1.5), ("bernoulli", -0.1), ("bernoulli", np.nan), ("gaussian", np.inf)]
)
def test_data_that_cannot_be_an_x_is_refused_with_its_place(name: str, value: float) -> None:
    data = np.full((6, 5), 0.5, np.float32)
    likelihood(name, 5).check_data(data)
    data[3, 2] = value
    with pytest.raises(DataError, match="row 3, column 2"):
        likelihood(name, 5).check_data(data)


def test_an_unknown_likelihood_is_answered_with_the_known_ones() -> None:
    with pytest.raises(UsageError, match="'cauchy' is not known: use bernoulli, continuous-bernoulli, gaussian"):
        likelihood("cauchy", 3)
