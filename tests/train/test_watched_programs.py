"""Programs as they are watched: their logs, their metrics, and what they say where the disk is full."""

import json
import resource
import signal
import subprocess
import threading
import urllib.request
from contextlib import closing
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families
from running import PATIENCE, Processes, words

from ps_vae.ps.observer import Observer
from ps_vae.train.checkpoint import Checkpoint, newest
from ps_vae.train.run_folder import RunFolder
from ps_vae.vae.layout import ParameterLayout

RUN = [
    *("--data", "digits", "--hidden", "16", "--latent", "3", "--batch-size", "64", "--microbatch", "16"),
    *("--steps", "1000000", "--checkpoint-every", "200", "--report-every", "50", "--run-dir", "run"),
]


@pytest.fixture
def processes(tmp_path):
    running = Processes(tmp_path)
    yield running
    running.close()


def events_of(process):
    """What a program has said so far; a last line may not be whole yet."""
    return [json.loads(line) for line in process.log.read_text().splitlines(keepends=True) if line.endswith("\n")]


def scraped(url):
    with urllib.request.urlopen(url, timeout=PATIENCE) as answer:
        families = text_string_to_metric_families(answer.read().decode())
        return {(s.name, *sorted(s.labels.items())): s.value for family in families for s in family.samples}


def test_a_run_is_watched_by_its_log_and_its_metrics_and_its_folder_is_its_own(processes):
    address = f"ipc://{processes.folder}/socket"
    logged = ("--log-format", "json")
    watched = (*logged, "--json", "--metrics-port", "0", "--shards", "2")
    server = processes.start(*words("server", "--listen", address, *RUN, *watched))
    worker = processes.start(*words("worker", "--server", address, "--processes", 1, *logged))
    processes.until(lambda: any(said["event"] == "checkpoint-written" for said in events_of(server)))

    (url,) = [said["url"] for said in events_of(server) if said["event"] == "metrics"]
    # What is shown may be a second old, from before the first step.
    processes.until(lambda: scraped(url)["ps_vae_version",] > 0)
    metrics = scraped(url)
    status = subprocess.run(words("status", address, "--json"), capture_output=True, text=True, timeout=PATIENCE)
    state = json.loads(status.stdout)
    assert ("ps_vae_run_info", ("consistency", "bsp"), ("run", state["run"]), ("run_dir", "run")) in metrics
    assert state["version"] >= metrics["ps_vae_version",]
    assert state["bytes_pushed"] >= metrics["ps_vae_pushed_bytes_total",] > 0
    (name,) = [one["name"] for one in state["workers"]]
    assert metrics["ps_vae_worker_microbatches_per_second", ("worker", name)] > 0
    assert [metrics["ps_vae_shard_up", ("shard", number)] for number in ("1", "2")] == [1, 1]
    assert metrics["ps_vae_phase", ("phase", "training")] == 1
    assert metrics["ps_vae_member_changes_total", ("change", "joined")] >= 2

    second = subprocess.run(
        words("server", "--resume", "--run-dir", "run", "--listen", f"ipc://{processes.folder}/other"),
        cwd=processes.folder, capture_output=True, text=True, timeout=PATIENCE,
    )  # fmt: skip
    assert second.returncode == 2
    assert f"run is in use: process {server.pid} on " in second.stderr

    server.send_signal(signal.SIGTERM)
    for process in (server, worker):
        assert process.wait(PATIENCE) == 0, process.log.read_text()
    *lines, result = events_of(server)
    assert result["run_dir"] == "run"
    assert {"time", "level", "event", "process", "message"} <= set.intersection(*map(set, lines))
    assert {said["process"] for said in lines} > {server.pid}  # the other shard's, too
    told = {said["event"]: said for said in lines}
    assert {"run", "listening", "member-joined", "checkpoint-written", "stopping", "run-ended"} <= set(told)
    assert told["checkpoint-written"]["version"] == result["version"]
    assert [said["event"] for said in events_of(worker)][-1] == "run-ended"
    assert not list((processes.folder / "run").glob("server.lock"))


class Listener:
    """Everything that a program writes to a pipe, which unlike a file takes it also where files cannot grow."""

    def __init__(self, process):
        self.lines = []
        self._pipe = process.stderr
        self._thread = threading.Thread(target=self._listen)
        self._thread.start()

    def _listen(self):
        for line in self._pipe:
            self.lines.append(line)

    def close(self):
        self._thread.join()
        self._pipe.close()


def newest_whole(folder: Path) -> Checkpoint:
    run, damaged = RunFolder(folder), []
    found = newest(run.checkpoints, ParameterLayout(run.config().model), damaged)
    assert damaged == []
    assert found is not None
    return found


def test_a_run_whose_disk_is_full_warns_goes_on_and_writes_again_when_it_is_not(processes):
    """Full, for one process: no file may grow beyond a thousand bytes."""
    address = f"ipc://{processes.folder}/socket"
    server = subprocess.Popen(
        words("server", "--listen", address, *RUN),
        cwd=processes.folder, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip
    server.log = processes.folder / "no-log"
    server.log.touch()
    processes.started.append(server)
    listener = Listener(server)
    worker = processes.start(*words("worker", "--server", address, "--processes", 1))

    def said(text, since=0):
        return [line for line in listener.lines[since:] if text in line]

    processes.until(lambda: len(said("checkpoint run/")) >= 3)
    resource.prlimit(server.pid, resource.RLIMIT_FSIZE, (1_000, resource.RLIM_INFINITY))
    refused = "could not be written: File too large"
    processes.until(lambda: said(f"{refused}; raise the largest size of a file (ulimit -f); training goes on"))
    with closing(Observer(address)) as observer:
        processes.until(lambda: observer.ask(PATIENCE)["checkpoint_failures"] >= 3)
    before = newest_whole(processes.folder / "run")
    processes.until(lambda: said(f"metrics.jsonl {refused}"))
    full_until = len(listener.lines)
    assert newest_whole(processes.folder / "run").version == before.version
    resource.prlimit(server.pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    processes.until(lambda: said("checkpoint run/", full_until) and said("metrics.jsonl is written again"))
    server.send_signal(signal.SIGTERM)
    assert server.wait(PATIENCE) == 0, "".join(listener.lines)
    assert worker.wait(PATIENCE) == 0, worker.log.read_text()
    listener.close()

    folder = RunFolder(processes.folder / "run")
    assert newest_whole(folder.path).version > before.version
    assert len(list(folder.checkpoints.iterdir())) == 3
    assert folder.tidy() == []
    lines = (folder.path / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["version"] for line in lines] == [line["version"] for line in folder.metrics()]
