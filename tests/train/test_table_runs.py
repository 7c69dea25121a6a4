"""Runs on tables with a likelihood for each column, and on labels: their words, their data, their bits."""

import re
import warnings
from pathlib import Path

import invariance
import numpy as np
import pandas
import pytest

from ps_vae.data import feature_moments
from ps_vae.errors import DataError, UsageError
from ps_vae.nn.likelihoods import Variable
from ps_vae.train.advice import advice
from ps_vae.train.data import data_of, load_as, variables_of
from ps_vae.train.in_process import train_here
from ps_vae.train.plan import Wishes, check_examples, plan
from ps_vae.train.start import new_weights, settle
from ps_vae.train.update import fresh_state
from ps_vae.vae.layout import ParameterLayout

LIKELIHOOD = "age:gaussian-feature,city:categorical,visits:poisson,score:gaussian"


def people(folder: Path, rows: int = 300) -> Path:
    generator = np.random.default_rng(3)
    table = pandas.DataFrame(
        {
            "id": [f"p{number}" for number in range(rows)],
            "age": generator.normal(40, 15, rows),
            "city": generator.choice(["Rome", "Paris", "Berlin"], rows),
            "visits": generator.poisson(2, rows).astype(float),
            "score": generator.normal(0, 1e4, rows),
            "kind": generator.choice(["x", "y"], rows),
        }
    )
    for name in ("age", "city", "visits"):
        table.loc[generator.random(rows) < 0.2, name] = None
    path = folder / "people.csv"
    table.to_csv(path, index=False)
    return path


def configured(path: Path, likelihood: str = LIKELIHOOD, **more):
    condition = more.get("condition", "none")
    data = load_as(str(path), "auto", likelihood, condition)
    return plan(Wishes(data=str(path), likelihood=likelihood, hidden=(6,), latent=2, steps=5, **more), data), data


@pytest.mark.parametrize("prior", ["normal", "vamp:5"])
def test_a_run_on_a_table_with_gaps_and_labels_has_the_bits_of_one_loop(tmp_path: Path, prior: str) -> None:
    wishes = Wishes(
        data=str(people(tmp_path)),
        likelihood=LIKELIHOOD,
        condition="kind",
        prior=prior,
        hidden=(12,),
        latent=3,
        steps=200,
        batch_size=48,
        microbatch=8,
    )
    transport, run = invariance.ways(200)["2 workers, 3 shards, tcp"]
    expected = invariance.one_loop_in_a_fresh_process(wishes)
    assert invariance.different(expected, invariance.run(wishes, transport, run)) == []


def test_words_and_data_together_say_what_each_column_is(tmp_path: Path) -> None:
    path = people(tmp_path)
    config, data = configured(path)
    assert config.model.variables == (
        Variable("age", "gaussian-feature", 1, True),
        Variable("city", "categorical", 3, True),
        Variable("visits", "poisson", 1, True),
        Variable("score", "gaussian", 1, False),
    )
    assert (config.model.likelihood, config.model.inputs) == (LIKELIHOOD, 6)
    assert data_of(config).fingerprint == data.fingerprint
    assert variables_of("bernoulli", load_as("digits", "auto", "bernoulli", "none")) == ()


def test_a_star_gives_the_others_a_likelihood(tmp_path: Path) -> None:
    config, _ = configured(people(tmp_path), "city:categorical,id:none,kind:bernoulli,*:gaussian-feature")
    assert [each.likelihood for each in config.model.variables] == [
        *("gaussian-feature", "categorical", "gaussian-feature", "gaussian-feature", "bernoulli"),
    ]


@pytest.mark.parametrize(
    ("words", "text"),
    [
        ("age:normal", r"'age:normal' is not COLUMN:LIKELIHOOD; .*gaussian-feature"),
        ("age:gaussian,city", r"'city' is not COLUMN:LIKELIHOOD"),
        (":gaussian", r"has no column ''; it has 'id', 'age'"),
        ("rate, net:gaussian", r"'rate' is not COLUMN:LIKELIHOOD; write column names \(in double quotes if"),
        ("age:gaussian\n,city:none", r"with a comma between two of them"),
        ("age:gaussian,age:poisson", r"'age' is there twice"),
        ("town:gaussian", r"has no column 'town'"),
        ("age:multinomial", r"age:multinomial: multinomial is of all features together"),
    ],
)
def test_words_for_columns_that_make_no_sense_are_refused(tmp_path: Path, words: str, text: str) -> None:
    with pytest.raises(UsageError, match=text):
        configured(people(tmp_path), words)


@pytest.mark.parametrize("ending", [".csv", ".parquet"])
@pytest.mark.parametrize(
    ("names", "words", "modelled"),
    [
        (["", "a"], ":none,*:gaussian-feature", ["a"]),
        (["", "a"], '"":gaussian,a:none', [""]),
        (["rate, net", "a"], '"rate, net":gaussian-feature', ["rate, net"]),
        (["rate, net", "a"], 'a:gaussian, "rate, net:none"', ["a"]),
        (["at: 10:30", "a"], "at: 10:30:gaussian-feature,a:none", ["at: 10:30"]),
        (['5" disk', 'the "best"'], '5" disk:gaussian,"the ""best""":gaussian', ['5" disk', 'the "best"']),
        (["two\nlines", "a"], '"two\nlines":gaussian', ["two\nlines"]),
    ],
)
def test_every_name_of_a_column_can_be_written(
    tmp_path: Path, ending: str, names: list[str], words: str, modelled: list[str]
) -> None:
    table = pandas.DataFrame(np.random.default_rng(1).normal(size=(40, 2)), columns=names)
    path = tmp_path / f"table{ending}"
    table.to_csv(path, index=False) if ending == ".csv" else table.to_parquet(path)
    config, data = configured(path, words)
    assert [each.name for each in config.model.variables] == modelled
    again = data_of(config)
    assert again.fingerprint == data.fingerprint
    np.testing.assert_array_equal(
        np.sort(again.train.array, axis=0), np.sort(table[modelled].to_numpy(np.float32), axis=0)
    )


@pytest.mark.parametrize("name", ["kind", "rate, net", '5" disk', "two\nlines", "at: 10:30", ""])
def test_the_words_that_a_message_says_leave_the_column_out(tmp_path: Path, name: str) -> None:
    pandas.DataFrame({name: ["red", "green"] * 20, "a": np.arange(40.0)}).to_csv(tmp_path / "t.csv", index=False)
    with pytest.raises(DataError, match="holds text") as caught:
        load_as(str(tmp_path / "t.csv"), "auto", "*:gaussian-feature", "none")
    (words,) = re.findall(r"\((.*:none) leaves it out\)", str(caught.value), flags=re.DOTALL)
    config, _ = configured(tmp_path / "t.csv", f"{words},*:gaussian-feature")
    assert [each.name for each in config.model.variables] == ["a"]


def test_a_column_is_not_both_modelled_and_given(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--condition city: --likelihood models this column"):
        configured(people(tmp_path), condition="city")


def test_every_other_column_but_the_condition_is_what_a_star_means(tmp_path: Path) -> None:
    config, _ = configured(people(tmp_path), "id:categorical,city:categorical,*:gaussian", condition="kind")
    assert [each.name for each in config.model.variables] == ["id", "age", "city", "visits", "score"]
    assert config.model.classes == 2


def test_data_without_columns_refuse_words_for_them() -> None:
    with pytest.raises(UsageError, match="digits has no named columns"):
        load_as("digits", "auto", "x0:gaussian", "none")


def test_examples_that_a_column_cannot_have_are_told_by_its_name(tmp_path: Path) -> None:
    path = people(tmp_path)
    config, data = configured(path, "age:poisson,city:categorical")
    ages = pandas.read_csv(path)["age"]
    with pytest.raises(
        DataError, match=r"'age', poisson: value .* in row \d+ of the data \(counted from 0\)"
    ) as caught:
        check_examples(config, data.train)
    value, row = re.search(r"value (\S+) in row (\d+)", str(caught.value)).groups()
    assert float(value) == np.float32(ages[int(row)])


def test_more_columns_than_a_configuration_can_name_are_refused(tmp_path: Path) -> None:
    for count, fits in ((300, True), (3000, False)):
        path = tmp_path / f"{count}.csv"
        pandas.DataFrame(np.zeros((20, count)), columns=[f"x{n}" for n in range(count)]).to_csv(path, index=False)
        if fits:
            assert len(configured(path, "*:gaussian")[0].model.variables) == count
        else:
            with pytest.raises(UsageError, match=r"each of 3,000 columns makes .* bytes of configuration"):
                configured(path, "*:gaussian")


def test_a_run_goes_on_with_the_words_it_began_with(tmp_path: Path) -> None:
    path, run_dir = people(tmp_path), tmp_path / "run"
    said = Wishes(data=str(path), likelihood="city:categorical,id:categorical,kind:bernoulli,*:gaussian", steps=4)
    folder, config, _ = settle(said, run_dir, resumes=False)
    folder.create(config)
    assert settle(said, run_dir, resumes=True)[1] == config
    with pytest.raises(UsageError, match=r"--likelihood age:gaussian was city:categorical"):
        settle(Wishes(likelihood="age:gaussian"), run_dir, resumes=True)


def test_a_column_without_a_value_to_train_on_is_named(tmp_path: Path) -> None:
    table = pandas.DataFrame({"x": np.arange(30.0), "rare": [np.nan] * 30})
    path = tmp_path / "table.csv"
    table.to_csv(path, index=False)
    test = load_as(str(path), "auto", "x:gaussian", "none").test
    table.loc[test.where(np.array([0]))[0], "rare"] = 1.0
    table.to_csv(path, index=False)
    _, data = configured(path, "x:gaussian,rare:gaussian")
    with pytest.raises(UsageError, match="'rare' has no value in any of the training rows"):
        feature_moments(data.train, data.columns)


def test_a_column_that_never_changes_is_told_and_one_in_large_units_is_not(tmp_path: Path) -> None:
    path = people(tmp_path)
    pandas.read_csv(path).assign(one=1.0).to_csv(path, index=False)
    config, data = configured(path, "score:gaussian-feature,one:gaussian-feature,age:gaussian-feature")
    (line,) = advice(config, feature_moments(data.train))
    assert "never change in column one" in line


def test_a_table_that_is_trained_on_as_it_is_says_nothing_to_standard_error(tmp_path: Path) -> None:
    """NaN passes through NumPy without a warning."""
    from ps_vae.train.gradient import BlockGradient

    config, data = configured(people(tmp_path), prior="vamp:4", batch_size=16)
    gradient = BlockGradient(config, data.train)
    weights = new_weights(config, data, feature_moments(data.train), gradient.layout)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        gradient.warm_up()
        (result,) = gradient(weights, 0, [invariance.Block(0, 1)])
    assert np.isfinite(result.gradient).all()


def _trained(path: Path, likelihood: str) -> list[float]:
    """The ELBO of each step of a short run."""
    config, data = configured(path, likelihood, batch_size=16, report_every=1)
    state = fresh_state(config, new_weights(config, data, feature_moments(data.train), ParameterLayout(config.model)))
    elbos: list[float] = []
    train_here(config, data, state, lambda progress: elbos.append(progress.elbo), lambda version, weights: False)
    return elbos


@pytest.mark.parametrize("exponent", [-115, -80, 63, 100, 120])
@pytest.mark.parametrize("kind", ["gaussian-feature", "gaussian", "gaussian-decoder"])
def test_the_unit_of_a_column_is_no_matter(tmp_path: Path, kind: str, exponent: int) -> None:
    table = pandas.DataFrame(np.random.default_rng(1).normal(0.5, 1.5, (90, 2)), columns=["a", "b"])
    elbos = []
    for power in (0, exponent):
        path = tmp_path / f"{power}.parquet"
        table.assign(a=table["a"] * 2.0**power).to_parquet(path)
        elbos.append(_trained(path, f"a:{kind},b:gaussian-feature"))
    shift = exponent * np.log(2)
    np.testing.assert_allclose(np.array(elbos[1]) + shift, elbos[0], rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(("unit", "center"), [(1e-42, 0.0), (1e-38, 0.0), (3e37, 0.0), (1e32, 2e37)])
def test_a_column_that_float32_has_no_room_for_is_told_by_its_name(tmp_path: Path, unit: float, center: float) -> None:
    generator = np.random.default_rng(1)
    table = pandas.DataFrame(generator.normal(size=(90, 2)), columns=["a", "b"])
    table["a"] = center + unit * table["a"]
    table.to_parquet(tmp_path / "table.parquet")
    with pytest.raises(DataError, match=r"'a' has a mean of .* from 1e-37 to 1e\+37 .* the column in another unit"):
        _trained(tmp_path / "table.parquet", "*:gaussian-feature")
