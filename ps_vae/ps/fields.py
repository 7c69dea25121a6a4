"""The types of header fields: each is called with a parsed value and returns the one to keep, or raises ValueError.

`str` of a type is what PROTOCOL.md calls it. A list becomes a tuple, so that messages can be compared and hashed.
"""

from collections.abc import Callable
from typing import Any

from ps_vae.ps.record import record

__all__ = ["Binary", "Boolean", "Check", "Each", "Integer", "ListOf", "Nullable", "Number", "Span", "Text"]

Check = Callable[[Any], Any]


@record
class Integer:
    """An integer in [0, 2**bits)."""

    bits: int = 63

    def __call__(self, value: Any) -> int:
        # Shifted right, a negative number is never 0.
        if type(value) is not int or value >> self.bits:
            raise ValueError(f"not an integer in [0, 2^{self.bits})")
        return value

    def __str__(self) -> str:
        return f"uint{self.bits}"


@record
class Number:
    """A msgpack float64; NaN and infinity are numbers here."""

    def __call__(self, value: Any) -> float:
        if type(value) is not float:
            raise ValueError("not a float")
        return value

    def __str__(self) -> str:
        return "float"


@record
class Boolean:
    """True or false."""

    def __call__(self, value: Any) -> bool:
        if type(value) is not bool:
            raise ValueError("not a boolean")
        return value

    def __str__(self) -> str:
        return "bool"


@record
class Binary:
    """Bytes of a bounded length."""

    at_most: int
    at_least: int = 0

    def __call__(self, value: Any) -> bytes:
        if type(value) is not bytes or not self.at_least <= len(value) <= self.at_most:
            raise ValueError(f"not {self.at_least} to {self.at_most} bytes")
        return value

    def __str__(self) -> str:
        return f"bytes {self.at_most}" if self.at_least == self.at_most else f"bytes <= {self.at_most}"


@record
class Text:
    """UTF-8 text of a bounded number of characters."""

    at_most: int

    def __call__(self, value: Any) -> str:
        if type(value) is not str or len(value) > self.at_most:
            raise ValueError(f"not text of at most {self.at_most} characters")
        return value

    def __str__(self) -> str:
        return f"text <= {self.at_most}"


@record
class Nullable:
    """nil, or what `inner` takes."""

    inner: Check

    def __call__(self, value: Any) -> Any:
        return None if value is None else self.inner(value)

    def __str__(self) -> str:
        return f"{self.inner} or nil"


@record
class ListOf:
    """An array of any number of `inner`."""

    inner: Check
    at_most: int = 4096

    def __call__(self, value: Any) -> tuple[Any, ...]:
        if type(value) is not list or len(value) > self.at_most:
            raise ValueError(f"not an array of at most {self.at_most}")
        return tuple(self.inner(item) for item in value)

    def __str__(self) -> str:
        return f"array <= {self.at_most} of {self.inner}"


@record
class Each:
    """An array of exactly one of each of several types."""

    inner: tuple[Check, ...]

    def __call__(self, value: Any) -> tuple[Any, ...]:
        if type(value) is not list or len(value) != len(self.inner):
            raise ValueError(f"not an array of {len(self.inner)}")
        return tuple(check(item) for check, item in zip(self.inner, value, strict=True))

    def __str__(self) -> str:
        return f"[{', '.join(str(check) for check in self.inner)}]"


_LOW_AND_HIGH = Each((Integer(), Nullable(Integer())))


@record
class Span:
    """Versions [low, high]; high = nil: any newer one."""

    def __call__(self, value: Any) -> tuple[int, int | None]:
        low, high = _LOW_AND_HIGH(value)
        if high is not None and high < low:
            raise ValueError(f"no range: {high} is below {low}")
        return low, high

    def __str__(self) -> str:
        return "[low, high or nil]"
