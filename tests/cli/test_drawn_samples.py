"""`sample --draw`: x drawn from p(x|z), around the means that are shown without it."""

from pathlib import Path

import numpy as np
import pandas
import pytest
from untrained import untrained_run

from ps_vae.cli.main import run

COUNT = 4000
LIKELIHOOD = "age:gaussian-feature,city:categorical,sex:bernoulli,member:bernoulli,visits:poisson"


@pytest.fixture(scope="module")
def people(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on a table of words, bits, counts and numbers, given each row's kind."""
    folder, generator, rows = tmp_path_factory.mktemp("people"), np.random.default_rng(0), 90
    pandas.DataFrame(
        {
            "age": generator.normal(40, 15, rows),
            "city": generator.choice(["Rome", "Paris", "Berlin"], rows),
            "sex": generator.choice(["m", "f"], rows),
            "member": generator.random(rows) < 0.5,
            "visits": generator.poisson(2, rows),
            "kind": generator.choice(["x", "y"], rows),
        }
    ).to_csv(folder / "people.csv", index=False)
    return untrained_run(folder / "run", str(folder / "people.csv"), LIKELIHOOD, condition="kind")


def sampled(run_dir: Path, path: Path, *words: str) -> pandas.DataFrame:
    assert run(["sample", str(run_dir), "--count", str(COUNT), *words, "--output", str(path)]) == 0
    return pandas.read_csv(path)


def test_drawn_rows_have_the_cells_of_the_table_as_often_as_their_shares_say(people: Path, tmp_path: Path) -> None:
    means = sampled(people, tmp_path / "means.csv")
    drawn = sampled(people, tmp_path / "drawn.csv", "--draw")
    assert list(drawn.columns) == ["kind", "age", "city", "sex", "member", "visits"]
    assert drawn["kind"].tolist() == means["kind"].tolist() == ["x", "y"] * (COUNT // 2)
    for city in ("Berlin", "Paris", "Rome"):
        assert (drawn["city"] == city).mean() == pytest.approx(means[f"city={city}"].mean(), abs=0.03)
    assert set(drawn["sex"]) == {"f", "m"}
    assert (drawn["sex"] == "m").mean() == pytest.approx(means["sex"].mean(), abs=0.03)
    assert set(drawn["member"]) == {0, 1}
    assert drawn["member"].mean() == pytest.approx(means["member"].mean(), abs=0.03)
    assert (drawn["visits"] == drawn["visits"].round()).all()
    error = drawn["visits"].std() / np.sqrt(COUNT)
    assert drawn["visits"].mean() == pytest.approx(means["visits"].mean(), abs=5 * error)
    noise = drawn["age"] - means["age"]
    assert abs(noise.mean()) < 5 * noise.std() / np.sqrt(COUNT)
    assert noise.std() > 0.1


def test_the_same_seed_draws_the_same_rows_of_one_label_and_another_others(people: Path, tmp_path: Path) -> None:
    words = ("--draw", "--label", "y", "--seed")
    first, again, other = (sampled(people, tmp_path / "x.csv", *words, seed) for seed in "112")
    assert set(first["kind"]) == {"y"}
    pandas.testing.assert_frame_equal(first, again)
    assert (first["age"] != other["age"]).all()


def test_an_array_of_draws_has_the_features_of_the_data(people: Path, tmp_path: Path) -> None:
    path = tmp_path / "x.npy"
    assert run(["sample", str(people), "--draw", "--count", "50", "--output", str(path)]) == 0
    x = np.load(path)
    assert (x.shape, x.dtype) == ((50, 7), np.float32)
    # age, one for each of three cities, sex, member, visits
    np.testing.assert_array_equal(x[:, 1:4].sum(axis=1), 1)
    assert set(np.unique(x[:, 1:6])) == {0, 1}


def test_drawn_bernoulli_pixels_are_black_or_white_in_a_picture_too(tmp_path: Path) -> None:
    from matplotlib import image

    run_dir = untrained_run(tmp_path / "run", "digits", "bernoulli", condition="labels")
    shades = {}
    for words in ((), ("--draw",)):
        path = tmp_path / "x.png"
        assert run(["sample", str(run_dir), "--count", "10", *words, "--output", str(path)]) == 0
        # 10 pictures of 56 screen pixels, 4 between two of them, from 12 on; the title takes 32.
        pixels = np.round(image.imread(path)[32:88, :, 0] * 255).astype(int)
        shades[words] = {shade for k in range(10) for shade in np.unique(pixels[:, 12 + 60 * k : 68 + 60 * k])}
    assert shades[("--draw",)] == {0, 255}
    assert len(shades[()]) > 10
