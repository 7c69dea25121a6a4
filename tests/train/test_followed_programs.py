"""A leader's process is killed while the run goes on: its follower leads, and the bits are those of a run in peace."""

import functools
import json
import os
import re
import signal
import subprocess

import pytest
from running import PATIENCE, Processes, words

RUN = ["--data", "digits", "--hidden", "16", "--latent", "3", "--batch-size", "64", "--microbatch", "16"]
STEPS = 1500
LENGTH = ["--steps", STEPS, "--checkpoint-every", 100]


@pytest.fixture
def processes(tmp_path):
    running = Processes(tmp_path)
    yield running
    running.close()


@pytest.fixture(scope="module")
def peace(tmp_path_factory):
    """The last checkpoint of the same run, by one worker and one server that nothing happens to."""

    @functools.cache
    def checkpoint(aggregate):
        folder = tmp_path_factory.mktemp("peace")
        command = words("train", *RUN, *LENGTH, "--aggregate", aggregate, "--workers", 1, "--run-dir", "run")
        subprocess.run([*command, "--no-pictures"], cwd=folder, check=True, capture_output=True, timeout=PATIENCE)
        return last_checkpoint(folder)

    return checkpoint


@pytest.fixture
def in_peace(peace):
    return peace("mean")


def last_checkpoint(folder):
    return (folder / "run" / "checkpoints" / f"step-{STEPS:08d}.safetensors").read_bytes()


class Cluster:
    """A first server, a second one, a follower of each, and two workers, of which one makes the run begin."""

    def __init__(self, processes, *options):
        self.processes = processes
        self.address = f"ipc://{processes.folder}/s"
        start = processes.start
        self.server = start(
            *words("server", "--listen", self.address, *RUN, *LENGTH, *options),
            *("--remote-shards", "1", "--await-workers", "2", "--run-dir", "run"),
        )
        self.shard = start(*words("server", "--join", self.address))
        processes.said(self.server, "shard 2 of 2 joined")
        self.followers = [start(*words("server", "--join", self.address, "--follower")) for _ in range(2)]
        for number in (1, 2):
            processes.said(self.server, f"follower of shard {number} of 2 joined")
        self.workers = [start(*words("worker", "--server", self.address, "--processes", 1)) for _ in range(2)]
        processes.said(self.server, "step-00000100")

    def leader_of_the_second(self):
        """The follower that says so."""
        said = [follower for follower in self.followers if "follower of shard 2" in follower.log.read_text()]
        assert len(said) == 1
        return said[0]

    def check(self, expected):
        assert self.server.wait(PATIENCE) == 0, self.server.log.read_text()
        for worker in self.workers:
            assert worker.wait(PATIENCE) == 0, worker.log.read_text()
            assert "joined run" in worker.log.read_text()
            assert worker.log.read_text().count("joined run") == 1
        assert last_checkpoint(self.processes.folder) == expected


def test_a_leader_that_is_killed_costs_neither_bits_nor_a_restart(processes, in_peace):
    cluster = Cluster(processes)
    heir = cluster.leader_of_the_second()

    os.kill(cluster.shard.pid, signal.SIGKILL)

    processes.said(heir, "leading shard 2 from version")
    # As whoever looks after it starts it again.
    again = processes.start(*words("server", "--join", cluster.address))
    processes.said(again, "joining again, as a follower")
    processes.said(again, "as follower of shard 2")
    cluster.check(in_peace)
    assert heir.wait(PATIENCE) == 0


@pytest.mark.parametrize(("shards", "aggregate"), [(1, "mean"), (2, "median")])
def test_a_first_server_that_is_killed_takes_its_run_up_from_the_others(processes, peace, shards, aggregate):
    address = f"ipc://{processes.folder}/s"
    server = processes.start(
        *words("server", "--listen", address, *RUN, *LENGTH, "--supervise", "--shards", shards, "--replicas", 1),
        *("--await-workers", "2", "--run-dir", "run", "--aggregate", aggregate),
    )
    workers = [processes.start(*words("worker", "--server", address, "--processes", 1)) for _ in range(2)]
    processes.said(server, "step-00000100")
    processes.until((processes.folder / "run" / "servers.json").exists)
    secret = json.loads((processes.folder / "run" / "servers.json").read_text())["secret"]
    _, holder, *_ = (processes.folder / "run" / "server.lock").read_text().split()

    os.kill(int(holder), signal.SIGKILL)

    processes.said(server, f"found the servers of all {shards} shards")
    assert server.wait(PATIENCE) == 0, server.log.read_text()
    for worker in workers:
        assert worker.wait(PATIENCE) == 0, worker.log.read_text()
        assert worker.log.read_text().count("joined run") == 1
    assert "continued from version" not in server.log.read_text()
    assert not any(secret in process.log.read_text() for process in processes.started)
    assert last_checkpoint(processes.folder) == peace(aggregate)
    assert not (processes.folder / "run" / "servers.json").exists()


class Headless(Cluster):
    """The same, whose first server is killed."""

    def __init__(self, processes):
        super().__init__(processes)
        self.run = processes.folder / "run"
        processes.until((self.run / "servers.json").exists)
        os.kill(self.server.pid, signal.SIGKILL)
        self.server.wait()

    def resume(self, *options):
        self.server = self.processes.start(
            *words("server", "--listen", self.address, "--remote-shards", "1", "--resume", "--run-dir", "run", *options)
        )
        return self.server

    def follower_of_the_first(self):
        return next(follower for follower in self.followers if follower is not self.leader_of_the_second())

    def written(self):
        """What is in the folder but for the lock, and what was not whole."""
        files = [path for path in self.run.rglob("*") if path.is_file()]
        return {path: path.read_bytes() for path in files if path.suffix not in (".lock", ".partial")}


def test_a_run_that_its_servers_have_is_not_changed_when_it_is_taken_up(processes, in_peace):
    cluster = Headless(processes)
    before = cluster.written()

    refused = cluster.resume("--steps", STEPS + 200, "--learning-rate", 0.01)

    assert refused.wait(PATIENCE) == 2, refused.log.read_text()
    assert f"--learning-rate 0.001, not 0.01, --steps {STEPS}, not {STEPS + 200}" in refused.log.read_text()
    assert cluster.written() == before
    processes.said(cluster.resume(), "found the servers of all 2 shards")
    cluster.check(in_peace)


def test_who_is_told_to_stop_while_it_looks_for_the_others_takes_the_run_up_and_stops_it_there(processes):
    cluster = Headless(processes)
    newest = max(cluster.run.glob("checkpoints/step-*"))
    heir = cluster.follower_of_the_first()
    # The search lasts until it goes on.
    os.kill(heir.pid, signal.SIGSTOP)
    server = cluster.resume()
    processes.said(server, "looking for the other servers")

    server.send_signal(signal.SIGTERM)
    processes.said(server, "as soon as the run is taken up")
    os.kill(heir.pid, signal.SIGCONT)

    assert server.wait(PATIENCE) == 0, server.log.read_text()
    found = re.search(r"the run goes on at version ([\d,]+)", server.log.read_text())
    version = int(found[1].replace(",", ""))
    assert f"step-{version:08d}" >= newest.stem
    assert max(cluster.run.glob("checkpoints/step-*")).stem >= f"step-{version:08d}"
    assert json.loads((cluster.run / "result.json").read_text())["reason"] == "stopped"


def test_who_is_told_twice_to_stop_while_it_looks_for_the_others_leaves_all_to_the_next_start(processes, in_peace):
    cluster = Headless(processes)
    before = cluster.written()
    heir = cluster.follower_of_the_first()
    os.kill(heir.pid, signal.SIGSTOP)
    server = cluster.resume()
    processes.said(server, "looking for the other servers")

    server.send_signal(signal.SIGTERM)
    processes.said(server, "as soon as the run is taken up")
    server.send_signal(signal.SIGTERM)

    assert server.wait(PATIENCE) == 1
    assert "stopped before the run could be taken up from its servers: told to stop at once" in server.log.read_text()
    assert cluster.written() == before
    os.kill(heir.pid, signal.SIGCONT)
    processes.said(cluster.resume(), "found the servers of all 2 shards")
    cluster.check(in_peace)


def test_who_is_told_to_stop_and_finds_nobody_leaves_all_to_the_next_start(processes):
    cluster = Headless(processes)
    before = cluster.written()
    for process in [*cluster.followers, cluster.shard, *cluster.workers]:
        process.kill()
        process.wait()
    server = cluster.resume()
    processes.said(server, "looking for the other servers")

    server.send_signal(signal.SIGTERM)

    assert server.wait(PATIENCE) == 1
    assert "none of the other servers is there; nothing is changed" in server.log.read_text()
    assert cluster.written() == before


def test_a_follower_that_is_killed_holds_nothing_up(processes, in_peace):
    cluster = Cluster(processes)
    spare = processes.start(*words("server", "--join", cluster.address, "--follower"))
    processes.said(spare, "not needed yet: each of the run's 2 shards has its follower")

    for follower in cluster.followers:
        os.kill(follower.pid, signal.SIGKILL)

    processes.said(spare, "as follower of shard")
    cluster.check(in_peace)
    assert spare.wait(PATIENCE) == 0
    assert "follower of shard 2 of 2 lost" in cluster.server.log.read_text()


def test_a_leader_that_stood_still_is_deposed_and_follows(processes, in_peace):
    cluster = Cluster(processes)
    heir = cluster.leader_of_the_second()
    os.kill(cluster.shard.pid, signal.SIGSTOP)
    processes.said(heir, "leading shard 2 from version")

    os.kill(cluster.shard.pid, signal.SIGCONT)

    processes.until(
        lambda: "as follower of shard 2" in cluster.shard.log.read_text() or cluster.server.poll() is not None
    )
    cluster.check(in_peace)
    assert "another server leads shard" in cluster.shard.log.read_text()
