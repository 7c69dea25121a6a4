"""What happens to messages on their way."""

from collections.abc import Collection
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Partition:
    """Nothing passes between two sets of addresses, from `begin` until `end`."""

    one: frozenset[str]
    other: frozenset[str]
    begin: float
    end: float

    def cuts(self, source: str, target: str, now: float) -> bool:
        if not self.begin <= now < self.end:
            return False
        return (source in self.one and target in self.other) or (source in self.other and target in self.one)


@dataclass
class Network:
    """Fractions and seconds.

    delay  drawn for each message, so that they overtake one another
    heavy  what tensors take besides
    """

    drop: float = 0.0
    double: float = 0.0
    delay: tuple[float, float] = (0.0001, 0.002)
    heavy: float = 0.0
    partitions: list[Partition] = field(default_factory=list)

    def part(self, one: Collection[str], other: Collection[str], begin: float, seconds: float) -> Partition:
        """Cut the network for so long."""
        partition = Partition(frozenset(one), frozenset(other), begin, begin + seconds)
        self.partitions.append(partition)
        return partition

    def is_cut(self, source: str, target: str, now: float) -> bool:
        return any(partition.cuts(source, target, now) for partition in self.partitions)


LOSSY = Network(drop=0.1, double=0.1, delay=(0.0001, 0.2))
