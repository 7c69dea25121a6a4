"""What `VAE` takes as X: with scikit-learn and without it the same is refused, and columns are never mixed up."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

# Prints what became of each call, and where z is, whether it is the right one.
CALLS = """
import json, sys, warnings
if sys.argv[1] == "without":
    sys.modules["sklearn"] = None
    import importlib.util
    find = importlib.util.find_spec
    importlib.util.find_spec = lambda name, *more: None if name == "sklearn" else find(name, *more)
import numpy as np
import pandas
from scipy import sparse
from ps_vae import VAE
from ps_vae.estimator.base import HAS_SKLEARN
assert HAS_SKLEARN == (sys.argv[1] == "with")

table = pandas.DataFrame(np.random.default_rng(1).random((30, 4)), columns=list("abcd"))
array = table.to_numpy()
def new():
    return VAE(2, (4,), epochs=1, random_state=1)
named, bare = new().fit(table), new().fit(array)
named.save(sys.argv[2])
loaded = VAE.load(sys.argv[2])
z = bare.transform(array)
numbered = pandas.DataFrame(array)

calls = {
    "the same": lambda: named.transform(table),
    "another order": lambda: named.transform(table[list("dcba")]),
    "another order, loaded": lambda: loaded.transform(table[list("dcba")]),
    "another order, score": lambda: named.score(table[list("dcba")]),
    "another name": lambda: named.transform(table.rename(columns={"a": "e"})),
    "too few": lambda: named.transform(table[list("abc")]),
    "too many": lambda: named.transform(table.assign(e=1.0)),
    "names are gone": lambda: named.transform(array),
    "names are numbers": lambda: named.transform(numbered),
    "names are new": lambda: bare.transform(table),
    "numbers for names": lambda: new().fit(numbered).transform(numbered),
    "refitted without names": lambda: new().fit(table).fit(array).transform(array),
    "strings and numbers for names": lambda: new().fit(table.rename(columns={"a": 1})),
    "complex": lambda: new().fit(array + 1j),
    "complex objects": lambda: new().fit((array + 1j).astype(object)),
    "sparse": lambda: new().fit(sparse.csr_matrix(array)),
    "sparse array": lambda: named.transform(sparse.coo_array(array)),
    "words": lambda: new().fit([["a", "b"], ["c", "d"]]),
    "words of a table": lambda: new().fit(table.assign(b=["1", "x", *"y" * 28])),
    "numbers as words": lambda: bare.transform(array.astype(str)),
    "ragged": lambda: new().fit([[1, 2], [3]]),
    "records": lambda: new().fit(np.zeros(3, [("a", float), ("b", float)])),
    "nothing": lambda: new().fit(None),
    "a set": lambda: new().fit({1, 2}),
    "integers of pandas": lambda: new().fit(pandas.DataFrame({"a": pandas.array([0, 1], "Int64")})),
    "gaps of pandas": lambda: new().fit(pandas.DataFrame({"a": pandas.array([1, None], "Int64")})),
    "truth values": lambda: new().fit(array > 0.5),
    "a column": lambda: new().fit(table["a"]),
}
found = {}
for name, call in calls.items():
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        refusal = ""
        try:
            made = call()
            outcome = "z" if isinstance(made, np.ndarray) and np.array_equal(made, z) else "done"
        except (ValueError, TypeError) as error:
            outcome, refusal = "refused", str(error)
            assert HAS_SKLEARN or type(error).__name__ == "DataError", f"{name}: {error!r}"
    found[name] = [outcome, sorted(str(each.message) for each in warned if each.category is UserWarning), refusal]
print(json.dumps(found))
"""

REFUSED = (
    *("another order", "another order, loaded", "another order, score", "another name", "too few", "too many"),
    *("strings and numbers for names", "complex", "complex objects", "sparse", "sparse array", "words", "ragged"),
    *("words of a table", "records", "nothing", "a set", "gaps of pandas", "a column"),
)


def _outcomes(which: str, folder: Path) -> dict:
    words = [sys.executable, "-c", CALLS, which, str(folder / "model.safetensors")]
    child = subprocess.run(words, capture_output=True, text=True, env=os.environ, timeout=300, check=False)
    assert child.returncode == 0, child.stderr
    return json.loads(child.stdout)


@pytest.mark.parametrize("which", ["with", "without"])
def test_columns_in_another_order_and_what_is_no_table_of_numbers_are_refused(which: str, tmp_path: Path) -> None:
    outcomes = _outcomes(which, tmp_path)
    assert [name for name, (outcome, *_) in outcomes.items() if outcome == "refused"] == [
        name for name in outcomes if name in REFUSED
    ]
    assert {outcomes[name][0] for name in ("the same", "names are gone", "names are new", "numbers as words")} == {"z"}
    for name, text in {
        "names are gone": "X does not have valid feature names, but VAE was fitted with feature names",
        "names are numbers": "X does not have valid feature names, but VAE was fitted with feature names",
        "names are new": "X has feature names, but VAE was fitted without feature names",
    }.items():
        assert outcomes[name][:2] == ["z", [text]]
    assert outcomes["refitted without names"][:2] == ["z", []]
    assert outcomes["words"][2].startswith("X has 'a' in row 0, column 0, and numbers are needed")
    assert outcomes["words of a table"][2].startswith("X has 'x' in row 1, column 'b', and numbers are needed")
