"""How well missing values are filled in: tables with half of their values taken out, against scikit-learn's imputers.

    python benchmarks/imputation.py [--data iris breast-cancer] [--missing 0.5] [--epochs 2000] [--workers 2] [--json]

Columns are standardised and values are missing completely at random, drawn as in the notebooks of Mattei & Frellsen
(2019), https://github.com/pamattei/miwae, whose seed this has, too. What is shown is the mean squared error of what was
taken out, in standard deviations squared: 1 is what the mean of each column leaves.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow
import report
from pyarrow import parquet
from sklearn.datasets import load_breast_cancer, load_iris
from sklearn.ensemble import ExtraTreesRegressor
from sklearn.experimental import enable_iterative_imputer  # noqa: F401 (without it there is no IterativeImputer)
from sklearn.impute import IterativeImputer, SimpleImputer

Table = npt.NDArray[np.float64]

_SEED = 1234
_PS_VAE = [sys.executable, "-m", "ps_vae"]
_DATA = {"iris": load_iris, "breast-cancer": load_breast_cancer}
# Latent dimensions: one for iris, as in the notebook, a third of the columns for the other.
_LATENT = {"iris": 1, "breast-cancer": 10}
_PEERS: dict[str, Any] = {
    "mean of the column": SimpleImputer(),
    "IterativeImputer, ridge": IterativeImputer(max_iter=20, random_state=0),
    "IterativeImputer, trees": IterativeImputer(
        ExtraTreesRegressor(n_estimators=50, random_state=0, n_jobs=-1), max_iter=10, random_state=0
    ),
}
_LIKELIHOODS = ("gaussian-feature", "gaussian-decoder")


def incomplete(name: str, missing: float) -> tuple[Table, Table]:
    """The whole standardised table, and a copy with NaN in its place where a value is missing."""
    whole = _DATA[name](return_X_y=True)[0].astype(float)
    whole = (whole - whole.mean(axis=0)) / whole.std(axis=0)
    generator = np.random.RandomState(_SEED)
    places = generator.choice(whole.size, int(whole.size * missing), replace=False)
    partial = whole.copy().ravel()
    partial[places] = np.nan
    return whole, partial.reshape(whole.shape)


def fill(partial: Table, name: str, likelihood: str, words: argparse.Namespace, folder: Path) -> Table:
    """By `ps-vae train` and `ps-vae impute`."""
    path, run = folder / f"{name}.parquet", folder / f"{name}-{likelihood}"
    out = run.with_suffix(".parquet")
    columns = {f"x{number}": pyarrow.array(column, from_pandas=True) for number, column in enumerate(partial.T)}
    parquet.write_table(pyarrow.table(columns), path)
    train = [
        *(*_PS_VAE, "train", "--data", str(path), "--split", "1,0,0", "--likelihood", f"*:{likelihood}"),
        *("--hidden", "128,128", "--latent", str(_LATENT[name]), "--bound", "iwae:20", "--batch-size", "64"),
        *("--epochs", str(words.epochs), "--workers", str(words.workers), "--run-dir", str(run)),
    ]
    subprocess.run(train, check=True, stdout=sys.stderr)
    subprocess.run([*_PS_VAE, "impute", str(run), "--output", str(out)], check=True, stdout=sys.stderr)
    return np.stack([column.to_numpy() for column in parquet.read_table(out).columns], axis=1)


def rows(words: argparse.Namespace, folder: Path) -> Iterator[dict[str, Any]]:
    """Of the table: a row for each method."""
    errors: dict[str, dict[str, float]] = {}
    for name in words.data:
        whole, partial = incomplete(name, words.missing)
        missing = np.isnan(partial)
        filled = {method: imputer.fit_transform(partial) for method, imputer in _PEERS.items()}
        filled |= {f"ps_vae, {each}": fill(partial, name, each, words, folder) for each in _LIKELIHOODS}
        for method, table in filled.items():
            errors.setdefault(method, {})[name] = float(np.square(table - whole)[missing].mean())
    for method, of_method in errors.items():
        yield {"filled in by": method, **of_method}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", nargs="+", choices=_DATA, default=list(_DATA))
    parser.add_argument("--missing", type=float, default=0.5)
    parser.add_argument("--epochs", type=int, default=2000)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--json", action="store_true")
    words = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = list(rows(words, Path(folder)))
    if words.json:
        print(json.dumps({"machine": report.machine(), "rows": found}))
    else:
        print(report.table(found, {"filled in by": "", **dict.fromkeys(words.data, ".3f")}))


if __name__ == "__main__":
    main()
