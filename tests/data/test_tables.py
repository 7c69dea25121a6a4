"""CSV and Parquet: what is read is what pandas wrote, and what cannot be trained on is told by its column."""

from pathlib import Path

import numpy as np
import pandas
import pytest

from ps_vae.data import NUMBER, gather, load
from ps_vae.data.tables import open_table, read_table
from ps_vae.errors import DataError, UsageError

TABLE = pandas.DataFrame(
    {
        "age": [23, 45, 31, 62, 18],
        "income": [1.5, 2.25, -3.0, 1e6, 0.125],
        "is_member": [True, False, True, True, False],
        "clicks": np.array([0, 200, 255, 3, 1], np.uint8),
    }
)


def rows_of(path: Path) -> np.ndarray:
    split = load(str(path), "1,0,0").train
    return gather(split, np.arange(len(split)), np.empty((len(split), split.features), np.float32))


@pytest.mark.parametrize("name", ["table.csv", "TABLE.CSV", "table.tsv", "table.csv.gz", "table.parquet", "no ending"])
def test_every_column_is_a_feature_in_the_order_of_the_file(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    if "csv" in name.lower() or "tsv" in name:
        TABLE.to_csv(path, index=False, sep="\t" if "tsv" in name else ",")
    else:
        TABLE.to_parquet(path)
    expected = TABLE.to_numpy(np.float64).astype(np.float32)
    got = rows_of(path)
    # A source of one set of rows is shuffled, always in the same way.
    np.testing.assert_array_equal(np.sort(got, axis=0), np.sort(expected, axis=0))
    assert {tuple(row) for row in got} == {tuple(row) for row in expected}


@pytest.mark.parametrize("ending", [".csv", ".parquet"])
@pytest.mark.parametrize(
    ("column", "text"),
    [
        (
            [1, 2, "Berlin", 4, 5],
            r"'city' holds text, such as 'Berlin', and numbers are needed.*'city:categorical,\*:gaussian-feature'",
        ),
        (
            [1.0, 2.0, None, 4.0, None],
            r"column 'city' has no value in row 2 \(counted from 0\), and in 2 rows.*'city:gaussian-feature",
        ),
        ([1.0, 2.0, 1e300, 4.0, 5.0], r"'city' is 1e\+300 in row 2"),
    ],
)
def test_a_column_that_cannot_be_trained_on_is_named(tmp_path: Path, ending: str, column: list, text: str) -> None:
    path = tmp_path / f"table{ending}"
    column = [str(value) for value in column] if "Berlin" in column else column
    table = TABLE.assign(city=column)
    table.to_csv(path, index=False) if ending == ".csv" else table.to_parquet(path)
    with pytest.raises(DataError, match=text):
        load(str(path))


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("cut.csv", b"a,b\n1,2\n3\n"),
        ("empty.csv", b""),
        ("heading.csv", b"a,b\n"),
        ("cut.parquet", b"PAR1\x00\x00"),
        ("bytes.csv", bytes(range(256))),
    ],
)
def test_a_damaged_table_is_told_with_its_path(tmp_path: Path, name: str, content: bytes) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(DataError, match=name):
        load(str(path))


def test_a_table_without_names_is_not_read_without_its_first_row(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    path.write_text("1,2.5\n3,4\n5,6\n")
    with pytest.raises(DataError, match=r"its first row, 1, 2\.5, has numbers where the columns' names stand"):
        load(str(path))


def test_whole_numbers_beyond_float64_are_rounded(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    path.write_text(f"a,b\n{2**63 - 1},1\n5,6\n")
    assert rows_of(path).max() == np.float32(2**63)


def test_without_pyarrow_it_is_said_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "table.csv"
    TABLE.to_csv(path, index=False)
    monkeypatch.setattr("ps_vae.data.tables.find_spec", lambda name: None)
    with pytest.raises(UsageError, match=r"pip install 'ps_vae\[tables\]'"):
        load(str(path))


@pytest.mark.parametrize("seed", range(6))
def test_cells_may_have_several_lines_wherever_the_file_is_cut_into_blocks(tmp_path: Path, seed: int) -> None:
    rows = 30_000
    generator = np.random.default_rng(seed)
    lengths = generator.integers(0, 60, rows)
    notes = [f"{'n' * length}\nm, {length}" if length % 2 else "n" * length for length in lengths]
    table = pandas.DataFrame({"a": generator.normal(size=rows), "note": notes, "b": np.arange(rows)})
    path = tmp_path / "table.csv"
    table.to_csv(path, index=False)
    assert path.stat().st_size > 1 << 20
    read = read_table(path, {"a": NUMBER, "b": NUMBER})
    np.testing.assert_array_equal(read.rows, table[["a", "b"]].to_numpy().astype(np.float32))
    assert open_table(path, as_text=True).column("note").to_pylist() == notes
