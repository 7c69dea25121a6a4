"""Runs that other hosts may reach, as a user starts them: keys let in, are taken away, and are asked for."""

import json
import socket
import subprocess

import pytest
from running import PATIENCE, Processes, words

SMALL = ["--data", "digits", "--hidden", "8", "--latent", "2", "--batch-size", "64", "--microbatch", "16"]
LISTENING = "listening on "


@pytest.fixture
def processes(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    running = Processes(tmp_path)
    yield running
    running.close()


def run(processes, *arguments):
    done = subprocess.run(
        words(*arguments), cwd=processes.folder, capture_output=True, text=True, timeout=PATIENCE, check=False
    )
    return done.returncode, done.stdout, done.stderr


def told(processes, server, mark, end):
    processes.said(server, mark)
    return server.log.read_text().split(mark, 1)[1].split(end, 1)[0]


def status(processes, address, *more):
    code, out, _ = run(processes, "status", address, "--json", "--timeout", 60, *more)
    return json.loads(out) if code == 0 else None


def test_a_run_of_two_servers_lets_in_who_is_allowed_and_cuts_off_who_no_longer_is(processes):
    assert run(processes, "keys", "new")[0] == 0
    assert run(processes, "keys", "new", "ann")[0] == 0
    assert run(processes, "keys", "allow", "ann")[0] == 0
    stays = ["--listen", "tcp://0.0.0.0:*", "--shards", 2, "--steps", 1_000_000, "--run-dir", "run"]
    server = processes.start(*words("server", *SMALL, *stays))
    port = told(processes, server, LISTENING, ";").rsplit(":", 1)[1]
    assert "is for those who are allowed in" in server.log.read_text()
    address = f"tcp://127.0.0.1:{port}"
    worker = ["worker", "--server", address, "--processes", 1]
    # Over the loopback interface, without a word about keys, and with one.
    good = processes.start(*words(*worker))
    doomed = processes.start(*words(*worker, "--key", "ann"))
    stranger = processes.start(*words(*worker, "--insecure", "--connect-timeout", 3))
    processes.until(lambda: len((status(processes, address) or {"workers": ()})["workers"]) == 2)

    assert stranger.wait(PATIENCE) == 1
    assert "give the folder of yours with --keys" in stranger.log.read_text()
    assert run(processes, "keys", "revoke", "ann")[0] == 0
    assert doomed.wait(PATIENCE) == 1
    assert "your key is not allowed here any more" in doomed.log.read_text()
    before = status(processes, address, "--keys", processes.folder / ".config" / "ps-vae" / "keys")
    processes.until(lambda: status(processes, address)["version"] > before["version"])
    assert len(before["workers"]) == 1
    server.terminate()
    assert server.wait(PATIENCE) == good.wait(PATIENCE) == 0


def test_a_cluster_of_one_command_that_others_may_help_has_keys_too(processes):
    assert run(processes, "keys", "new")[0] == 0
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"tcp://0.0.0.0:{probe.getsockname()[1]}"

    code, out, err = run(
        *(processes, "train", *SMALL, "--steps", 30, "--listen", address, "--workers", 1, "--run-dir", "run"),
        *("--no-pictures", "--json"),
    )

    assert code == 0, err
    assert json.loads(out)["version"] == 30
    assert "is for those who are allowed in" in (processes.folder / "run" / "logs" / "server.log").read_text()
