"""Ways of communicating, as a user runs them: real processes, real sockets, real files."""

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from running import PATIENCE, Processes, words
from safetensors.numpy import load_file

SMALL = ["--data", "digits", "--hidden", 32, "--latent", 3, "--batch-size", 64, "--no-pictures"]
FEW = ["--local-steps", 4, "--push-codec", "int8", "--pull-codec", "update:int8"]


def train(folder: Path, name: str, *arguments: object) -> dict:
    done = subprocess.run(
        words("train", *SMALL, "--run-dir", name, "--json", *arguments),
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    (folder / f"{name}.stderr").write_text(done.stderr)
    return json.loads(done.stdout)


def weights(folder: Path, name: str) -> dict[str, np.ndarray]:
    return load_file(max((folder / name / "checkpoints").iterdir()))


@pytest.fixture
def processes(tmp_path: Path) -> Iterator[Processes]:
    running = Processes(tmp_path)
    yield running
    running.close()


def test_local_steps_in_eight_bits_both_ways_send_so_much_less_and_train(tmp_path: Path) -> None:
    # One worker: how many pushes make a step depends on who is there.
    common = ["--workers", 1, "--microbatch", 32, "--epochs", 8, "--shards", 2, "--report-every", 5]
    ends = {name: train(tmp_path, name, *common, *options) for name, options in (("dense", []), ("few", FEW))}

    assert ends["few"]["steps"] == -(-ends["dense"]["steps"] // 4)
    assert ends["few"]["bytes_dense"] == pytest.approx(ends["dense"]["bytes_dense"], rel=0.05)
    sent = {name: end["bytes_pushed"] + end["bytes_pulled"] for name, end in ends.items()}
    # Of some 7,000 parameters headers and the first weights are a part; 16 by the formula.
    assert sent["few"] < sent["dense"] / 8
    assert set(ends["few"]["time"]) == {"computing", "encoding", "waiting"}
    assert sum(ends["few"]["time"].values()) == pytest.approx(1.0, abs=1e-3)
    lines = [json.loads(line) for line in (tmp_path / "few" / "metrics.jsonl").read_text().splitlines()]
    elbos = [line["elbo"] for line in lines if line["kind"] == "training"]
    assert elbos[-1] > elbos[0]


@pytest.mark.parametrize("options", [["--delay", 1], ["--pull-codec", "update:onebit"], ["--pull-codec", "int8"]])
def test_who_computes_does_not_matter_where_workers_keep_nothing(tmp_path: Path, options: list[object]) -> None:
    for workers in (1, 3):
        train(tmp_path, f"by-{workers}", "--microbatch", 8, "--steps", 60, "--workers", workers, *options)

    one, three = weights(tmp_path, "by-1"), weights(tmp_path, "by-3")
    assert one.keys() == three.keys()
    for name, array in one.items():
        np.testing.assert_array_equal(array, three[name], err_msg=name)


def test_a_worker_that_is_killed_and_one_that_joins_leave_a_run_with_residuals_and_inner_state_whole(
    processes: Processes,
) -> None:
    address = f"ipc://{processes.folder}/socket"
    run = ["--run-dir", "run", "--steps", 400, "--microbatch", 16, "--report-every", 1]
    stateful = ["--local-steps", 2, "--push-codec", "onebit", "--pull-codec", "update:onebit", "--outer-momentum", 0]
    server = processes.start(*words("server", "--listen", address, *SMALL[:-1], *run, *stateful))
    work = words("worker", "--as-child", "--server", address)
    first = processes.start(*work)
    processes.start(*work)
    metrics = processes.folder / "run" / "metrics.jsonl"
    processes.until(lambda: metrics.exists() and len(metrics.read_text().splitlines()) > 40)
    os.kill(first.pid, signal.SIGKILL)
    processes.start(*work)

    assert server.wait(PATIENCE) == 0, server.log.read_text()
    lines = [json.loads(line) for line in metrics.read_text().splitlines()]
    assert [line["version"] for line in lines if line["kind"] == "training"] == list(range(1, 401))


def test_a_resumed_run_may_have_other_codecs(tmp_path: Path) -> None:
    train(tmp_path, "run", "--microbatch", 32, "--steps", 20, *FEW)
    resumed = subprocess.run(
        words(
            *("train", "--resume", "--run-dir", "run", "--steps", 40, "--push-codec", "onebit"),
            *("--pull-codec", "update:onebit", "--no-pictures", "--json"),
        ),
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert resumed.returncode == 0, resumed.stderr
    assert json.loads(resumed.stdout)["version"] == 40
    assert json.loads((tmp_path / "run" / "run.json").read_text())["config"]["push_codec"] == "onebit"


@pytest.mark.parametrize("consistency", ["bsp", "asp"])
def test_automatic_communication_says_what_it_chose_and_why_and_trains_from_the_start(
    tmp_path: Path, consistency: str
) -> None:
    end = train(
        tmp_path,
        "run",
        *("--communication", "auto", "--await-workers", 2, "--epochs", 4, "--microbatch", 32),
        *("--consistency", consistency, "--report-every", 1),
    )

    log = (tmp_path / "run" / "logs" / "server.log").read_text()
    (line,) = [line for line in log.splitlines() if line.startswith("communication: ")]
    assert (tmp_path / "run.stderr").read_text().splitlines().count(line) == 1
    assert "2 workers; as it is " in line
    config = json.loads((tmp_path / "run" / "run.json").read_text())["config"]
    chosen = [f"--{name.replace('_', '-')} {config[name]}" for name in ("local_steps", "push_codec", "pull_codec")]
    assert "left as it is" in line or chosen[1] in line
    assert "left as it is" in line or chosen[2] in line
    assert config["local_steps"] == 0 or chosen[0] in line
    rows = config["batch_size"] * max(1, config["local_steps"])
    assert end["steps"] == -(-4 * config["train_rows"] // rows)
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [line["version"] for line in lines if line["kind"] == "training"] == list(range(1, end["steps"] + 1))


@pytest.mark.parametrize(
    ("options", "why"),
    [
        (["--push-codec", "int8"], "chooses --push-codec itself"),
        (["--local-steps", "8"], "chooses --local-steps itself"),
        (["--resume", "--run-dir", "run"], "for the start of a run"),
    ],
)
def test_automatic_communication_is_refused_where_something_is_said_already(
    tmp_path: Path, options: list[str], why: str
) -> None:
    done = subprocess.run(
        words("train", "--communication", "auto", *options),
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode == 2
    assert why in done.stderr
