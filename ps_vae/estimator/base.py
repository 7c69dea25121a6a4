"""What a scikit-learn estimator inherits: scikit-learn's own classes, or, without it, the little of them that is used.

Without scikit-learn an estimator has the same methods; what other libraries ask it (tags, HTML, output containers) it
cannot answer.
"""

import inspect
from importlib.metadata import version
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import numpy.typing as npt

from ps_vae.errors import UsageError

__all__ = ["HAS_SKLEARN", "Base", "is_fitted_or_raise", "seed_of"]

Array = npt.NDArray[Any]


def _has_sklearn() -> bool:
    """Whether it is there, and new enough: 1.6 brought `validate_data` and the tags."""
    if find_spec("sklearn") is None:
        return False
    major, minor = version("scikit-learn").split(".")[:2]
    return (int(major), int(minor)) >= (1, 6)


HAS_SKLEARN = _has_sklearn()


class _StandIn:
    """get_params, set_params and fit_transform, by scikit-learn's conventions."""

    n_features_in_: int

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """The parameters of the constructor by name."""
        return {
            name: getattr(self, name) for name in inspect.signature(type(self).__init__).parameters if name != "self"
        }

    def set_params(self, **params: Any) -> Self:
        """Change parameters of the constructor. Raises UsageError for one that there is not."""
        known = self.get_params()
        for name, value in params.items():
            if name not in known:
                raise UsageError(f"{name!r} is no parameter of {type(self).__name__}: use {', '.join(known)}")
            setattr(self, name, value)
        return self

    def fit_transform(self, X: Any, y: Any = None) -> Array:
        """`fit`, then `transform` of the same rows."""
        transformed: Array = self.fit(X, y).transform(X)  # type: ignore[attr-defined]
        return transformed

    def __repr__(self) -> str:
        defaults = {name: each.default for name, each in inspect.signature(type(self).__init__).parameters.items()}
        said = {name: value for name, value in self.get_params().items() if value != defaults[name]}
        return f"{type(self).__name__}({', '.join(f'{name}={value!r}' for name, value in said.items())})"


if TYPE_CHECKING or not HAS_SKLEARN:
    Base = _StandIn
else:
    from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin

    class Base(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):
        """scikit-learn's classes, in the order that it asks for."""

        def __sklearn_tags__(self) -> Any:
            tags = super().__sklearn_tags__()
            tags.transformer_tags.preserves_dtype = ["float64", "float32"]
            return tags


def is_fitted_or_raise(estimator: Any, attribute: str) -> None:
    """Raises scikit-learn's NotFittedError, or UsageError without it, where the attribute is missing."""
    if hasattr(estimator, attribute):
        return
    name = type(estimator).__name__
    text = f"This {name} instance is not fitted yet. Call 'fit' with appropriate arguments before using this estimator."
    if HAS_SKLEARN:
        from sklearn.exceptions import NotFittedError

        raise NotFittedError(text)
    raise UsageError(text)


def seed_of(random_state: Any) -> int:
    """A seed from None (another one each time), a number, or a NumPy generator of either kind."""
    if random_state is None:
        return int(np.random.SeedSequence().generate_state(1)[0])
    if isinstance(random_state, np.random.RandomState):
        return int(random_state.randint(np.iinfo(np.int32).max))
    if isinstance(random_state, np.random.Generator):
        return int(random_state.integers(1 << 62))
    if isinstance(random_state, int | np.integer) and 0 <= random_state < 1 << 62:
        return int(random_state)
    raise UsageError(f"random_state={random_state!r}: give None, a number from 0 to 2^62 - 1, or a NumPy generator")
