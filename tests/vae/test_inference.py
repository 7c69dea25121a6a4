"""Encoding, decoding, sampling: against the model written out, in chunks and not."""

import numpy as np
import pytest
from scipy import special, stats

from ps_vae.errors import UsageError
from ps_vae.nn.likelihoods import LIKELIHOODS
from ps_vae.vae.bounds import Objective
from ps_vae.vae.config import ModelConfig
from ps_vae.vae.inference import decode, draw, elbo_terms, encode, latent_of, prior_terms, reconstruct, sample_prior
from ps_vae.vae.layout import ParameterLayout, Parameters
from ps_vae.vae.network import Workspace
from ps_vae.vae.objective import objective_gradient

ROWS = 600  # more than two chunks, the last one partly filled


def _model(likelihood: str = "bernoulli", prior: str = "normal") -> tuple[Parameters, np.ndarray, np.ndarray]:
    generator = np.random.default_rng(8)
    layout = ParameterLayout(ModelConfig(30, (20,), 4, "relu", likelihood, prior=prior))
    vector = layout.zeros()
    for view in layout.views(vector).values():
        view[:] = generator.normal(size=view.shape) / np.sqrt(view.shape[0])
    layout.views(vector)["posterior.bias"][4:] += 11  # log-variances that meet their bound
    x = generator.random((ROWS, 30)).astype(np.float32)
    return layout.bind(vector), x, generator.normal(size=(ROWS, 4)).astype(np.float32)


def _written_out(parameters: Parameters, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    first, last = parameters.encoder
    posterior = np.maximum(x @ first.weight + first.bias, 0) @ last.weight + last.bias
    mean, u = posterior[:, :4], posterior[:, 4:]
    return mean, u + np.logaddexp(0, -20 - u) - np.logaddexp(0, u - 10)


def _decoded(parameters: Parameters, z: np.ndarray) -> np.ndarray:
    first, last = parameters.decoder
    return np.maximum(z @ first.weight + first.bias, 0) @ last.weight + last.bias


def test_encode_gives_the_mean_and_the_bounded_log_variance() -> None:
    parameters, x, _ = _model()
    posterior = encode(parameters, x)
    mean, v = _written_out(parameters, x)
    np.testing.assert_allclose(posterior.mean, mean, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(posterior.log_variance, v, rtol=1e-5, atol=1e-5)
    assert posterior.log_variance.max() < 10


@pytest.mark.parametrize("likelihood", ["bernoulli", "gaussian"])
def test_decode_gives_the_mean_of_the_likelihood(likelihood: str) -> None:
    parameters, _, z = _model(likelihood)
    logits = _decoded(parameters, z)
    expected = logits if likelihood == "gaussian" else 1 / (1 + np.exp(-logits))
    np.testing.assert_allclose(decode(parameters, z), expected, rtol=1e-4, atol=1e-5)


def test_reconstruction_decodes_the_posterior_mean() -> None:
    parameters, x, _ = _model()
    np.testing.assert_array_equal(reconstruct(parameters, x), decode(parameters, encode(parameters, x).mean))


def test_prior_samples_are_standard_normal_and_a_longer_list_begins_the_same() -> None:
    parameters, _, _ = _model()
    z = sample_prior(parameters, 5000, seed=3)
    means = decode(parameters, z)
    assert abs(z.mean()) < 4 / np.sqrt(z.size)
    assert abs(z.var() - 1) < 4 * np.sqrt(2 / z.size)
    np.testing.assert_array_equal(sample_prior(parameters, 7, seed=3), z[:7])
    assert not np.array_equal(sample_prior(parameters, 7, seed=4), z[:7])
    np.testing.assert_array_equal(means, decode(parameters, z))


@pytest.mark.parametrize("likelihood", sorted(LIKELIHOODS))
def test_draws_are_around_their_means_and_no_two_alike(likelihood: str) -> None:
    parameters, _, z = _model(likelihood)
    draws = 4000
    drawn = draw(parameters, np.repeat(z[:2], draws, axis=0), seed=1).reshape(2, draws, 30).astype(np.float64)
    means = decode(parameters, z[:2])
    error = drawn.std(axis=1) / np.sqrt(draws)
    # Where a count is rare all draws can be 0.
    assert (np.abs(drawn.mean(axis=1) - means) < 5 * error + 2e-3).all()
    assert len(np.unique(drawn[0], axis=0)) > (20 if likelihood in ("categorical", "multinomial") else draws // 2)


def test_bernoulli_draws_are_bits_and_gaussian_ones_have_the_deviation_of_the_model() -> None:
    parameters, _, z = _model("bernoulli")
    bits = draw(parameters, z, seed=1)
    assert set(np.unique(bits)) == {0.0, 1.0}
    expected = special.expit(_decoded(parameters, z))
    assert abs((bits - expected).mean()) < 5 * np.sqrt((expected * (1 - expected)).mean() / bits.size)
    layout = ParameterLayout(ModelConfig(30, (20,), 4, "relu", "gaussian", sigma=0.3))
    parameters = layout.bind(parameters.vector)
    noise = (draw(parameters, z, seed=1) - _decoded(parameters, z)) / 0.3
    assert stats.kstest(noise.reshape(-1), "norm").pvalue > 0.001


def test_a_draw_follows_from_its_name_and_seed_and_not_from_its_place() -> None:
    parameters, _, z = _model("gaussian")
    whole, names = draw(parameters, z, seed=1), np.arange(ROWS)[::-1].copy()
    np.testing.assert_array_equal(draw(parameters, z[:7], seed=1), whole[:7])
    np.testing.assert_array_equal(draw(parameters, z[::-1].copy(), seed=1, rows=names), whole[::-1])
    for other in (draw(parameters, z, seed=2), draw(parameters, z, seed=1, step=1)):
        assert (other != whole).mean() > 0.99
    with pytest.raises(UsageError, match="give one for each"):
        draw(parameters, z, seed=1, rows=names[1:])


@pytest.mark.parametrize("likelihood", ["bernoulli", "gaussian"])
def test_elbo_terms_of_the_rows_are_those_of_training(likelihood: str) -> None:
    parameters, x, noise = _model(likelihood)
    terms = elbo_terms(parameters, x, noise)
    workspace, layout = Workspace(parameters.config, ROWS, trains=True), ParameterLayout(parameters.config)
    objective_gradient(
        parameters, x, noise, objective=Objective(beta=3.0), workspace=workspace, gradient=layout.bind(layout.zeros())
    )
    np.testing.assert_allclose(terms.log_likelihood, workspace.log_likelihood, rtol=1e-4)
    np.testing.assert_allclose(terms.kl, workspace.kl, rtol=1e-4)


@pytest.mark.parametrize("prior", ["mixture:3", "vamp:3"])
def test_elbo_terms_with_a_learned_prior_are_those_of_the_sample(prior: str) -> None:
    """log q(z|x) - log p(z) of the one sample, by scipy's densities."""
    parameters, x, noise = _model(prior=prior)
    x, noise = x[:20], noise[:20]
    if prior.startswith("vamp"):
        means, v = _written_out(parameters, parameters.prior[0])
        shares = np.full(3, 1 / 3)
    else:
        means, u = parameters.prior[0][:, :4], parameters.prior[0][:, 4:]
        v, shares = u + np.logaddexp(0, -20 - u) - np.logaddexp(0, u - 10), special.softmax(parameters.prior[1])
    mean, log_variance = _written_out(parameters, x)
    z = mean + np.exp(log_variance / 2) * noise
    log_q = stats.norm.logpdf(z, mean, np.exp(log_variance / 2)).sum(axis=1)
    log_terms = stats.norm.logpdf(z[:, None], means, np.exp(v / 2)).sum(axis=2)
    log_p = special.logsumexp(log_terms, axis=1, b=shares)
    np.testing.assert_allclose(elbo_terms(parameters, x, noise).kl, log_q - log_p, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("prior", ["normal", "uniform", "mixture:3", "vamp:3"])
def test_samples_of_the_prior_are_those_of_its_density(prior: str) -> None:
    """The density's mean over points spread evenly is one over their volume; and where it is high there are samples."""
    layout = ParameterLayout(ModelConfig(3, (), 1, prior=prior))
    vector = layout.zeros(np.float64)
    for view in layout.views(vector).values():
        view[:] = np.random.default_rng(5).normal(size=view.shape)
    parameters = layout.bind(vector)
    z = sample_prior(parameters, 4000, seed=2)
    u = np.linspace(-30, 30, 60_001)[:, None]
    density, log_density = prior_terms(parameters), np.empty(len(u))
    density.log_density(u, log_density)
    mass = np.exp(log_density) * 0.001
    assert mass.sum() == pytest.approx(1, rel=1e-6)
    distribution = np.concatenate([[0.0], np.cumsum(mass)])[:-1] + mass / 2
    places = latent_of(parameters, u)[:, 0]
    assert stats.kstest(z[:, 0], lambda at: np.interp(at, places, distribution)).pvalue > 0.001


def test_a_uniform_prior_fills_the_unit_cube() -> None:
    z = sample_prior(_model(prior="uniform")[0], 2000, seed=1)
    assert stats.kstest(z.reshape(-1), "uniform").pvalue > 0.001


def test_no_rows_give_no_results() -> None:
    parameters, x, noise = _model()
    assert encode(parameters, x[:0]).mean.shape == (0, 4)
    assert decode(parameters, noise[:0]).shape == (0, 30)
    assert elbo_terms(parameters, x[:0], noise[:0]).kl.shape == (0,)


def test_rows_of_another_model_are_refused() -> None:
    parameters, x, noise = _model()
    with pytest.raises(UsageError, match=r"\(rows, 30\)"):
        encode(parameters, x[:, :29])
    with pytest.raises(UsageError, match=r"\(rows, 4\)"):
        decode(parameters, x)
    with pytest.raises(UsageError, match="599 rows and 600 examples"):
        elbo_terms(parameters, x, noise[1:])
