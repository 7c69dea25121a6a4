"""Columns of tables read as a likelihood for each needs them: what is missing stays missing, words become features."""

from pathlib import Path

import numpy as np
import pandas
import pytest
from sklearn.preprocessing import OneHotEncoder

from ps_vae.data import BIT, NUMBER, VALUES, feature_moments, gather, load
from ps_vae.errors import DataError, UsageError

TABLE = pandas.DataFrame(
    {
        "id": ["a1", "b2", "c3", "d4", "e5", "f6"],
        "age": [23, 45, np.nan, 62, 18, 30],
        "city": ["Rome", None, "Berlin", "Paris", "Berlin", "Rome"],
        "sex": ["m", "f", "f", None, "m", "m"],
        "month": [3, 12, 3, 7, 7, 7],
        "is_member": [True, False, True, True, False, False],
    }
)
WANTED = {"city": VALUES, "sex": BIT, "month": VALUES, "is_member": BIT, "age": NUMBER}


def write(folder: Path, ending: str, table: pandas.DataFrame = TABLE) -> Path:
    path = folder / f"table{ending}"
    table.to_parquet(path) if ending == ".parquet" else table.to_csv(path, index=False)
    return path


def in_the_files_order(path: Path, **words) -> tuple:
    data = load(str(path), "1,0,0", **words)
    shuffled = gather(data.train, np.arange(len(data.train)), np.empty((len(data.train), data.train.width), np.float32))
    rows = np.empty_like(shuffled)
    rows[data.train.where(np.arange(len(data.train)))] = shuffled
    return data, rows


@pytest.mark.parametrize("ending", [".csv", ".parquet"])
def test_words_and_values_become_the_features_of_scikit_learns_encoder(tmp_path: Path, ending: str) -> None:
    data, rows = in_the_files_order(write(tmp_path, ending), wanted=WANTED)
    names = ("age", "city=Berlin", "city=Paris", "city=Rome", "sex", "month=3", "month=7", "month=12", "is_member")
    assert data.columns == names
    np.testing.assert_array_equal(rows[:, 0], TABLE["age"].to_numpy(np.float32))
    for name, columns in (("city", rows[:, 1:4]), ("month", rows[:, 5:8])):
        there = TABLE[name].notna().to_numpy()
        np.testing.assert_array_equal(columns[there], OneHotEncoder().fit_transform(TABLE[[name]][there]).toarray())
        assert np.isnan(columns[~there]).all()
    np.testing.assert_array_equal(rows[:, 4], [1, 0, 0, np.nan, 1, 1])
    np.testing.assert_array_equal(rows[:, 8], TABLE["is_member"].to_numpy(np.float32))
    assert [(column.name, column.features, column.misses) for column in data.variables] == [
        *(("age", 1, True), ("city", 3, True), ("sex", 1, True), ("month", 3, False), ("is_member", 1, False)),
    ]
    assert [column.values for column in data.variables][1:3] == [("Berlin", "Paris", "Rome"), ("f", "m")]


def test_columns_that_are_not_named_are_left_out_and_a_star_names_them(tmp_path: Path) -> None:
    path = write(tmp_path, ".csv", TABLE.drop(columns=["id", "city", "sex"]))
    assert load(str(path), wanted={"month": NUMBER}).columns == ("month",)
    assert load(str(path), wanted={"month": VALUES, "*": NUMBER}).columns == (
        *("age", "month=3", "month=7", "month=12", "is_member"),
    )


def test_means_and_variances_are_those_of_the_values_that_are_there(tmp_path: Path) -> None:
    data = load(str(write(tmp_path, ".parquet")), "1,0,0", wanted={"age": NUMBER, "city": VALUES})
    means, variances = feature_moments(data.train)
    shares = np.array([2, 1, 2]) / 5
    np.testing.assert_allclose(means, [TABLE["age"].mean(), *shares], rtol=1e-6)
    np.testing.assert_allclose(variances, [TABLE["age"].var(ddof=0), *(shares * (1 - shares))], rtol=1e-5)


def test_other_names_for_the_same_numbers_are_other_data(tmp_path: Path) -> None:
    first = load(str(write(tmp_path, ".csv")), wanted={"city": VALUES}).fingerprint
    assert load(str(write(tmp_path, ".csv")), wanted={"city": VALUES}).fingerprint == first
    write(tmp_path, ".csv", TABLE.replace({"city": {"Rome": "Turin"}}))
    assert load(str(tmp_path / "table.csv"), wanted={"city": VALUES}).fingerprint != first


@pytest.mark.parametrize("kind", ["category", "string"])
def test_texts_of_every_kind_are_read_alike(tmp_path: Path, kind: str) -> None:
    path = write(tmp_path, ".parquet", TABLE.astype({"city": kind}))
    _, rows = in_the_files_order(path, wanted={"city": VALUES})
    _, expected = in_the_files_order(write(tmp_path, ".csv"), wanted={"city": VALUES})
    np.testing.assert_array_equal(rows, expected)


def test_numbers_that_are_words_here_are_sorted_as_numbers_and_may_be_missing(tmp_path: Path) -> None:
    path = write(tmp_path, ".parquet", pandas.DataFrame({"dose": [10.0, 2.5, np.nan, 10.0]}))
    data, rows = in_the_files_order(path, wanted={"dose": VALUES})
    assert data.columns == ("dose=2.5", "dose=10")
    np.testing.assert_array_equal(rows, [[0, 1], [1, 0], [np.nan, np.nan], [0, 1]])


@pytest.mark.parametrize(
    ("wanted", "error", "text"),
    [
        ({"town": VALUES}, UsageError, r"has no column 'town'; it has 'id', 'age', 'city'"),
        ({"city": NUMBER}, DataError, r"'city' holds text, such as 'Rome'.*'city:categorical"),
        ({"city": BIT}, DataError, r"'city' holds 3 different words, and the Bernoulli .* city:categorical"),
        ({"*": NUMBER}, DataError, r"'id' holds text"),
    ],
)
def test_a_column_that_is_not_what_it_should_be_is_named(tmp_path: Path, wanted: dict, error: type, text: str) -> None:
    with pytest.raises(error, match=text):
        load(str(write(tmp_path, ".csv")), wanted=wanted)


@pytest.mark.parametrize("wanted", [{"x": NUMBER}, {"x": VALUES}, {"x": BIT}])
def test_a_column_without_any_value_is_refused(tmp_path: Path, wanted: dict) -> None:
    path = tmp_path / "table.csv"
    path.write_text("x,y\n,1\n,2\n")
    with pytest.raises(DataError, match=r"'x' has no value in any row"):
        load(str(path), wanted=wanted)


def test_words_that_would_fill_the_memory_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path, ".csv", pandas.DataFrame({"word": [f"w{n}" for n in range(40)]}))
    monkeypatch.setattr("ps_vae.data.columns._MOST_NUMBERS", 1599)
    with pytest.raises(DataError, match=r"'word' has 40 different values in 40 rows"):
        load(str(path), wanted={"word": VALUES})
    path = write(tmp_path, ".csv", pandas.DataFrame({"word": [f"w{n}" for n in range(10_001)]}))
    with pytest.raises(DataError, match=r"'word' has 10,001 different values, and 10,000 can be told apart"):
        load(str(path), wanted={"word": VALUES})


def test_infinity_is_not_missing(tmp_path: Path) -> None:
    path = write(tmp_path, ".parquet", pandas.DataFrame({"x": [1.0, np.nan, np.inf]}))
    with pytest.raises(DataError, match="'x' is inf in row 2"):
        load(str(path), wanted={"x": NUMBER})


def test_two_columns_of_one_name_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    path.write_text("x,y,x\n1,2,3\n")
    with pytest.raises(DataError, match="2 columns 'x'"):
        load(str(path))


def test_numbers_of_which_float32_sees_no_difference_are_refused(tmp_path: Path) -> None:
    path = write(tmp_path, ".csv", pandas.DataFrame({"when": 1_600_000_000 + 3 * np.arange(30)}))
    with pytest.raises(
        DataError, match=r"'when' has values of about 1\.6e\+09 that differ by 26, .* subtract their mean"
    ):
        load(str(path), wanted={"when": NUMBER})


def test_spaces_around_names_do_not_count(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    path.write_text("age, income , my city\n1,2,3\n4,5,6\n")
    assert load(str(path), wanted={"income": NUMBER, "my city": NUMBER}).columns == ("income", "my city")


def test_a_column_may_be_left_out_beside_a_star(tmp_path: Path) -> None:
    path = write(tmp_path, ".csv", TABLE[["id", "age", "month"]])
    assert load(str(path), wanted={"id": None, "*": NUMBER}).columns == ("age", "month")


def test_one_value_is_a_feature_with_its_name(tmp_path: Path) -> None:
    path = write(tmp_path, ".csv", pandas.DataFrame({"x": ["a", None, "a"], "y": [1, 2, 3]}))
    data = load(str(path), wanted={"x": VALUES, "y": NUMBER})
    assert data.columns == ("x=a", "y")


def test_numbers_and_truth_values_are_named_as_they_are(tmp_path: Path) -> None:
    table = pandas.DataFrame(
        {"code": [1234560.0, 1234561.0, None], "part": [0.1, -2.7112901, 0.1], "is": [True, False, True]}
    )
    data = load(str(write(tmp_path, ".parquet", table)), wanted={"code": VALUES, "part": VALUES, "is": VALUES})
    assert data.columns == (*("code=1234560", "code=1234561", "part=-2.7112901", "part=0.1", "is=false", "is=true"),)


@pytest.mark.parametrize("coding", [NUMBER, VALUES, BIT])
@pytest.mark.parametrize(
    "values", [[["a"], ["b"]], [{"a": 1}, {"a": 2}], pandas.to_timedelta([1, 2], "h"), [b"x", b"y"]], ids=str
)
def test_other_types_are_named_and_refused(tmp_path: Path, values: object, coding: str) -> None:
    path = write(tmp_path, ".parquet", pandas.DataFrame({"x": values, "y": [1, 2]}))
    with pytest.raises(DataError, match=r"'x' holds .*, and numbers or text are needed"):
        load(str(path), wanted={"x": coding, "y": NUMBER})


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ("x,city\n1,Z\xfcrich\n".encode("latin-1"), r"column 'city' is not in UTF-8"),
        (b"a;b\n1;2\n", r"is one column, 'a;b': its cells seem to be separated by something else"),
    ],
)
def test_files_in_another_manner_say_what_they_should_be(tmp_path: Path, content: bytes, text: str) -> None:
    path = tmp_path / "table.csv"
    path.write_bytes(content)
    with pytest.raises(DataError, match=text):
        load(str(path), wanted={"*": VALUES})


@pytest.mark.parametrize("spec", ["digits", "gaussian:9x2"])
def test_data_without_columns_say_so(spec: str) -> None:
    with pytest.raises(UsageError, match=f"{spec} has no named columns"):
        load(spec, wanted={"x": NUMBER})


@pytest.mark.parametrize("coding", [NUMBER, BIT, VALUES])
def test_what_to_write_to_leave_an_empty_column_out_is_told_with_its_option(tmp_path: Path, coding: str) -> None:
    path = write(tmp_path, ".csv", TABLE.assign(d=None))
    with pytest.raises(DataError, match=r"'d' has no value in any row; .*--likelihood 'd:none,\*:gaussian-feature'"):
        load(str(path), wanted={"d": coding})
