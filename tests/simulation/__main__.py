"""python -m tests.simulation: explore seeds, replay one, or see what many workers cost the coordinator."""

import argparse
import sys
import time

from .exploration import run_seed
from .scale import run_at_scale


def main() -> int:
    arguments = _parser().parse_args()
    if arguments.workers is not None:
        print(run_at_scale(arguments.workers, arguments.shards, arguments.steps).text)
        return 0
    if arguments.seed is not None:
        return _replay(arguments.seed)
    return _explore(arguments.first, arguments.seeds)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("--seeds", type=int, default=500, metavar="N", help="how many runs (500)")
    parser.add_argument("--first", type=int, default=0, metavar="SEED", help="the first of them (0)")
    parser.add_argument("--seed", type=int, metavar="SEED", help="this one alone, with its transcript")
    parser.add_argument("--workers", type=int, metavar="N", help="no misfortunes, but many workers")
    parser.add_argument("--shards", type=int, default=16, metavar="N", help="with --workers (16)")
    parser.add_argument("--steps", type=int, default=5, metavar="N", help="with --workers (5)")
    return parser


def _replay(seed: int) -> int:
    outcome = run_seed(seed, with_lines=True)
    print("\n".join(outcome.lines))
    if outcome.error is not None:
        print(f"\nseed {seed}: {outcome.error}")
        return 1
    print(f"\nseed {seed}: version {outcome.version} after {outcome.seconds:.1f} virtual seconds, all promises kept")
    return 0


def _explore(first: int, seeds: int) -> int:
    began, failed = time.perf_counter(), []
    for seed in range(first, first + seeds):
        outcome = run_seed(seed)
        if outcome.error is not None:
            failed.append(seed)
            print(f"{outcome.text}\n", flush=True)
    seconds = time.perf_counter() - began
    print(f"{seeds} seeds from {first} in {seconds:.1f} s, {len(failed)} failed{f': {failed}' if failed else ''}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
