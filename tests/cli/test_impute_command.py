"""`impute` and `sample --label`: everything that was there stays, everything that was not is filled in."""

import csv
from pathlib import Path

import numpy as np
import pandas
import pytest
from untrained import untrained_run

from ps_vae.cli.main import run

LIKELIHOOD = "age:gaussian-feature,city:categorical,is_member:bernoulli,sex:bernoulli,month:categorical"


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("table")
    generator = np.random.default_rng(0)
    rows = 90
    frame = pandas.DataFrame(
        {
            "id": [f'p "{number}"' for number in range(rows)],
            "age": generator.normal(40, 15, rows).round(1),
            "city": generator.choice(["Rome", "Paris", "Berlin"], rows),
            "is_member": pandas.array(generator.random(rows) < 0.5, "boolean"),
            "sex": generator.choice(["m", "f"], rows),
            "month": pandas.array(generator.integers(1, 13, rows), "Int64"),
        }
    )
    for name in frame.columns[1:]:
        frame.loc[generator.random(rows) < 0.3, name] = None
    frame.to_parquet(folder / "table.parquet")
    return folder / "table.parquet"


@pytest.fixture(scope="module")
def of_table(table: Path) -> Path:
    return untrained_run(table.parent / "run", table, LIKELIHOOD)


@pytest.mark.parametrize("name", ["filled.csv", "filled.parquet"])
def test_gaps_are_filled_and_all_else_is_as_it_was(
    table: Path, of_table: Path, tmp_path: Path, name: str, capsys
) -> None:
    path = tmp_path / name
    assert run(["impute", str(of_table), "--samples", "20", "--processes", "1", "--output", str(path)]) == 0
    before = pandas.read_parquet(table)
    after = pandas.read_csv(path) if name.endswith("csv") else pandas.read_parquet(path)
    assert list(after.columns) == list(before.columns)
    assert not after.isna().any().any()
    for column in before.columns:
        there = before[column].notna()
        assert after[column][there].tolist() == before[column][there].tolist()
        if column != "age":
            assert set(after[column]) <= set(before[column][there])
    count = int(before.isna().to_numpy().sum())
    assert f"{path}: 90 rows of 6 columns, {count} values filled in" in capsys.readouterr().out


def test_without_a_name_the_table_lies_in_the_run(of_table: Path) -> None:
    assert run(["impute", str(of_table), "--samples", "2", "--processes", "2"]) == 0
    assert len(pandas.read_parquet(of_table / "imputed.parquet")) == 90


def text_run(folder: Path, content: str, likelihood: str, name: str = "table.csv") -> Path:
    (folder / name).write_text(content)
    return untrained_run(folder / "run", folder / name, likelihood, split="1,0,0", hidden=(4,), latent=2, batch_size=2)


@pytest.mark.parametrize(("name", "mark"), [("table.csv", ","), ("table.tsv", "\t")])
def test_cells_of_a_text_stay_as_they_are_written(tmp_path: Path, name: str, mark: str) -> None:
    lines = [
        ["zip", "when", "flag", "note", "x", "n"],
        ["02831", "2020-01-24 10:00", "FALSE", '"a, ""b"""', "1.50", "7"],
        ["00001", "", "TRUE", "NA", "", "7"],
        ["12345678901234567890123", "2020-01-25 10:00", "", "null", "2.25", ""],
    ]
    content = "".join(mark.join(line) + "\n" for line in lines)
    of_text = text_run(tmp_path, content, "x:gaussian-feature,flag:bernoulli,n:categorical", name)
    out = tmp_path / f"out{name[5:]}"
    target = out if name.endswith(".csv") else of_text / "imputed.csv"
    words = ["--output", str(out)] if name.endswith(".csv") else []
    assert run(["impute", str(of_text), "--samples", "3", "--processes", "1", *words]) == 0
    with target.open(newline="") as file:
        got = list(csv.reader(file))
    (_, *before), (_, *after) = list(csv.reader(content.splitlines(), delimiter=mark)), got
    for row, (old, new) in enumerate(zip(before, after, strict=True)):
        assert old[:2] + old[3:4] == new[:2] + new[3:4]
        for column in (2, 4, 5):
            assert new[column] == old[column] if old[column] else new[column], (row, column)
    assert after[2][2] in ("TRUE", "FALSE")
    assert after[2][5] == "7"


def test_the_names_of_a_texts_columns_stay_as_they_are_written(tmp_path: Path) -> None:
    of_text = text_run(tmp_path, "age, income\n1,2\n,3\n4,5\n", "age:gaussian-feature,income:gaussian-feature")
    assert run(["impute", str(of_text), "--samples", "2", "--processes", "1"]) == 0
    assert (of_text / "imputed.csv").read_text().startswith("age, income\n1,2\n")


def test_types_of_a_table_stay_and_whole_numbers_are_exact_where_they_were(tmp_path: Path) -> None:
    table = pandas.DataFrame(
        {
            "one": ["x", None, "x", "x"],
            "code": [1234560.0, 1234561.0, None, 1234562.0],
            "bit": pandas.array([0, 1, None, 1], "Int8"),
            "kind": pandas.Categorical(["a", None, "b", "b"]),
            "tags": [["a"], ["b"], ["c"], []],
            "x": [1.0, None, 3.0, 4.0],
        }
    )
    table.to_parquet(tmp_path / "table.parquet")
    likelihood = "one:categorical,code:categorical,bit:bernoulli,kind:categorical,x:gaussian-feature"
    of_types = untrained_run(
        tmp_path / "run", tmp_path / "table.parquet", likelihood, split="1,0,0", hidden=(4,), latent=2, batch_size=2
    )
    assert run(["impute", str(of_types), "--samples", "3", "--processes", "1"]) == 0
    after = pandas.read_parquet(of_types / "imputed.parquet")
    assert after["one"].tolist() == ["x"] * 4
    assert after["code"][2] in (1234560.0, 1234561.0, 1234562.0)
    assert (str(after["bit"].dtype).lower(), after["bit"][2] in (0, 1)) == ("int8", True)
    assert (after["kind"].dtype, after["kind"][1] in ("a", "b")) == (table["kind"].dtype, True)
    assert [list(tags) for tags in after["tags"]] == [["a"], ["b"], ["c"], []]
    for name in ("code", "bit", "kind", "x"):
        there = table[name].notna()
        assert after[name][there].tolist() == table[name][there].tolist()


def test_shares_that_are_missing_are_not_rounded_and_bits_are(tmp_path: Path) -> None:
    content = "share,bit\n" + "0.61,1\n0.7,0\n0.65,1\n0.68,1\n" * 5 + ",\n"
    of_shares = text_run(tmp_path, content, "*:bernoulli")
    assert run(["impute", str(of_shares), "--samples", "5", "--processes", "1"]) == 0
    share, bit = (of_shares / "imputed.csv").read_text().splitlines()[-1].split(",")
    assert 0 < float(share) < 1
    assert float(bit) in (0, 1)


def test_a_row_that_is_impossible_stays_as_it_is_and_is_told_of(tmp_path: Path, capsys) -> None:
    content = "n,x,word\n" + "1,0.5,a\n2,0.1,b\n3,,a\n" * 4 + ",1e30,\n"
    # One fixed deviation: nothing that is learned adapts to the outlier.
    impossible = text_run(tmp_path, content, "n:gaussian,x:gaussian,word:categorical")
    assert run(["impute", str(impossible), "--samples", "5", "--processes", "1"]) == 0
    lines = (impossible / "imputed.csv").read_text().splitlines()
    said = capsys.readouterr()
    assert lines[-1] == ",1e30,"
    assert all(float(line.split(",")[1]) < 1e30 or line == ",1e30," for line in lines[1:])
    assert "WARNING: values stay missing in 1 of the rows (counted from 0: 12)" in said.out + said.err
    assert "4 values filled in" in said.out


def test_what_pandas_keeps_in_a_table_comes_back(tmp_path: Path) -> None:
    index = pandas.Index([f"patient {number}" for number in range(6)], name="who ")
    kinds = pandas.CategoricalDtype(["never", "low", "high"], ordered=True)
    table = pandas.DataFrame(
        {
            "kind": pandas.Series(["low", None, "high", "low", None, "low"], index, kinds),
            "visits": pandas.Series([1, 4, None, 2, 2, 4], index, "Int64"),
            "is_old": pandas.Series([True, None, False, True, True, None], index, "boolean"),
            " weight": pandas.Series([1.5, None, 2.5, 4.0, 1.0, 3.0], index, "Float32"),
            "seen": pandas.Series(pandas.date_range("2020-01-01", periods=6, tz="Asia/Tokyo").array, index),
        },
        index,
    )
    table.attrs["study"] = "A"
    table.to_parquet(tmp_path / "table.parquet")
    likelihood = "kind:categorical,visits:gaussian-feature,is_old:bernoulli,weight:gaussian-feature"
    run_dir = untrained_run(
        tmp_path / "run", tmp_path / "table.parquet", likelihood, split="1,0,0", hidden=(4,), latent=2, batch_size=2
    )
    assert run(["impute", str(run_dir), "--samples", "3", "--processes", "1"]) == 0
    before = pandas.read_parquet(tmp_path / "table.parquet")
    after = pandas.read_parquet(run_dir / "imputed.parquet")
    pandas.testing.assert_index_equal(after.index, before.index)
    assert (after.columns.tolist(), after.attrs) == (before.columns.tolist(), {"study": "A"})
    assert not after.isna().any().any()
    # Visits were whole numbers, and what is expected is none.
    assert after.dtypes.to_dict() == before.dtypes.to_dict() | {"visits": np.dtype("float64")}
    for name in before.columns:
        there = before[name].notna()
        assert after[name][there].tolist() == before[name][there].tolist()


def test_what_could_not_be_written_is_told_before_anything_is_computed(tmp_path: Path, capsys) -> None:
    pandas.DataFrame({"tags": [["a"], ["b"], []], "x": [1.0, None, 3.0]}).to_parquet(tmp_path / "table.parquet")
    nested = untrained_run(
        tmp_path / "run",
        tmp_path / "table.parquet",
        "x:gaussian-feature",
        split="1,0,0",
        hidden=(4,),
        latent=2,
        batch_size=2,
    )
    assert run(["impute", str(nested), "--output", str(tmp_path / "out.csv")]) == 1
    assert "column 'tags'" in (said := capsys.readouterr().err)
    assert "give --output FILE.parquet" in said
    assert run(["impute", str(nested), "--output", str(tmp_path / "table.parquet")]) == 2
    assert "itself, which" in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run", "table.parquet"]


def test_a_table_that_is_gone_is_told_of(tmp_path: Path, capsys) -> None:
    run_dir = text_run(tmp_path, "x,y\n1,2\n,3\n4,5\n", "*:gaussian-feature")
    (run_dir / "imputed.csv").write_text("of another day\n")
    (tmp_path / "table.csv").unlink()
    assert run(["impute", str(run_dir)]) == 1
    assert "is not there; start in the folder where the run was trained, and put" in capsys.readouterr().err
    assert (run_dir / "imputed.csv").read_text() == "of another day\n"


@pytest.fixture(scope="module")
def labelled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return untrained_run(tmp_path_factory.mktemp("labelled") / "run", "digits", "bernoulli", condition="labels")


def test_a_run_without_columns_has_nothing_to_fill(labelled: Path, capsys) -> None:
    assert run(["impute", str(labelled)]) == 2
    assert "not trained on a table with a likelihood for each column" in capsys.readouterr().err


def test_samples_are_of_every_label_in_turn_or_of_one(labelled: Path, tmp_path: Path, capsys) -> None:
    path = tmp_path / "samples.csv"
    assert run(["sample", str(labelled), "--count", "12", "--output", str(path)]) == 0
    with path.open() as file:
        rows = list(csv.DictReader(file))
    assert [row["labels"] for row in rows] == [*"0123456789", "0", "1"]
    assert run(["sample", str(labelled), "--count", "12", "--label", "1", "--output", str(path)]) == 0
    with path.open() as file:
        ones = list(csv.DictReader(file))
    # The same z: where the label was 1, the same means.
    assert [ones[place] == rows[place] for place in range(12)] == [place in (1, 11) for place in range(12)]
    assert run(["sample", str(labelled), "--label", "ten"]) == 2
    assert "--label ten: labels is one of 0, 1, 2" in capsys.readouterr().err


def test_a_label_that_was_read_as_a_number_is_told_as_it_was_read(tmp_path: Path, capsys) -> None:
    lines = "".join(f"{code},{number}\n" for number, code in enumerate(["01234", "75001"] * 10))
    (tmp_path / "codes.csv").write_text(f"zip,x\n{lines}")
    of_codes = untrained_run(
        tmp_path / "run", tmp_path / "codes.csv", "x:gaussian-feature", condition="zip", hidden=(4,)
    )
    assert run(["sample", str(of_codes), "--label", "01234"]) == 2
    assert "zip is one of 1234, 75001; it is read as a number: give --label 1234" in capsys.readouterr().err
    assert run(["sample", str(of_codes), "--label", "1234", "--count", "2"]) == 0
    assert run(["sample", str(of_codes), "--label", "rome"]) == 2
    assert capsys.readouterr().err.endswith("zip is one of 1234, 75001\n")


def test_a_label_is_for_runs_that_were_conditioned(of_table: Path, capsys) -> None:
    assert run(["sample", str(of_table), "--label", "x"]) == 2
    assert "was trained without --condition" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["encode", "reconstruct", "interpolate", "traverse", "score", "evaluate"])
@pytest.mark.parametrize("which", ["of_table", "labelled"])
def test_every_command_takes_tables_with_gaps_and_labels(command: str, which: str, request, tmp_path: Path) -> None:
    more = {"score": ["--samples", "3", "--processes", "1"], "evaluate": [], "interpolate": ["--pairs", "2"]}
    out = {"score": ".csv", "evaluate": ""}.get(command, ".npy")
    words = ["--output", str(tmp_path / f"out{out}")] if out else []
    assert run([command, str(request.getfixturevalue(which)), *more.get(command, []), *words]) == 0
    if out == ".npy":
        written = np.load(tmp_path / "out.npy")
        # What a row has not stays NaN where originals are shown; nothing else is.
        assert np.isfinite(written[-1]).all()
