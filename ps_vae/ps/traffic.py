"""Bytes of a shard's pushes and pulls: counted by whoever holds the sockets, but for `dense`, by the shard."""

from dataclasses import dataclass

__all__ = ["Traffic"]


@dataclass(slots=True)
class Traffic:
    """In all, so far.

    pushed, pulled  to and from the shard, headers and tensors
    shared          how many of both were not sent, but read in shared memory
    dense           how many the pushes and their answers had been, of tensors alone, if none were encoded
    """

    pushed: int = 0
    pulled: int = 0
    shared: int = 0
    dense: int = 0
