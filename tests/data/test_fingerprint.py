"""The fingerprint of a data set: changes with the data, not with the file."""

import numpy as np
import pytest

from ps_vae.data import load

ROWS = np.random.default_rng(0).integers(0, 256, (600, 12), np.uint8)


@pytest.fixture
def fingerprint(tmp_path):
    def of(array, split="auto", name="x.npy"):
        np.save(tmp_path / name, array)
        return load(str(tmp_path / name), split).fingerprint

    return of


def test_equal_data_in_another_file_have_the_same_fingerprint(fingerprint):
    assert fingerprint(ROWS) == fingerprint(ROWS.copy(), name="y.npy")
    assert fingerprint(ROWS.astype("<f4")) == fingerprint(ROWS.astype(">f4"))
    assert fingerprint(ROWS) == fingerprint(np.asfortranarray(ROWS))


@pytest.mark.parametrize("row", [0, 299, 599])
def test_another_number_in_a_row_changes_it(fingerprint, row):
    other = ROWS.copy()
    other[row, 7] ^= 1
    assert fingerprint(other) != fingerprint(ROWS)


def test_shape_type_and_split_change_it(fingerprint):
    prints = [
        fingerprint(ROWS),
        fingerprint(ROWS[:-1]),
        fingerprint(ROWS.reshape(1200, 6)),
        fingerprint(ROWS.view(np.int8)),
        fingerprint(ROWS.astype(np.float32)),
        fingerprint(ROWS, "0.8,0.2,0"),
        fingerprint(ROWS, "0.8,0.1,0"),
    ]
    assert len(set(prints)) == len(prints)
