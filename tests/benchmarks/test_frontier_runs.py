"""Programs on hosts: how they are watched, what their interfaces count, and whole runs of ours, here on one host."""

import os
import select
import socket
from pathlib import Path

import numpy as np
import pytest
from exchange.nodes import HERE, Node
from models import MODELS
from pareto.host_process import HostProcess, wait_for
from pareto.job import Job
from pareto.ours import run_ours
from pareto.scoring import score
from pareto.traffic import traffic
from programs import environment

from ps_vae.data import gather, load
from ps_vae.nn.noise import Stream, standard_normal
from ps_vae.vae.initial import initial_weights
from ps_vae.vae.layout import ParameterLayout

PATIENCE = 60.0
HERE_TWICE = (HERE, HERE)


def test_a_program_answers_with_its_last_line(tmp_path: Path) -> None:
    with started(tmp_path, "print('loading'); print('{\"elbo\": -1.0}')") as program:
        wait_for(lambda: program.code == 0, [program], patience=PATIENCE)

        assert program.answer() == {"elbo": -1.0}


def test_a_program_that_fails_ends_the_waiting_with_its_last_words(tmp_path: Path) -> None:
    with (
        started(tmp_path, "import sys; sys.exit('ps-vae: No such option: --fast\\n')") as program,
        pytest.raises(RuntimeError, match=r"^measured: No such option: --fast$"),
    ):
        wait_for(lambda: False, [program], patience=PATIENCE)


def test_a_program_without_an_answer_says_so_by_its_words(tmp_path: Path) -> None:
    with started(tmp_path, "import sys; print('nothing to tell', file=sys.stderr)") as program:
        wait_for(lambda: program.code == 0, [program], patience=PATIENCE)

        with pytest.raises(RuntimeError, match="measured: nothing to tell"):
            program.answer()


def test_silence_of_all_programs_ends_the_waiting(tmp_path: Path) -> None:
    now = 0.0

    def pause(seconds: float) -> None:
        nonlocal now
        now += 10.0

    nobody_writes = "import os; os.read(os.pipe()[0], 1)"
    with (
        started(tmp_path, nobody_writes) as program,
        pytest.raises(RuntimeError, match="nothing was heard for 30 s: measured: exit code None"),
    ):
        wait_for(lambda: False, [program], patience=30.0, clock=lambda: now, pause=pause)


def test_a_program_that_ignores_that_it_should_end_is_gone_after_its_context(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pareto.host_process._GRACE_SECONDS", 0.1)
    alive = tmp_path / "alive"
    os.mkfifo(alive)
    ear = os.open(alive, os.O_RDONLY | os.O_NONBLOCK)
    program = f"""
import os, signal
signal.signal(signal.SIGTERM, signal.SIG_IGN)
mouth = open({str(alive)!r}, "wb", buffering=0)
mouth.write(b"up")
os.read(os.pipe()[0], 1)
"""

    with started(tmp_path, program):
        heard = select.poll()
        heard.register(ear, select.POLLIN)
        assert heard.poll(60_000), "it did not start"
        assert os.read(ear, 2) == b"up"

    end = select.poll()
    end.register(ear, select.POLLHUP)
    assert end.poll(60_000), "it runs on"
    os.close(ear)


def test_bytes_of_an_interface_are_counted_in_both_directions() -> None:
    (before,) = traffic([HERE])
    with socket.create_server(("127.0.0.1", 0)) as door, socket.create_connection(door.getsockname()) as near:
        far, _ = door.accept()
        with far:
            near.sendall(bytes(30_000))
            received = 0
            while received < 30_000:
                received += len(far.recv(1 << 16))
    (after,) = traffic([HERE])

    spent = after - before
    # What `lo` sends it receives.
    assert spent.sent >= 30_000
    assert spent.both == spent.sent + spent.received >= 60_000


def test_an_interface_that_is_not_there_is_told() -> None:
    with pytest.raises(RuntimeError, match="psb-none/statistics/tx_bytes"):
        traffic([Node("127.0.0.1", "psb-none")])


def test_a_run_to_the_end_tells_bytes_examples_and_the_test_elbo() -> None:
    job = Job("digits", 1, rows=64, epochs=1.0, hidden=8, latent=2)

    steps = 20

    found = run_ours((), job, HERE_TWICE, environment(), report_every=1, steps=steps)

    parameters = 64 * 8 + 8 + 8 * 4 + 4 + 2 * 8 + 8 + 8 * 64 + 64
    assert found["examples"] == pytest.approx(steps * 64)
    # `lo` counts what it sends once more as received.
    assert found["bytes"] >= 2 * steps * 2 * 4 * parameters
    assert -64.0 < found["elbo"] < 0.0
    assert found["examples_per_second"] > 0.0


def test_a_timed_run_is_stopped_and_has_no_elbo() -> None:
    job = Job("digits", 1, rows=64, seconds=0.2, hidden=8, latent=2)

    found = run_ours((), job, HERE_TWICE, environment(), report_every=1, steps=None)

    assert found["elbo"] is None
    assert found["seconds"] >= 0.2
    assert found["examples"] == pytest.approx(64 * found["exchanges"])


def test_an_option_that_this_version_does_not_know_fails_with_the_words() -> None:
    job = Job("digits", 1, rows=64, epochs=1.0, hidden=8, latent=2)

    with pytest.raises(RuntimeError, match="server: No such option: --by-pigeon"):
        run_ours(("--by-pigeon", "4"), job, HERE_TWICE, environment(), report_every=1, steps=1)


def test_weights_of_other_systems_are_scored_by_the_elbo_of_the_test_rows() -> None:
    layout = ParameterLayout(MODELS["relu"].config)
    weights = layout.views(initial_weights(layout, 3))
    test = load("mnist-5k").test
    rows = np.arange(len(test), dtype=np.int64)
    x = gather(test, rows, np.empty((len(test), 784), np.float32)).astype(float)
    noise = np.empty((len(test), 20), np.float32)
    standard_normal(noise, seed=3, stream=Stream.EVALUATION, step=0, rows=rows)

    found = score(weights, "mnist-5k", 3)

    w = {name: array.astype(float) for name, array in weights.items()}
    hidden = np.maximum(x @ w["encoder.0.weight"] + w["encoder.0.bias"], 0)
    mean, v = np.split(hidden @ w["posterior.weight"] + w["posterior.bias"], 2, axis=1)
    v = v + np.logaddexp(0, -20 - v) - np.logaddexp(0, v - 10)
    back = np.maximum((mean + np.exp(v / 2) * noise) @ w["decoder.0.weight"] + w["decoder.0.bias"], 0)
    a = back @ w["likelihood.weight"] + w["likelihood.bias"]
    likelihood = (a * x - np.logaddexp(0, a)).sum(axis=1).mean()
    kl = (0.5 * (mean**2 + np.exp(v) - 1 - v)).sum(axis=1).mean()
    assert found["reconstruction"] == pytest.approx(likelihood, rel=1e-5)
    assert found["kl"] == pytest.approx(kl, rel=1e-5)
    assert found["elbo"] == pytest.approx(likelihood - kl, rel=1e-5)


def started(folder: Path, program: str) -> HostProcess:
    """The source of a program, running."""
    (folder / "measured.py").write_text(program)
    variables = {**os.environ, "PYTHONPATH": str(folder), "PYTHONDONTWRITEBYTECODE": "1"}
    return HostProcess(("measured",), HERE, name="measured", folder=folder, variables=variables)
