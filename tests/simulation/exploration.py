"""Seeds, one after the other; and one of them again, with what happened in it."""

from dataclasses import dataclass

from .misfortunes import Misfortunes

# Lines of the transcript that a failure shows.
_SHOWN = 60


@dataclass(frozen=True)
class Outcome:
    """What came of a seed: `error` is None where all promises were kept.

    backed_up  blocks that were given to a second worker too
    moves      of shards to another leader
    found      times that a coordinator was started again and found its servers
    """

    seed: int
    error: Exception | None
    lines: list[str]
    version: int
    seconds: float
    backed_up: int
    moves: int
    found: int

    @property
    def text(self) -> str:
        """What is wrong, what happened before, and how to see it again."""
        shown = "\n".join(self.lines[-_SHOWN:])
        replay = f"python -m tests.simulation --seed {self.seed}"
        return f"{shown}\n\nseed {self.seed}: {self.error}\nreplay: {replay}"


def run_seed(seed: int, *, with_lines: bool = False) -> Outcome:
    """The run of a seed. The lines of its transcript are there where it failed, or where they are wanted."""
    run = Misfortunes(seed)
    error = None
    try:
        run.check()
    except Exception as found:
        # Whatever a machine raises that is no answer to a peer is a finding too.
        error = found
    lines = run.world.transcript.lines() if with_lines or error is not None else []
    world = run.world
    backed_up, moves = world.coordinator.backlog.backed_up, world.coordinator._fleet.moves
    return Outcome(seed, error, lines, world.shards[0].version, world.now, backed_up, moves, world.first.found)
