"""`--communication auto` as a user runs it: real processes, a trial and a run at one address."""

import json
import signal

import pytest
from running import PATIENCE, Processes, words

SMALL = ["--data", "digits", "--hidden", "16", "--latent", "3", "--batch-size", "64", "--microbatch", "16"]


@pytest.fixture
def processes(tmp_path):
    running = Processes(tmp_path)
    yield running
    running.close()


def serve(processes, *more):
    """A server that chooses, and its only worker."""
    address = f"ipc://{processes.folder}/socket"
    server = processes.start(
        *words("server", "--listen", address, *SMALL, "--run-dir", "run", "--communication", "auto", *more)
    )
    return server, processes.start(*words("worker", "--server", address, "--processes", 1))


def test_a_run_that_chooses_says_where_it_is_before_it_measures_and_what_it_chose(processes):
    server, worker = serve(processes, "--steps", 200, "--json")
    for process in (server, worker):
        assert process.wait(PATIENCE) == 0, process.log.read_text()

    log = server.log.read_text()
    assert log.index("start workers with") < log.index("joined: worker") < log.index("\ncommunication: ")
    result = json.loads(log.splitlines()[-1])
    assert result["steps"] == result["version"]


def test_who_works_for_a_trial_that_is_stopped_ends_too(processes):
    server, worker = serve(processes, "--steps", 200, "--await-workers", 2)
    processes.said(worker, "joined run")
    server.send_signal(signal.SIGINT)
    assert server.wait(PATIENCE) == 1
    assert "nothing was written" in server.log.read_text()
    assert not (processes.folder / "run").exists()
    assert worker.wait(PATIENCE) == 0, worker.log.read_text()


def test_a_trial_in_which_gradients_are_not_finite_fails_as_the_run_would(processes):
    server, _ = serve(processes, "--steps", 200, "--optimizer", "sgd", "--learning-rate", 1e30)
    assert server.wait(PATIENCE) == 1
    last = server.log.read_text().splitlines()[-1]
    assert last.startswith("ps-vae: --communication auto could not measure: "), last
    assert "--learning-rate" in last
    assert not (processes.folder / "run").exists()
