"""What was sent and where the time went, in words."""

from typing import Any

__all__ = ["fewer", "spent"]

# Headers and acknowledgements alone make a run without codecs a little more than its tensors.
_NEARLY_ONE = 1.05


def fewer(figures: dict[str, Any]) -> str:
    """How many times fewer bytes than float32 tensors after each batch; empty where that is what was sent.

    figures  of a run, from its server: `bytes_pushed`, `bytes_pulled`, `bytes_dense`
    """
    sent, dense = figures["bytes_pushed"] + figures["bytes_pulled"], figures["bytes_dense"]
    if not sent or dense < _NEARLY_ONE * sent:
        return ""
    times = dense / sent
    return f"{times:,.0f} times fewer than dense" if times >= 10 else f"{times:.1f} times fewer than dense"


def spent(figures: dict[str, Any]) -> str:
    """What the workers did with their time; empty where that is not known."""
    return ", ".join(f"{part:.0%} {name}" for name, part in figures["time"].items())
