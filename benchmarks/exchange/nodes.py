"""Where a program runs: on this host, or in a network namespace that stands for another one."""

from dataclasses import dataclass

__all__ = ["HERE", "Node"]


@dataclass(frozen=True, slots=True)
class Node:
    """A place.

    address    by which the others reach it
    interface  through which they do
    prefix     a command that starts another one there
    """

    address: str
    interface: str
    prefix: tuple[str, ...] = ()


HERE = Node("127.0.0.1", "lo")
