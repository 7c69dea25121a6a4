"""What an exchange with the server costs: time, bytes, and what the time is spent on.

    python benchmarks/communication.py [--sizes 1000 100000 652824] [--seconds 5] [--touch] [--json] [--out PLOT.png]
    python benchmarks/communication.py --bandwidth 100mbit       between hosts: as root, in network namespaces

One worker pushes its gradient and gets the next weights: ours with shared memory and over tcp, with the cheapest update
and with Adam; beside it a memory copy, raw pyzmq and gloo's all-reduce. They take turns in one run
(`exchange.contest`). Then several workers, computing for some milliseconds (asleep), on several shards
(`exchange.grid`). The programs of server and worker have no model; everything else of ours is what is shipped.

--touch      both sides write what they send and read what they got, in raw pyzmq too; without, only our server does
--bandwidth  servers and workers are hosts of their own, with links of that rate

The largest size needs 8 GB of memory. Three minutes in all.
"""

import argparse
import json
import math
import signal
import sys
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any

import programs
import report
from exchange import tables
from exchange.contest import Place, compare, peers
from exchange.figures import figures, models
from exchange.grid import steps_of
from exchange.plot import draw
from exchange.shaping import bits_per_second, missing, network

LIBRARIES = ("numpy", "numba", "pyzmq", "msgpack", "torch")
SIZES = (1_000, 10_000, 100_000, 652_824, 5_000_000, 50_000_000)
# What has to lie on a boundary of 64 bytes.
ALIGNMENT = 16
# Where an exchange takes longer than this on the link alone it is left out, unless it is asked for.
LONGEST_SECONDS = 4.0
GRID_SECONDS, FEWEST_STEPS, MOST_STEPS = 2.0, 3, 100


def main() -> int:
    words = _parser().parse_args()
    if words.bandwidth and (lack := missing()):
        print(f"--bandwidth {words.bandwidth}: {lack}", file=sys.stderr)
        return 1
    # What was started ends with us, and namespaces go.
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit("ended by SIGTERM"))
    whole = {"machine": report.machine(), "versions": report.versions(LIBRARIES), "bandwidth": words.bandwidth}
    most_shards, most_workers = max(words.shards, default=1), max(words.workers, default=1)
    links = network(words.bandwidth, most_shards + most_workers) if words.bandwidth else nullcontext(None)
    with links as nodes:
        place = Place(programs.environment())
        if nodes is not None:
            place = Place(programs.environment(), tuple(nodes[:most_shards]), tuple(nodes[most_shards:]))
        found = _exchanges(words, place)
        grid = _grid(words, place)
    whole |= {"sizes": found, "models": models(found), "grid": grid}
    out = words.out or Path(__file__).parent / "plots" / f"communication{f'-{words.bandwidth}' if nodes else ''}.png"
    title = f"links of {words.bandwidth}" if words.bandwidth else "one host"
    try:
        draw(
            found, grid, out, f"Communication, {title}: {whole['machine']['cores']} cores of {whole['machine']['cpu']}"
        )
        whole["plot"] = str(out)
    except ImportError as error:
        whole["plot"] = None
        print(f"no plot: {error} (pip install '.[demo]')", file=sys.stderr)
    print(json.dumps(whole) if words.json else _drawn(whole))
    return 0


def _exchanges(words: argparse.Namespace, place: Place) -> dict[int, dict[str, Any]]:
    found = {}
    with peers(place, touches=words.touch) as others:
        for size in _sizes(words):
            _say(f"{size:,} parameters ...")
            found[size] = figures(size, compare(size, others, place, words.seconds, touches=words.touch))
    return found


def _grid(words: argparse.Namespace, place: Place) -> list[dict[str, Any]]:
    rows = []
    size = _aligned(words.grid_size)
    for transport in ("auto", "tcp") if place.is_here else ("auto",):
        for workers in words.workers:
            for shards in words.shards:
                _say(f"{workers} workers, {shards} shards, {transport} ...")
                count = _steps(size, workers, shards, words.compute_ms / 1e3, words.bandwidth)
                where = {"size": size, "transport": transport, "workers": workers, "shards": shards}
                try:
                    row = steps_of(place, size, workers, shards, transport, count, words.compute_ms / 1e3)
                    rows.append({**where, **row, "parts": row["parts"] and asdict(row["parts"]), "why": None})
                except RuntimeError as error:
                    rows.append({**where, "parts": None, "why": str(error)})
    return rows


def _steps(size: int, workers: int, shards: int, compute_seconds: float, bandwidth: str | None) -> int:
    """So many that they take about two seconds."""
    seconds = compute_seconds + 2e-9 * size * workers
    if bandwidth:
        seconds += 8 * 8 * size * max(1.0, workers / shards) / bits_per_second(bandwidth)
    return max(FEWEST_STEPS, min(MOST_STEPS, round(GRID_SECONDS / seconds)))


def _sizes(words: argparse.Namespace) -> list[int]:
    sizes = [_aligned(size) for size in words.sizes or SIZES]
    if words.sizes or not words.bandwidth:
        return sizes
    rate = bits_per_second(words.bandwidth)
    return [size for size in sizes if 8 * 8 * size / rate <= LONGEST_SECONDS]


def _aligned(size: int) -> int:
    return ALIGNMENT * math.ceil(size / ALIGNMENT)


def _drawn(whole: dict[str, Any]) -> str:
    machine, found = whole["machine"], whole["sizes"]
    libraries = ", ".join(f"{name} {version}" for name, version in whole["versions"].items() if version)
    links = f"links of {whole['bandwidth']}" if whole["bandwidth"] else "one host"
    rounds = [len(row["rounds"]) for systems in found.values() for row in systems.values() if row["rounds"]]
    parts = [
        f"{links}; {machine['cores']} cores of {machine['cpu']}, {machine['system']}; {libraries}\n"
        f"{min(rounds, default=0)} to {max(rounds, default=0)} rounds; sizes are rounded up to 64 bytes",
        tables.time_table(found),
        tables.ratio_table(found),
        tables.parts_table(found),
        tables.bytes_table(found),
        tables.model_table(whole["models"]) if whole["models"] else "",
        tables.grid_table(whole["grid"]) if whole["grid"] else "",
        f"plot: {whole['plot']}" if whole["plot"] else "",
    ]
    return "\n\n".join(part for part in parts if part)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", metavar="N", help=f"parameters (default: {_listed(SIZES)})")
    parser.add_argument("--seconds", type=float, default=5.0, help="of the rounds at each size")
    parser.add_argument("--touch", action="store_true")
    parser.add_argument("--workers", type=int, nargs="*", default=(1, 2, 4), metavar="N")
    parser.add_argument("--shards", type=int, nargs="*", default=(1, 2, 4), metavar="N")
    parser.add_argument(
        "--grid-size", type=int, default=652_824, metavar="N", help="parameters of the runs with several"
    )
    parser.add_argument("--compute-ms", type=float, default=5.0, help="of a worker in each of their steps")
    parser.add_argument("--bandwidth", type=_rate, metavar="RATE", help="1gbit, 100mbit")
    parser.add_argument("--out", type=Path, metavar="PNG", help="where the plot goes")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of the tables")
    return parser


def _rate(text: str) -> str:
    try:
        bits_per_second(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    return text


def _listed(sizes: Sequence[int]) -> str:
    return " ".join(map(str, sizes))


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
