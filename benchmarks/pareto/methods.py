"""What is compared: a name, and what a run is told in order to communicate in that way."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

__all__ = ["DDP_DENSE", "DENSE", "METHODS", "Method", "chosen"]

DENSE = "dense"
"""Ours that all others are held against."""

DDP_DENSE = "ddp"


@dataclass(frozen=True, slots=True)
class Method:
    """One way.

    words    run options of ours; of DDP the hook, see `peers.torch_ddp_host`
    is_peer  PyTorch's DDP
    """

    words: tuple[str, ...] = ()
    is_peer: bool = False

    @property
    def local_steps(self) -> int:
        """Steps of a worker between two exchanges."""
        said = dict(zip(self.words[::2], self.words[1::2], strict=True))
        return max(1, int(said.get("--local-steps", "1")))


def _ours(text: str = "") -> Method:
    return Method(tuple(text.split()))


def _local(count: int, more: str = "") -> Method:
    return _ours(f"--local-steps {count} --push-codec int8 --pull-codec update:int8 {more}")


def _ddp(text: str = "") -> Method:
    return Method(tuple(text.split()), is_peer=True)


METHODS: Mapping[str, Method] = {
    DENSE: _ours(),
    "delay-1": _ours("--delay 1"),
    "factors": _ours("--push-codec factors"),
    "fp16": _ours("--push-codec fp16 --pull-codec fp16"),
    "int8": _ours("--push-codec int8 --pull-codec update:int8"),
    "topk-0.01": _ours("--push-codec topk:0.01 --pull-codec update:topk:0.01"),
    "powersgd-2": _ours("--push-codec powersgd:2 --pull-codec update:powersgd:2"),
    "onebit": _ours("--push-codec onebit --pull-codec update:onebit"),
    "local-8": _ours("--local-steps 8"),
    "local-32-onebit": _ours("--local-steps 32 --push-codec onebit --pull-codec update:onebit"),
    "local-32-topk-0.1": _ours("--local-steps 32 --push-codec topk:0.1 --pull-codec update:topk:0.1"),
    "local-16-int8": _local(16),
    "local-32-int8": _local(32),
    "local-128-int8": _local(128),
    "local-256-int8": _local(256),
    "local-512-int8": _local(512),
    "local-1024-int8-mean": _local(1024, "--outer-rate 1 --outer-momentum 0"),
    DDP_DENSE: _ddp(),
    "ddp-fp16": _ddp("--hook fp16"),
    "ddp-powersgd-2": _ddp("--hook powersgd:2"),
}


def chosen(names: Sequence[str]) -> dict[str, Method]:
    """The methods of these names, in the table's order; all of them for no name. Raises ValueError for another name."""
    unknown = [name for name in names if name not in METHODS]
    if unknown:
        raise ValueError(f"there is no method {', '.join(unknown)}; there are {', '.join(METHODS)}")
    return {name: method for name, method in METHODS.items() if not names or name in names}
