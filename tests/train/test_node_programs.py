"""Nodes as a user starts them: real servers, a worker of several processes, and what happens when some of them end."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from running import PATIENCE, Processes, words

ROOT = Path(__file__).resolve().parents[2]
SMALL = ["--data", "digits", "--hidden", "16", "--latent", "3", "--batch-size", "64", "--microbatch", "8"]
STEPS = 1000


@pytest.fixture
def processes(tmp_path: Path) -> Iterator[Processes]:
    running = Processes(tmp_path)
    yield running
    running.close()


class Cluster:
    """A server, and the node that works for it."""

    def __init__(self, processes: Processes, name: str) -> None:
        self.processes, self.name = processes, name
        self.address = f"ipc://{processes.folder}/{name}.socket"

    def serve(self, *extra: object) -> subprocess.Popen[bytes]:
        server = ["server", "--listen", self.address, "--run-dir", self.name, *SMALL, *extra]
        return self.processes.start(*words(*server))

    def work(self, *extra: object) -> subprocess.Popen[bytes]:
        return self.processes.start(
            sys.executable, ROOT / "bin" / "start-worker", "--server", self.address, "--processes", *extra
        )

    def state(self) -> dict:
        done = subprocess.run(
            words("status", self.address, "--json", "--timeout", PATIENCE), capture_output=True, text=True, check=True
        )
        return json.loads(done.stdout)

    def metrics(self) -> str:
        path = self.processes.folder / self.name / "metrics.jsonl"
        return path.read_text() if path.exists() else ""

    def finished(self, *started: subprocess.Popen[bytes]) -> bytes:
        """The last checkpoint, once all have ended well."""
        for process in started:
            assert process.wait(PATIENCE) == 0, process.log.read_text()
        return max((self.processes.folder / self.name / "checkpoints").iterdir()).read_bytes()


def members_of(node: subprocess.Popen[bytes]) -> list[int]:
    found = subprocess.run(["pgrep", "-P", str(node.pid)], capture_output=True, text=True, check=False)
    return sorted(map(int, found.stdout.split()))


def is_running(pid: int) -> bool:
    """Whether the process has not ended; one that nobody has asked for its exit code yet has."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_a_node_has_the_bits_of_one_process_also_when_a_member_is_killed_and_another_stands_still(
    processes: Processes,
) -> None:
    alone, together = Cluster(processes, "alone"), Cluster(processes, "together")
    expected = alone.finished(alone.serve("--steps", STEPS), alone.work(1))

    server, node = together.serve("--steps", STEPS, "--report-every", 5), together.work(3, "--as-one")
    processes.said(server, f":{node.pid} (3 processes) joined: worker")
    processes.until(lambda: '"training"' in together.metrics())
    first, second, third = members_of(node)
    # Nobody is given work meanwhile: what happens, happens in one step.
    server.send_signal(signal.SIGSTOP)
    os.kill(first, signal.SIGKILL)
    os.kill(second, signal.SIGSTOP)
    server.send_signal(signal.SIGCONT)
    processes.said(node, "is silent for")
    processes.said(node, f"worker {first} was killed by signal 9; another is started")
    os.kill(second, signal.SIGCONT)

    assert together.finished(server, node) == expected
    assert not any(map(is_running, (first, second, third)))


@pytest.mark.parametrize("extra_words", [("--push-codec", "onebit"), ("--aggregate", "median")], ids=" ".join)
def test_with_a_codec_or_a_median_a_node_has_the_bits_of_one_worker(
    processes: Processes, extra_words: tuple[str, str]
) -> None:
    ends = []
    for name, extra in (("alone", (1,)), ("together", (2, "--as-one"))):
        cluster = Cluster(processes, name)
        server = cluster.serve("--steps", 200, *extra_words)
        ends.append(cluster.finished(server, cluster.work(*extra)))
    assert ends[1] == ends[0]


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_node_that_ends_leaves_no_process_behind_and_its_server_hears_of_it(
    processes: Processes, number: signal.Signals
) -> None:
    cluster = Cluster(processes, "run")
    server, node = cluster.serve("--steps", 1_000_000), cluster.work(2, "--as-one")
    processes.until(lambda: cluster.state()["version"] > 20)
    members = members_of(node)
    assert len(members) == 2
    node.send_signal(number)
    assert node.wait(PATIENCE) == (0 if number == signal.SIGTERM else -number), node.log.read_text()
    processes.until(lambda: not any(map(is_running, members)))
    processes.said(server, "(2 processes) left" if number == signal.SIGTERM else "(2 processes) lost: its connection")
    server.terminate()
    assert server.wait(PATIENCE) == 0


def test_members_that_wait_for_a_server_end_with_their_node(processes: Processes) -> None:
    node = Cluster(processes, "nobody").work(2, "--as-one", "--connect-timeout", 1000)
    processes.until(lambda: len(members_of(node)) == 2)
    members = members_of(node)
    node.kill()
    processes.until(lambda: not any(map(is_running, members)))


def test_words_that_are_off_are_refused_before_anything_starts(processes: Processes) -> None:
    node = Cluster(processes, "nobody").work(2, "--as-one", "--transport", "pigeon")
    assert node.wait(PATIENCE) == 2
    assert "--transport pigeon" in node.log.read_text()


def test_data_that_members_cannot_read_are_the_nodes_error_said_once(processes: Processes) -> None:
    cluster = Cluster(processes, "run")
    server, node = cluster.serve("--steps", 1_000_000), cluster.work(2, "--as-one", "--data", "mnist-5k")
    assert node.wait(PATIENCE) == 1
    (line,) = [line for line in node.log.read_text().splitlines() if line.startswith("ps-vae: ")]
    assert "mnist-5k on this host has fingerprint" in line
    server.terminate()
    assert server.wait(PATIENCE) == 0


def test_a_gradient_that_is_not_finite_ends_the_run_with_the_words_of_a_single_process(processes: Processes) -> None:
    diverging = ["--steps", STEPS, "--optimizer", "sgd", "--learning-rate", 1e30]
    reasons = []
    for name, extra in (("alone", (1,)), ("together", (2, "--as-one"))):
        cluster = Cluster(processes, name)
        server, node = cluster.serve(*diverging), cluster.work(*extra)
        assert server.wait(PATIENCE) == 1, server.log.read_text()
        assert node.wait(PATIENCE) == 1, node.log.read_text()
        reason = json.loads((processes.folder / name / "result.json").read_text())["reason"]
        reasons.append(reason[reason.index("step ") :])
    assert "the gradient is nan in encoder.0.weight" in reasons[0]
    assert reasons[1] == reasons[0]
