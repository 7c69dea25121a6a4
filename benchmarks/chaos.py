"""What does it take to stop a run? Real programs, disturbed at random, and what they promise checked.

    python benchmarks/chaos.py NAME [options] [--json]       NAME: one of EXPERIMENTS; --help lists them

What is random follows from --seed. Exit code 1 where something does not hold; it is said what.
"""

import argparse
import json
import signal
import sys
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import report
from faults import churn, fuzz, kills, partition, stops, strangers

__all__ = ["EXPERIMENTS", "Experiment", "columns", "main"]


class Experiment(Protocol):
    """A module of `faults`.

    HELP         one line
    add_options  its own, beside --json and --seed
    run          does it; what was found is plain data for --json
    rows         the same as a table: text, numbers and None by title, the same titles in each row
    faults       what does not hold, a line each
    """

    HELP: str

    def add_options(self, parser: argparse.ArgumentParser) -> None: ...
    def run(self, options: argparse.Namespace) -> dict[str, Any]: ...
    def rows(self, found: dict[str, Any]) -> list[dict[str, Any]]: ...
    def faults(self, found: dict[str, Any]) -> list[str]: ...


EXPERIMENTS: dict[str, Experiment] = {
    "kills": kills,
    "churn": churn,
    "stops": stops,
    "partition": partition,
    "fuzz": fuzz,
    "strangers": strangers,
}


def columns(rows: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """The titles of a table and the format of each one's numbers: by the first value that is there."""
    known = {title: next((row[title] for row in rows if row.get(title) is not None), "") for title in rows[0]}
    return {title: "" if isinstance(value, str) else _form(value) for title, value in known.items()}


def _form(number: float) -> str:
    return ",d" if isinstance(number, int) else ",.2f"


def main(words: Sequence[str] | None = None, experiments: Mapping[str, Experiment] = EXPERIMENTS) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = parser.add_subparsers(dest="name", metavar="NAME", required=True)
    for name, experiment in experiments.items():
        of_its_own = names.add_parser(name, help=experiment.HELP, description=experiment.HELP)
        of_its_own.add_argument("--seed", type=int, default=0, help="of everything that is random")
        of_its_own.add_argument("--json", action="store_true", help="print one JSON object instead of the table")
        experiment.add_options(of_its_own)
    options = parser.parse_args(words)
    # SIGTERM ends what was started, too.
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit("ended by SIGTERM"))
    chosen = experiments[options.name]
    found = chosen.run(options)
    broken = chosen.faults(found)
    machine = report.machine()
    if options.json:
        print(json.dumps({"machine": machine, "seed": options.seed, "found": found, "faults": broken}))
    else:
        table = chosen.rows(found)
        print(f"{machine['cores']} cores of {machine['cpu']}, {machine['system']}; seed {options.seed}\n")
        print(report.table(table, columns(table)))
        print("\n" + "\n".join(f"DOES NOT HOLD: {fault}" for fault in broken) if broken else "\neverything holds")
    return int(bool(broken))


if __name__ == "__main__":
    sys.exit(main())
