"""What a user hands over: rows of numbers, whose columns may have names.

X is checked by scikit-learn, or, without it, by its rules: names that are all strings are kept by `fit`, and later rows
have to have the same ones in the same order.
"""

import warnings
from typing import Any

import numpy as np
import numpy.typing as npt

from ps_vae.errors import DataError
from ps_vae.estimator.base import HAS_SKLEARN

__all__ = ["checked_rows", "numbers_of"]

Array = npt.NDArray[Any]

_SHOWN = 5


def checked_rows(estimator: Any, X: Any, *, is_new: bool) -> Array:
    """X as (n, features) of float32 or float64 without NaN or infinity; `is_new`: its features become the estimator's.

    Raises ValueError, which DataError is, in scikit-learn's words where it is there.
    """
    if HAS_SKLEARN:
        from sklearn.utils.validation import validate_data

        try:
            rows: Array = validate_data(estimator, X, reset=is_new, dtype=[np.float64, np.float32], order="C")
        except ValueError as error:
            raise (_words_in(X) or error) from None
        return rows
    names = _names(X)
    if not is_new:
        _check_names(estimator, names)
    try:
        rows = numbers_of("X", X)
    except DataError as error:
        raise (_words_in(X) or error) from None
    if rows.ndim != 2 or 0 in rows.shape:
        raise DataError(f"X of shape {rows.shape}: rows and columns (n, features) are needed, at least one of each")
    if not np.isfinite(rows).all():
        raise DataError("X contains NaN or infinity; replace them or leave these rows out")
    if is_new:
        estimator.n_features_in_ = rows.shape[1]
        if names is not None:
            estimator.feature_names_in_ = names
        elif hasattr(estimator, "feature_names_in_"):
            del estimator.feature_names_in_
    elif rows.shape[1] != estimator.n_features_in_:
        name = type(estimator).__name__
        raise DataError(
            f"X has {rows.shape[1]} features, but {name} is expecting {estimator.n_features_in_} features as input"
        )
    return rows


def numbers_of(name: str, values: Any) -> Array:
    """What the user calls `name` as an array in C order, float32 where it was, else float64; DataError otherwise."""
    if hasattr(values, "toarray"):
        raise DataError(f"{name} is sparse, and dense rows are needed; give {name}.toarray()")
    try:
        given = np.asarray(values)
        if given.dtype.kind != "c":
            return np.ascontiguousarray(given, np.float32 if given.dtype == np.float32 else np.float64)
    except (TypeError, ValueError, OverflowError) as error:
        raise DataError(
            f"{name} cannot be read as rows of numbers ({error}); give an array (n, features) of them"
        ) from None
    raise DataError(f"{name} is complex, and real numbers are needed; give {name}.real, or its parts as columns")


def _words_in(X: Any) -> DataError | None:
    """What to say of the first text that is no number, where there are rows with one."""
    try:
        cells = np.asarray(X)
    except ValueError:
        return None
    if cells.ndim != 2 or cells.dtype.kind not in "OU":
        return None
    columns = list(getattr(X, "columns", range(cells.shape[1])))
    for (row, column), cell in np.ndenumerate(cells):
        if isinstance(cell, str) and not _is_number(cell):
            return DataError(
                f"X has {str(cell)!r} in row {row}, column {columns[column]!r}, and numbers are needed; leave the "
                "column out, or make a column of each of its values (scikit-learn: OneHotEncoder; pandas: "
                "get_dummies). `ps-vae train` takes tables with words as they are"
            )
    return None


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _names(X: Any) -> Array | None:
    """Of a table's columns, where they are strings."""
    if not hasattr(X, "columns"):
        return None
    names = np.array(list(X.columns), dtype=object)
    are_strings = [isinstance(name, str) for name in names]
    if any(are_strings) and not all(are_strings):
        other = next(name for name, is_string in zip(names, are_strings, strict=True) if not is_string)
        raise DataError(
            f"X has names of columns that are strings and some that are not, such as {other!r}; make them all strings: "
            "X.columns = X.columns.astype(str)"
        )
    return names if any(are_strings) else None


def _check_names(estimator: Any, names: Array | None) -> None:
    of_fit = getattr(estimator, "feature_names_in_", None)
    model = type(estimator).__name__
    if of_fit is None or names is None:
        if names is not None:
            warnings.warn(f"X has feature names, but {model} was fitted without feature names", stacklevel=5)
        if of_fit is not None:
            warnings.warn(
                f"X does not have valid feature names, but {model} was fitted with feature names", stacklevel=5
            )
        return
    if of_fit.tolist() == names.tolist():
        return
    unseen, missing = ([name for name in a if name not in set(b)] for a, b in ((names, of_fit), (of_fit, names)))
    how = [f"{_listed(each)} is {what}" for each, what in ((unseen, "new"), (missing, "missing")) if each]
    raise DataError(
        "The feature names should match those that were passed during fit: "
        f"{', '.join(how) or 'their order is another'}; {model} was fitted with {_listed(of_fit)}"
    )


def _listed(names: Any) -> str:
    return ", ".join(map(repr, names[:_SHOWN])) + (" ..." if len(names) > _SHOWN else "")
