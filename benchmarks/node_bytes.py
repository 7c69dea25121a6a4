"""What do several processes of one node put on its link: each for itself, and as one worker (--as-one)?

    python benchmarks/node_bytes.py [--steps 200] [--processes 4] [--json]      as root: network namespaces
    python benchmarks/node_bytes.py --speed [--processes 2] [--rounds 5] [--steps 1500] [--json]

mnist-5k, 784-400-20-400-784, Adam, a batch of 256 in microbatches of 64. The server is in one network namespace, the
node in another; bytes are those of all packets through the node's interface, by the kernel's count, from before its
first process starts until the last one has ended. The same with one of the processes killed (SIGKILL) midway. All runs
end with a checkpoint (weights, optimizer state, metrics), of which every bit is compared.

--speed has server and node on this machine, without namespaces, and compares examples/s in turn, round after round,
both through shared memory and through sockets.

Exit code 1 where bits differ, or where the processes as one put 5% more on the link than a single one does.
"""

import argparse
import contextlib
import hashlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import report
from exchange.nodes import HERE, Node
from exchange.shaping import missing, network
from programs import environment

from ps_vae.train.processes import stop_all
from ps_vae.train.run_folder import RunFolder

_BATCH = 256
_MODEL = "--data mnist-5k --hidden 400 --latent 20 --microbatch 64 --report-every 1 --checkpoint-every 1000000000"
# So fast that it takes none of the time.
_RATE = "10gbit"
_PATIENCE_SECONDS = 120.0
_POLL_SECONDS = 0.01
_MORE_THAN_ONE = 1.05


@dataclass(frozen=True, slots=True)
class Way:
    """How the node's processes work; `kills`: one of them is killed when half of the steps are done."""

    name: str
    processes: int
    words: tuple[str, ...] = ()
    kills: bool = False


def ways(processes: int) -> list[Way]:
    """The first is what the others are compared with."""
    return [
        Way("1 process", 1),
        Way(f"{processes} processes", processes),
        Way(f"{processes} as one", processes, ("--as-one",)),
        Way(f"{processes} as one, one killed", processes, ("--as-one",), kills=True),
    ]


def run(way: Way, steps: int, server_at: Node, node_at: Node, transport: str) -> dict[str, Any]:
    """Train once.

    sent, received       bytes, by the node
    examples_per_second  from the tenth step to the last
    digest               of the last checkpoint
    """
    with tempfile.TemporaryDirectory() as name, contextlib.ExitStack() as stack:
        folder, log = Path(name), Path(name) / "log"
        log.touch()

        common = ("--transport", transport, "--insecure")

        def start(place: Node, *words: str) -> subprocess.Popen[bytes]:
            with log.open("ab") as file:
                command = [*place.prefix, sys.executable, "-m", "ps_vae", *words, *common]
                child = subprocess.Popen(command, env=environment(), stdout=file, stderr=file, start_new_session=True)
            stack.callback(stop_all, [child])
            return child

        def until(condition: Callable[[], Any]) -> None:
            end = time.monotonic() + _PATIENCE_SECONDS
            while not condition():
                if time.monotonic() > end:
                    raise RuntimeError(f"{way.name}: nothing happens: {log.read_text()[-500:]}")
                time.sleep(_POLL_SECONDS)

        plan = [*_MODEL.split(), "--batch-size", str(_BATCH), "--steps", str(steps)]
        listen, mark = f"tcp://{server_at.address}:*", "listening on "
        server = start(server_at, "server", "--listen", listen, "--run-dir", str(folder / "run"), *plan)
        until(lambda: mark in log.read_text() or server.poll() is not None)
        address = log.read_text().split(mark, 1)[1].split(";", 1)[0]
        before = _counts(node_at)
        node = start(node_at, "worker", "--server", address, "--processes", str(way.processes), *way.words)
        record = RunFolder(folder / "run")
        if way.kills:
            until(lambda: _training(record)[-1:] and _training(record)[-1]["version"] >= steps // 2)
            os.kill(_children(node.pid)[0], signal.SIGKILL)
        until(lambda: node.poll() is not None)
        sent, received = (after - first for after, first in zip(_counts(node_at), before, strict=True))
        until(lambda: server.poll() is not None)
        if node.returncode or server.returncode:
            raise RuntimeError(f"{way.name}: {log.read_text()[-500:]}")
        lines = _training(record)
        (last,) = record.checkpoints.glob(f"*{steps:08}.safetensors")
        return {
            "sent": sent,
            "received": received,
            "examples_per_second": (steps - 10) * _BATCH / (lines[-1]["time"] - lines[9]["time"]),
            "digest": hashlib.sha256(last.read_bytes()).hexdigest(),
        }


def bytes_on_the_link(steps: int, processes: int) -> dict[str, dict[str, Any]]:
    """Each way's figures, and `of_one`: so many times the bytes of a single process."""
    with network(_RATE, 2) as (server_at, node_at):
        found = {way.name: run(way, steps, server_at, node_at, "tcp") for way in ways(processes)}
    first = next(iter(found.values()))
    for figures in found.values():
        figures["of_one"] = (figures["sent"] + figures["received"]) / (first["sent"] + first["received"])
        figures["same_bits"] = figures["digest"] == first["digest"]
    return found


def speed(steps: int, processes: int, rounds: int) -> dict[str, dict[str, Any]]:
    """Examples a second of each way, with the server on this machine."""
    _, apart, together, _ = ways(processes)
    turns = [(f"{way.name}, {transport}", way, transport) for transport in ("shm", "tcp") for way in (apart, together)]
    taken: dict[str, list[dict[str, Any]]] = {name: [] for name, _, _ in turns}
    for _ in range(rounds):
        for name, way, transport in turns:
            taken[name].append(run(way, steps, HERE, HERE, transport))
    digests = {one["digest"] for runs in taken.values() for one in runs}
    paces = {name: [one["examples_per_second"] for one in runs] for name, runs in taken.items()}
    return {
        name: {
            "examples_per_second": report.summary(pace),
            "of_apart": report.ratio(pace, paces[f"{apart.name}, {name.rpartition(', ')[2]}"]),
            "same_bits": len(digests) == 1,
        }
        for name, pace in paces.items()
    }


def rows(found: dict[str, dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Of either table."""
    for name, figures in found.items():
        pace = figures["examples_per_second"]
        median = pace if isinstance(pace, float) else pace["median"]
        row = {"processes": name, "examples/s": median, "bits": "same" if figures["same_bits"] else "DIFFERENT"}
        if "sent" in figures:
            row |= {"sent MB": figures["sent"] / 1e6, "received MB": figures["received"] / 1e6}
            row["of one"] = figures["of_one"]
        else:
            row |= {"least to most": f"{pace['least']:,.0f} to {pace['most']:,.0f}", "of apart": figures["of_apart"]}
        yield row


def is_wrong(found: dict[str, dict[str, Any]]) -> bool:
    """Whether a promise is broken."""
    heavy = any(figures.get("of_one", 0.0) > _MORE_THAN_ONE for name, figures in found.items() if "as one" in name)
    return heavy or not all(figures["same_bits"] for figures in found.values())


def _training(record: RunFolder) -> list[dict[str, Any]]:
    return [line for line in record.metrics() if line["kind"] == "training"]


def _counts(place: Node) -> tuple[int, int]:
    """Bytes that the place's interface has sent and received."""
    folder = f"/sys/class/net/{place.interface}/statistics"
    told = subprocess.run(
        [*place.prefix, "cat", f"{folder}/tx_bytes", f"{folder}/rx_bytes"], capture_output=True, text=True, check=True
    )
    sent, received = map(int, told.stdout.split())
    return sent, received


def _children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int)
    parser.add_argument("--processes", type=int)
    parser.add_argument("--speed", action="store_true", help="examples/s on this machine instead of bytes")
    parser.add_argument("--rounds", type=int, default=5, help="of --speed")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of the table")
    words = parser.parse_args()
    if not words.speed and (lack := missing()) is not None:
        print(lack, file=sys.stderr)
        return 1
    # SIGTERM ends what was started, too.
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit("ended by SIGTERM"))
    if words.speed:
        found = speed(words.steps or 1500, words.processes or 2, words.rounds)
        columns = {"processes": "", "examples/s": ",.0f", "least to most": "", "of apart": ".2f", "bits": ""}
    else:
        found = bytes_on_the_link(words.steps or 200, words.processes or 4)
        columns = {"processes": "", "sent MB": ",.2f", "received MB": ",.2f", "of one": ".3f", "bits": ""}
    if words.json:
        print(json.dumps({"machine": report.machine(), "ways": found}))
    else:
        print(report.table(list(rows(found)), columns))
    return int(is_wrong(found))


if __name__ == "__main__":
    sys.exit(main())
