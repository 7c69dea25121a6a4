"""What no exchange can be below: the tensors copied there and back, in one process.

    python -m exchange.memory_copy

order {"size", "count"}; answer {"ns": nanoseconds of each round trip}.
"""

import numpy as np

from exchange.turns import Orders, answer, timed

__all__ = ["round_trips"]


def round_trips(size: int, count: int) -> list[int]:
    """Nanoseconds of `count` copies of `size` float32 there and back."""
    here, there = np.ones(size, np.float32), np.ones(size, np.float32)

    def copy() -> None:
        np.copyto(there, here)
        np.copyto(here, there)

    return timed(copy, count)


def main() -> None:
    orders = Orders()
    while (order := orders.wait()) is not None:
        answer({"ns": round_trips(order["size"], order["count"])})


if __name__ == "__main__":
    main()
