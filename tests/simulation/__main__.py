"""python -m tests.simulation: explore seeds, replay one, or see what many workers cost the coordinator."""

import argparse
import sys
import time

from .exploration import run_seed
from .misfortunes import Misfortunes
from .scale import run_at_scale


def main() -> int:
    arguments = _parser().parse_args()
    if arguments.workers is not None:
        print(run_at_scale(arguments.workers, arguments.shards, arguments.steps).text)
        return 0
    if arguments.seed is not None:
        return _replay(arguments.seed)
    return _explore(range(arguments.first, arguments.first + arguments.seeds), arguments.followed)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("--seeds", type=int, default=500, metavar="N", help="how many runs (500)")
    parser.add_argument("--first", type=int, default=0, metavar="SEED", help="the first of them (0)")
    parser.add_argument("--followed", action="store_true", help="of these, only runs whose shards have followers")
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


def _explore(seeds: range, followed: bool) -> int:
    began, failed, count, moves, found = time.perf_counter(), [], 0, 0, 0
    for seed in seeds:
        if followed and not Misfortunes(seed).is_followed:
            continue
        outcome = run_seed(seed)
        count, moves, found = count + 1, moves + outcome.moves, found + outcome.found
        if outcome.error is not None:
            failed.append(seed)
            print(f"{outcome.text}\n", flush=True)
    what = f"{count} runs of the seeds from {seeds.start} on in {time.perf_counter() - began:.1f} s"
    replaced = f"{moves} leaders replaced, {found} first servers started again"
    print(f"{what}, {replaced}, {len(failed)} failed{f': {failed}' if failed else ''}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
