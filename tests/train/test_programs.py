"""The programs as a user runs them: real processes, real sockets, real files."""

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from running import PATIENCE, Processes, words
from safetensors.numpy import load_file

ROOT = Path(__file__).resolve().parents[2]
SMALL = ["--data", "digits", "--hidden", "16", "--latent", "3", "--batch-size", "64", "--microbatch", "16"]
LONG = ["--steps", "100000", "--checkpoint-every", "200"]


def run(*arguments, cwd):
    return subprocess.run(words(*arguments), cwd=cwd, capture_output=True, text=True, timeout=PATIENCE, check=False)


@pytest.fixture
def processes(tmp_path):
    running = Processes(tmp_path)
    yield running
    running.close()


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def one_line(finished):
    """The error that a command ended with: exactly one line on stderr begins with its name."""
    lines = [line for line in finished.stderr.splitlines() if line.startswith("ps-vae: ")]
    assert len(lines) == 1, finished.stderr
    assert "Traceback" not in finished.stderr
    return lines[0]


def test_train_trains_draws_and_prints_one_json_object(tmp_path):
    done = run("train", *SMALL, "--steps", 60, "--run-dir", "run", "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    contract = "run_dir steps examples seconds examples_per_second bytes_pushed bytes_pulled elbo"
    assert set(contract.split()) <= set(result)
    assert result["steps"] == 60
    pictures = {path.name for path in (tmp_path / "run" / "pictures").iterdir()}
    assert pictures == {"loss.png", "reconstructions.png", "samples.png"}
    tensors = load_file(tmp_path / "run" / "checkpoints" / "step-00000060.safetensors")
    assert tensors["encoder.0.weight"].shape == (64, 16)
    assert tensors["posterior.bias"].shape == (6,)
    # Dense pushes and pulls: every step sends each block's gradient and takes each worker's weights.
    assert result["bytes_pushed"] >= 60 * 4 * sum(t.size for n, t in tensors.items() if "/" not in n and n != "metrics")

    evaluated = json.loads(run("evaluate", "run", "--json", "--samples", 20, "--processes", 2, cwd=tmp_path).stdout)
    assert evaluated["elbo"] == pytest.approx(evaluated["reconstruction"] - evaluated["kl"])
    # log p(x) >= ELBO in expectation; after 60 steps the bound is not tight to within its noise
    assert -evaluated["nll"] > evaluated["elbo"]
    assert run("encode", "run", "--output", "z.npy", cwd=tmp_path).returncode == 0
    assert np.load(tmp_path / "z.npy").shape == (evaluated["examples"], 3)


def test_by_hand_workers_may_come_before_the_server_and_status_tells_of_them(processes):
    address = f"tcp://127.0.0.1:{free_port()}"
    workers = [
        processes.start(sys.executable, ROOT / "bin" / "start-worker", "--server", address, "--processes", 1)
        for _ in range(2)
    ]
    for worker in workers:
        processes.said(worker, "waiting for a server")
    server = processes.start(
        sys.executable,
        ROOT / "bin" / "start-server",
        "--listen",
        address,
        *SMALL,
        "--steps",
        100_000,
        "--run-dir",
        "run",
    )

    def both_work():
        state = json.loads(run("status", address, "--json", "--timeout", 60, cwd=processes.folder).stdout)
        return len(state["workers"]) == 2 and state["version"] > 100

    processes.until(both_work)
    server.terminate()
    for process in (server, *workers):
        assert process.wait(PATIENCE) == 0, process.log.read_text()
    newest = max((processes.folder / "run" / "checkpoints").iterdir())
    assert f"checkpoint run/checkpoints/{newest.name}" in server.log.read_text()


def test_a_shard_joins_from_elsewhere_and_ends_with_the_run(processes):
    address = f"tcp://127.0.0.1:{free_port()}"
    start = [sys.executable, ROOT / "bin" / "start-server"]
    server = processes.start(
        *start, "--listen", address, "--remote-shards", 1, *SMALL, "--steps", 50, "--run-dir", "run"
    )
    worker = processes.start(*words("worker", "--server", address, "--processes", 1))
    processes.said(server, "waiting for 1 more shard")
    shard = processes.start(*start, "--join", address)
    for process in (server, shard, worker):
        assert process.wait(PATIENCE) == 0, process.log.read_text()
    assert "parameters" in shard.log.read_text()


def test_a_worker_that_is_killed_is_started_again_and_all_end_with_the_run(processes):
    address = f"ipc://{processes.folder}/socket"
    server = processes.start(*words("server", "--listen", address, *SMALL, "--steps", 100_000, "--run-dir", "run"))
    node = processes.start(*words("worker", "--server", address, "--processes", 2))

    def children():
        found = subprocess.run(["pgrep", "-P", str(node.pid)], capture_output=True, text=True, check=False)
        return {int(pid) for pid in found.stdout.split()}

    processes.until(lambda: "2 workers" if server.log.read_text().count("joined: worker") >= 2 else "")
    victim = min(children())
    os.kill(victim, signal.SIGKILL)
    processes.until(lambda: server.log.read_text().count("joined: worker") >= 3)
    assert victim not in children()
    last = children()
    server.send_signal(signal.SIGINT)
    for process in (server, node):
        assert process.wait(PATIENCE) == 0, process.log.read_text()
    assert not any(Path(f"/proc/{pid}").exists() for pid in last)


def test_train_stops_cleanly_on_a_signal_and_resumes_where_it_was(processes):
    train = processes.start(*words("train", *SMALL, *LONG, "--run-dir", "run", "--json", "--no-pictures"))
    checkpoints = processes.folder / "run" / "checkpoints"
    processes.until(lambda: checkpoints.is_dir() and any(checkpoints.glob("step-*.safetensors")))
    train.send_signal(signal.SIGINT)
    assert train.wait(PATIENCE) == 0, train.log.read_text()
    stopped_at = json.loads(train.log.read_text().splitlines()[-1])["version"]
    assert 0 < stopped_at < 100_000
    more = stopped_at + 40
    resumed = run(
        "train", "--resume", "--run-dir", "run", "--steps", more, "--workers", 1, "--json", "--no-pictures",
        cwd=processes.folder,
    )  # fmt: skip
    assert json.loads(resumed.stdout)["version"] == more
    versions = [
        json.loads(line)["version"]
        for line in (processes.folder / "run" / "metrics.jsonl").read_text().splitlines()
        if '"training"' in line
    ]
    assert versions == sorted(set(versions))
    assert versions[-1] == more


def test_what_is_wrong_is_said_in_one_line_and_nothing_is_left_behind(tmp_path):
    (tmp_path / "short.idx").write_bytes(b"\x00\x00\x08\x03" + (1000).to_bytes(4, "big") * 3 + b"123")
    np.save(tmp_path / "objects.npy", np.array([{"a": 1}], object), allow_pickle=True)
    holes = np.ones((50, 4), np.float32)
    holes[7, 2] = np.nan
    np.save(tmp_path / "holes.npy", holes)
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "thesis.txt").write_text("years of work")
    cases = [
        (2, ["train", "--data", "nmist"], ["nmist", "mnist-5k"]),
        (2, ["train", *SMALL, "--run-dir", "taken"], ["taken", "--resume"]),
        (1, ["server", "--data", "short.idx"], ["short.idx"]),
        (1, ["server", "--data", "objects.npy"], ["objects.npy", "object"]),
        (1, ["server", "--data", "holes.npy"], ["holes.npy", "nan", "7"]),
        (2, ["server", *SMALL, "--microbatch", "24"], ["--microbatch 24"]),
        (2, ["train", *SMALL, "--backup-workers", "2", "--consistency", "asp"], ["--backup-workers 2", "bsp", "asp"]),
        (2, ["server", *SMALL, "--aggregate", "median", "--communication", "auto"], ["auto", "--aggregate median"]),
        (2, ["server", "--resume", "--run-dir", "nowhere"], ["nowhere", "run.json"]),
        (1, ["worker", "--server", "tcp://127.0.0.1:1", "--connect-timeout", "1.5", "--processes", "1"], ["1.5 s"]),
        (2, ["status", "localhost:5555"], ["tcp://"]),
    ]
    before = sorted(tmp_path.rglob("*"))
    for code, arguments, expected in cases:
        done = run(*arguments, cwd=tmp_path)
        assert done.returncode == code, (arguments, done.stderr)
        line = one_line(done).lower()
        assert all(part.lower() in line for part in expected), line
    assert sorted(tmp_path.rglob("*")) == before


def test_a_port_in_use_is_said(tmp_path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        done = run("server", "--listen", f"tcp://127.0.0.1:{port}", *SMALL, "--run-dir", "run", cwd=tmp_path)
    assert done.returncode == 1
    assert "in use" in one_line(done)
    assert not (tmp_path / "run").exists()


def test_a_checkpoint_of_another_model_is_refused_and_a_damaged_one_is_passed_over(tmp_path):
    for name, hidden in (("one", 16), ("other", 24)):
        arguments = [*SMALL, "--hidden", hidden, "--steps", 40, "--checkpoint-every", 20, "--no-pictures"]
        assert run("train", *arguments, "--run-dir", name, cwd=tmp_path).returncode == 0
    newest = tmp_path / "one" / "checkpoints" / "step-00000040.safetensors"
    whole = newest.read_bytes()

    foreign = (tmp_path / "other" / "checkpoints" / newest.name).read_bytes()
    newest.write_bytes(foreign)
    refused = run("train", "--resume", "--run-dir", "one", "--steps", 60, cwd=tmp_path)
    assert refused.returncode == 1
    assert "(64, 24)" in one_line(refused)
    assert "(64, 16)" in one_line(refused)

    newest.write_bytes(whole[:-100] + bytes([whole[-100] ^ 1]) + whole[-99:])
    resumed = run("train", "--resume", "--run-dir", "one", "--steps", 60, "--no-pictures", cwd=tmp_path)
    assert resumed.returncode == 0, resumed.stderr
    log = (tmp_path / "one" / "logs" / "server.log").read_text()
    assert "damaged" in log
    assert "continued from version 20" in log


@pytest.mark.parametrize("consistency", ["ssp:2", "asp"])
def test_asynchronous_runs_end_with_every_step_and_record_their_staleness(tmp_path, consistency):
    arguments = [*SMALL, "--consistency", consistency, "--steps", 300, "--report-every", 1, "--workers", 3]
    done = run("train", *arguments, "--run-dir", "run", "--no-pictures", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    staleness = [line["staleness"] for line in lines if line["kind"] == "training"]
    assert len(staleness) == 300
    assert max(staleness) <= 2 or consistency == "asp"


def test_runs_with_a_codec_push_so_much_less_and_train(tmp_path):
    # A step is one microbatch, and so one push a shard, whoever has it.
    arguments = [*SMALL, "--hidden", 200, "--microbatch", 64, "--steps", 60, "--report-every", 10, "--shards", 2]
    pushed = {}
    for codec in ("none", "int8", "onebit"):
        done = run(
            "train", *arguments, "--no-pictures", "--json", "--push-codec", codec, "--run-dir", codec, cwd=tmp_path
        )
        assert done.returncode == 0, done.stderr
        end = json.loads(done.stdout)
        assert end["version"] == 60
        pushed[codec] = end["bytes_pushed"]
        lines = [json.loads(line) for line in (tmp_path / codec / "metrics.jsonl").read_text().splitlines()]
        elbos = [line["elbo"] for line in lines if line["kind"] == "training"]
        assert elbos[-1] > elbos[0]

    assert pushed["int8"] < 0.28 * pushed["none"]
    assert pushed["onebit"] < 0.06 * pushed["none"]


def test_runs_that_push_factors_have_the_bits_of_one_that_pushes_gradients(tmp_path):
    # Of 64 x 120 and 120 x 64 two to four microbatches go as factors, of what three shards hold of them mostly too.
    arguments = [*SMALL, "--hidden", 120, "--batch-size", 16, "--microbatch", 4, "--steps", 60, "--no-pictures"]
    pushed, tensors = {}, {}
    for codec, shards in (("none", 1), ("factors", 1), ("factors", 3)):
        folder = f"{codec}-{shards}"
        done = run(
            "train", *arguments, "--push-codec", codec, "--shards", shards, "--run-dir", folder, "--json", cwd=tmp_path
        )
        assert done.returncode == 0, done.stderr
        pushed[folder] = json.loads(done.stdout)["bytes_pushed"]
        tensors[folder] = load_file(tmp_path / folder / "checkpoints" / "step-00000060.safetensors")

    for folder in ("factors-1", "factors-3"):
        assert pushed[folder] < 0.8 * pushed["none-1"]
        assert tensors[folder].keys() == tensors["none-1"].keys()
        for name, expected in tensors["none-1"].items():
            np.testing.assert_array_equal(tensors[folder][name], expected, name)


def test_an_asynchronous_run_pushes_factors_and_trains(tmp_path):
    arguments = [*SMALL, "--hidden", 120, "--microbatch", 8, "--steps", 60, "--report-every", 10, "--shards", 2]
    done = run(
        "train", *arguments, "--no-pictures", "--push-codec", "factors", "--consistency", "asp", "--run-dir", "run",
        cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    training = [line for line in lines if line["kind"] == "training"]
    assert training[-1]["version"] == 60
    assert training[-1]["elbo"] > training[0]["elbo"]
