"""Programs that take turns: what passes between them and the benchmark, and how they end."""

import os
import sys
import time
from pathlib import Path

import pytest
from exchange.turns import Orders, Program, timed
from programs import environment

PATIENCE = 20.0

ECHO = """
from exchange.turns import Orders, answer
orders = Orders()
while (order := orders.wait()) is not None:
    answer(order)
"""


def program(folder: Path, source: str) -> Program:
    (folder / "told_what_to_do.py").write_text(source)
    variables = environment()
    return Program(("told_what_to_do",), variables=variables | {"PYTHONPATH": f"{folder}:{variables['PYTHONPATH']}"})


def test_an_order_is_answered_and_the_next_one_too(tmp_path: Path) -> None:
    with program(tmp_path, ECHO) as echo:
        for order in ({"size": 1}, {"size": 2, "text": "x" * 100_000}):
            echo.tell(order)
            assert echo.answer(PATIENCE) == order


def test_a_program_ends_when_its_orders_do(tmp_path: Path) -> None:
    with program(tmp_path, ECHO) as echo:
        echo.tell({})
        echo.answer(PATIENCE)

    assert echo.process.returncode == 0


def test_one_that_does_not_listen_is_ended_with_what_it_has_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("exchange.turns._GRACE_SECONDS", 0.1)
    source = "import subprocess, sys, time; from exchange.turns import answer\n"
    source += "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])\n"
    source += "answer(child.pid); time.sleep(600)"

    with program(tmp_path, source) as deaf:
        child = deaf.answer(PATIENCE)
        os.kill(child, 0)

    assert deaf.process.returncode != 0
    # Killed it is; when it ends is up to the kernel.
    end = time.monotonic() + PATIENCE
    while not is_gone(child):
        assert time.monotonic() < end, f"process {child} runs on"
        time.sleep(0.01)


def test_one_that_fails_is_reported_with_its_last_words(tmp_path: Path) -> None:
    ending = pytest.raises(RuntimeError, match="told_what_to_do has ended: ValueError: no such thing")
    with program(tmp_path, "raise ValueError('no such thing')") as failing, ending:
        failing.answer(PATIENCE)


def test_one_that_does_not_answer_is_not_waited_for_longer_than_was_said(tmp_path: Path) -> None:
    with program(tmp_path, ECHO) as echo, pytest.raises(RuntimeError, match=r"did not answer within 0\.1 s"):
        echo.answer(0.1)


def test_orders_that_come_in_pieces_are_put_together() -> None:
    reading, writing = os.pipe()
    orders = Orders(reading)

    os.write(writing, b'{"count": 3}\n{"cou')
    assert orders.poll() == {"count": 3}
    assert orders.poll() is None
    os.write(writing, b'nt": 4}\n')
    assert orders.wait() == {"count": 4}
    os.close(writing)
    assert orders.wait() is None
    assert orders.have_ended
    os.close(reading)


def test_the_first_exchange_does_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    passes = iter([1000, 3, 4])
    now = [0]
    monkeypatch.setattr("time.perf_counter_ns", lambda: now[0])

    taken = timed(lambda: now.append(now.pop() + next(passes)), 2)

    assert taken == [3, 4]
    assert next(passes, None) is None


def is_gone(process: int) -> bool:
    """Ended, or a zombie that whoever adopted it has not collected yet."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z"
    except FileNotFoundError:
        return sys.platform == "linux"
