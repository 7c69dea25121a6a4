"""`ps_vae.VAE`: scikit-learn's own checks, the same bits with any number of workers, files, and likelihoods that are
known."""

import gc
import os
import subprocess
import sys
import threading
import warnings
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from pathlib import Path

import numpy as np
import pandas
import pytest
from scipy import stats
from sklearn.utils.estimator_checks import parametrize_with_checks

from ps_vae import VAE
from ps_vae.data import Split, from_arrays, gather
from ps_vae.errors import CheckpointError, DataError, NumericalError, UsageError

SMALL = {"latent_dim": 2, "hidden": (8,), "epochs": 3, "batch_size": 32, "importance_samples": 20}


def _rows(n: int = 100, features: int = 5) -> np.ndarray:
    return np.random.default_rng(1).random((n, features))


def gather_all(split: Split) -> np.ndarray:
    return gather(split, np.arange(len(split)), np.empty((len(split), split.features), np.float32))


@parametrize_with_checks([VAE(likelihood="gaussian-feature", **SMALL)])
def test_scikit_learns_own_checks_pass(estimator, check) -> None:
    check(estimator)


@pytest.mark.parametrize("more", [{}, {"prior": "vamp:4", "bound": "dreg:3"}], ids=["elbo", "dreg, vamp"])
def test_weights_and_scores_have_the_same_bits_with_any_number_of_workers(more: dict) -> None:
    rows = _rows()
    models = [VAE(**SMALL, **more, random_state=3, workers=workers).fit(rows) for workers in (0, 1, 2)]
    for other in models[1:]:
        np.testing.assert_array_equal(other.weights_, models[0].weights_)
        np.testing.assert_array_equal(other.score_samples(rows), models[0].score_samples(rows))


def test_a_loaded_model_is_the_one_that_was_saved(tmp_path: Path) -> None:
    rows = _rows()
    model = VAE(**SMALL, random_state=3, prior="mixture:2").fit(rows)
    model.save(tmp_path / "model.safetensors")
    loaded = VAE.load(tmp_path / "model.safetensors")
    assert loaded.get_params() == model.get_params()
    assert (loaded.config_, loaded.n_iter_, loaded.n_features_in_) == (model.config_, model.n_iter_, 5)
    np.testing.assert_array_equal(loaded.transform(rows), model.transform(rows))
    np.testing.assert_array_equal(loaded.score_samples(rows), model.score_samples(rows))


def test_what_was_changed_in_a_file_is_seen(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    VAE(**SMALL, random_state=3).fit(_rows()).save(path)
    whole = path.read_bytes()
    for place in (len(whole) - 5, whole.index(b"format") + 20, whole.index(b"learning_rate") + 18):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        with pytest.raises(CheckpointError, match=r"model\.safetensors"):
            VAE.load(path)


def test_names_of_a_dataframe_come_back_with_a_loaded_model(tmp_path: Path) -> None:
    frame = pandas.DataFrame(_rows(), columns=list("abcde"))
    VAE(**SMALL, random_state=3).fit(frame).save(tmp_path / "model.safetensors")
    loaded = VAE.load(tmp_path / "model.safetensors")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        loaded.transform(frame)
    assert loaded.feature_names_in_.tolist() == list("abcde")


def test_numbers_of_numpy_are_numbers(tmp_path: Path) -> None:
    counts = {"latent_dim": np.int64(2), "hidden": np.array([8]), "batch_size": np.int32(32), "workers": np.int64(0)}
    counts |= {"importance_samples": np.int64(20), "random_state": np.int64(3), "beta": np.float32(0.5)}
    model = VAE(**{**SMALL, **counts}).fit(_rows())
    plain = VAE(**SMALL, beta=0.5, random_state=3).fit(_rows())
    np.testing.assert_array_equal(model.weights_, plain.weights_)
    model.set_params(hidden=(np.int64(8),)).save(tmp_path / "model.safetensors")
    loaded = VAE.load(tmp_path / "model.safetensors")
    np.testing.assert_array_equal(loaded.score_samples(_rows()), plain.score_samples(_rows()))


@pytest.mark.parametrize("hidden", [np.array([8]), [np.int64(8)], range(8, 9)], ids=str)
def test_a_model_is_saved_whatever_its_widths_were_given_in(hidden: object, tmp_path: Path) -> None:
    model = VAE(**{**SMALL, "hidden": hidden, "beta": np.array(0.5)}, random_state=3).fit(_rows())
    model.save(tmp_path / "model.safetensors")
    loaded = VAE.load(tmp_path / "model.safetensors")
    assert (loaded.hidden, loaded.beta) == ((8,), 0.5)
    np.testing.assert_array_equal(loaded.transform(_rows()), model.transform(_rows()))
    with pytest.raises(UsageError, match=r"a parameter is Decimal\('0\.5'\)"):
        model.set_params(beta=Decimal("0.5")).save(tmp_path / "model.safetensors")


@pytest.mark.parametrize(
    ("z", "text"),
    [
        ([[1e300, 0]], r"Z has values beyond 3\.4e38"),
        ([[3e38, -3e38]], r"Z has values of up to 3e\+38, from which the decoder makes no numbers"),
        ([[np.inf, 0]], "Z contains NaN or infinity"),
        (np.array([[1, 1j]]), "Z is complex"),
        (np.array([[1, "b"]], object), "Z cannot be read as rows of numbers"),
        (np.array([[1, {}]], object), "Z cannot be read as rows of numbers"),
        ([[1, 2], [3]], "Z cannot be read as rows of numbers"),
        (None, "Z"),
        ([1.0, 2.0], "latent vectors"),
    ],
)
def test_what_is_no_latent_vector_is_refused(z: object, text: str) -> None:
    with pytest.raises((DataError, UsageError), match=text):
        VAE(**SMALL, likelihood="gaussian-feature", random_state=3).fit(_rows()).inverse_transform(z)


def test_objects_that_are_numbers_are_latent_vectors() -> None:
    model = VAE(**SMALL, random_state=3).fit(_rows())
    z = np.array([[0.5, -1.0], [2, 3]])
    np.testing.assert_array_equal(model.inverse_transform(z.astype(object)), model.inverse_transform(z))


@pytest.mark.parametrize("count", [2.5, None, "3", 0, -1, [2]])
def test_a_number_of_samples_is_a_whole_one(count: object) -> None:
    with pytest.raises(UsageError, match="n_samples="):
        VAE(**SMALL).fit(_rows()).sample(count)


def test_draws_are_the_means_of_the_same_z_with_the_noise_of_the_likelihood() -> None:
    bits = VAE(2, (8,), epochs=2, random_state=0).fit((_rows() > _rows().mean(axis=0)).astype(float))
    means, draws = bits.sample(4_000, 3), bits.sample(4_000, 3, draw=True)
    assert set(np.unique(draws)) == {0, 1}
    # Given z the draws are independent, each with the deviation of a coin of its mean.
    error = np.sqrt((means * (1 - means)).sum(axis=0)) / len(means)
    assert np.all(np.abs((draws - means).mean(axis=0)) < 5 * error)
    np.testing.assert_array_equal(bits.sample(4_000, 3, draw=True), draws)


def test_two_models_are_trained_side_by_side() -> None:
    rows = _rows()
    with ThreadPoolExecutor(2) as pool:
        models = list(pool.map(lambda seed: VAE(**SMALL, random_state=seed, workers=1).fit(rows), (1, 2)))
    for seed, model in zip((1, 2), models, strict=True):
        np.testing.assert_array_equal(model.weights_, VAE(**SMALL, random_state=seed).fit(rows).weights_)


def test_training_leaves_no_thread() -> None:
    before = set(threading.enumerate())
    # Large enough for an update on two cores.
    VAE(20, (1200,), epochs=1, batch_size=64).fit(_rows(64, 200))
    gc.collect()
    for thread in set(threading.enumerate()) - before:
        thread.join(30)
    assert set(threading.enumerate()) <= before


@pytest.mark.parametrize("likelihood", ["bernoulli", "poisson"])
def test_rows_that_the_likelihood_cannot_take_have_no_score(likelihood: str) -> None:
    model = VAE(**SMALL, likelihood=likelihood).fit(_rows().round())
    for value in (-1.0, 1e30):
        with pytest.raises(DataError, match="row 3, column 2"):
            model.score_samples(np.where(np.arange(500).reshape(100, 5) == 17, value, 0.0))
    with pytest.raises(DataError, match=r"beyond 3\.4e38"):
        model.transform(_rows() * 1e300)
    with pytest.raises(DataError, match="Z contains NaN"):
        model.inverse_transform(np.full((2, 2), np.nan))


@pytest.mark.parametrize("content", [b"", b"not a model", b"\x08\0\0\0\0\0\0\0{}      "])
def test_a_file_that_is_no_model_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"model\.safetensors is no model"):
        VAE.load(path)


def test_scores_approach_the_density_that_the_data_were_drawn_from() -> None:
    """Correlated normals; a linear model with one deviation can be exact (probabilistic PCA)."""
    generator = np.random.default_rng(2)
    weight = np.array([[1.5, -1.0, 0.5, 0.0]])
    covariance = weight.T @ weight + 0.25 * np.eye(4)
    rows = generator.multivariate_normal(np.ones(4), covariance, size=3000)
    model = VAE(1, (), likelihood="gaussian-shared", bound="stl", epochs=100, random_state=1)
    model.set_params(learning_rate=0.05, schedule="cosine").fit(rows)
    exact = stats.multivariate_normal(rows.mean(axis=0), np.cov(rows.T)).logpdf(rows)
    scores = model.score_samples(rows)
    assert abs(scores.mean() - exact.mean()) < 0.02
    assert np.corrcoef(scores, exact)[0, 1] > 0.99


def test_the_latent_of_a_reconstruction_is_near_and_shapes_and_dtypes_are_kept() -> None:
    rows = _rows().astype(np.float32)
    model = VAE(**SMALL, random_state=1).fit(rows)
    z = model.transform(rows)
    assert (z.shape, z.dtype) == ((100, 2), np.float32)
    assert model.inverse_transform(z.astype(np.float64)).dtype == np.float64
    assert model.sample(7).shape == (7, 5)
    np.testing.assert_array_equal(model.sample(7, random_state=1), model.sample(9, random_state=1)[:7])


def test_a_uniform_priors_latent_lies_in_the_unit_cube() -> None:
    rows = _rows()
    z = VAE(**SMALL, prior="uniform").fit(rows).transform(rows)
    assert 0 < z.min() < z.max() < 1


@pytest.mark.parametrize(
    ("params", "rows", "text"),
    [
        ({}, -_rows(), "use the gaussian likelihood"),
        ({"likelihood": "poisson"}, _rows(), "for values from 0 to 1"),
        ({"workers": -1}, _rows(), "workers=-1"),
        ({"latent_dim": 0}, _rows(), "0 latent dimensions"),
        ({"latent_dim": 2.5}, _rows(), "latent_dim=2.5: give a whole number"),
        ({"hidden": 400}, _rows(), r"hidden=400: give a tuple of widths, such as \(400,\)"),
        ({"epochs": 0}, _rows(), r"^epochs 0\.0: give a number above zero"),
        ({"batch_size": 0}, _rows(), "^batch_size 0"),
        ({"sigma": 1e-200}, _rows(), "sigma 1e-200: give a number from 1e-15 to"),
        ({"sigma": 0.1}, _rows(), "^sigma 0.1 would do nothing: .* give likelihood gaussian, or leave it out"),
        ({"beta": 0.0, "beta_warmup": 9}, _rows(), "^beta_warmup 9 would do nothing: beta 0"),
        ({"random_state": "lucky"}, _rows(), "random_state='lucky'"),
    ],
)
def test_what_cannot_be_trained_is_refused_with_a_way_out(params: dict, rows: np.ndarray, text: str) -> None:
    with pytest.raises((DataError, UsageError), match=text):
        VAE(**{**SMALL, **params}).fit(rows)


@pytest.mark.parametrize("workers", [0, 1])
def test_training_that_diverges_says_so_in_the_words_of_python(workers: int) -> None:
    model = VAE(**SMALL, likelihood="gaussian", optimizer="sgd", learning_rate=1e15, workers=workers, random_state=1)
    with pytest.raises(NumericalError, match=r"the gradient is .* give a lower learning_rate than 1e\+15"):
        model.fit(_rows())


def test_it_is_quiet_unless_it_is_told_to_speak(capfd: pytest.CaptureFixture[str]) -> None:
    VAE(**SMALL).fit(_rows())
    assert capfd.readouterr() == ("", "")
    VAE(**SMALL, verbose=True).fit(_rows())
    assert "step 10 of 10: ELBO" in capfd.readouterr().err


WITHOUT = """
import sys
sys.modules["sklearn"] = None
import importlib.util
find = importlib.util.find_spec
importlib.util.find_spec = lambda name, *more: None if name == "sklearn" else find(name, *more)
import numpy as np
from ps_vae import VAE
rows = np.random.default_rng(1).random((50, 3))
model = VAE(2, (4,), epochs=2, random_state=1)
z = model.fit_transform(rows)
assert z.shape == (50, 2) and model.set_params(beta=2.0).get_params()["beta"] == 2.0
print(model, model.n_features_in_, round(model.score(rows), 3))
for call in (lambda: model.fit(rows.ravel()), lambda: model.transform(rows[:, :2]), lambda: VAE().transform(rows),
             lambda: model.fit(np.full((3, 3), np.nan)), lambda: model.set_params(gamma=1)):
    try:
        call()
    except ValueError as error:
        print(type(error).__name__, error)
"""


def test_without_scikit_learn_it_works_all_the_same() -> None:
    child = subprocess.run(
        [sys.executable, "-c", WITHOUT], capture_output=True, text=True, env=os.environ, timeout=300, check=False
    )
    assert child.returncode == 0, child.stderr
    first, *errors = child.stdout.splitlines()
    assert first.startswith("VAE(latent_dim=2, hidden=(4,), beta=2.0, epochs=2, random_state=1) 3 -")
    assert [line.split()[0] for line in errors] == ["DataError", "DataError", "UsageError", "DataError", "UsageError"]


# Few rows and many weights: soon the held-out rows only get less likely.
OVERFITTING = {"latent_dim": 4, "hidden": (64,), "epochs": 60, "batch_size": 20, "learning_rate": 0.01}


def _binary(n: int = 60) -> np.ndarray:
    return (np.random.default_rng(4).random((n, 12)) < 0.5).astype(np.float32)


def test_training_ends_when_held_out_rows_get_no_likelier_with_any_number_of_workers() -> None:
    rows = _binary()
    more = {**OVERFITTING, "patience": 3, "validation_fraction": 0.25, "random_state": 2}
    models = [VAE(**more, workers=workers).fit(rows) for workers in (0, 1, 2)]
    steps = models[0].config_.steps
    assert 0 < models[0].n_iter_ < steps
    assert models[0].n_iter_ % models[0].config_.milestone == 0
    for other in models[1:]:
        assert (other.n_iter_, other.validation_elbo_) == (models[0].n_iter_, models[0].validation_elbo_)
        np.testing.assert_array_equal(other.weights_, models[0].weights_)


def test_the_best_version_is_kept_and_more_patience_never_finds_a_worse_one(tmp_path: Path) -> None:
    rows = _binary()
    more = {**OVERFITTING, "validation_fraction": 0.25, "random_state": 2}
    short, long = (VAE(**more, patience=patience).fit(rows) for patience in (1, 10_000))
    assert short.n_iter_ <= long.n_iter_ < long.config_.steps
    assert short.validation_elbo_ <= long.validation_elbo_
    whole = VAE(**more, patience=0).fit(rows)
    assert (whole.n_iter_, whole.validation_elbo_) == (whole.config_.steps, None)
    assert whole.config_.train_rows == 60 > long.config_.train_rows == 45
    long.save(tmp_path / "model.safetensors")
    loaded = VAE.load(tmp_path / "model.safetensors")
    assert (loaded.n_iter_, loaded.validation_elbo_) == (long.n_iter_, long.validation_elbo_)


def test_the_best_versions_figure_is_that_of_the_rows_that_were_held_out() -> None:
    rows = _binary()
    model = VAE(**OVERFITTING, patience=2, validation_fraction=0.25, random_state=2).fit(rows)
    held_out = gather_all(from_arrays("X", rows, "0.75,0.25,0").validation)
    # Importance-weighted, log p(x) is above the ELBO, and of the same size.
    assert 0 < model.score_samples(held_out).mean() - model.validation_elbo_ < 2
    assert model.score_samples(held_out).mean() < model.score(rows)


@pytest.mark.parametrize(
    ("params", "text"),
    [
        ({"patience": -1}, "patience=-1"),
        ({"patience": 2, "validation_fraction": 0.0}, "validation_fraction=0"),
        ({"patience": 2, "validation_fraction": 1.0}, "validation_fraction=1"),
        ({"patience": 2, "validation_fraction": 0.01}, "patience=2 needs rows to judge by"),
        ({"patience": 1.5}, "patience=1.5: give a whole number"),
    ],
)
def test_patience_without_rows_to_judge_by_is_refused(params: dict, text: str) -> None:
    with pytest.raises(UsageError, match=text):
        VAE(**OVERFITTING, **params).fit(_binary())
