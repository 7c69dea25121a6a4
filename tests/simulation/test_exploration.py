"""Random runs: members, network and misfortunes drawn from a seed; every run ends, and ends right."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from simulation.exploration import run_seed

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("first", range(0, 500, 25))
def test_any_run_keeps_its_promises_and_ends(first):
    for seed in range(first, first + 25):
        outcome = run_seed(seed)
        assert outcome.error is None, outcome.text


def replay(seed, hash_seed):
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONHASHSEED": hash_seed}
    command = [sys.executable, "-m", "tests.simulation", "--seed", str(seed)]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_a_seed_gives_the_same_transcript_in_any_process():
    lines = run_seed(75, with_lines=True).lines

    assert len(lines) > 1000
    assert replay(75, "1")[: len(lines)] == lines
    assert replay(75, "2")[: len(lines)] == lines


def test_seeds_differ():
    assert run_seed(1, with_lines=True).lines != run_seed(2, with_lines=True).lines


def test_the_seeds_of_the_suite_have_every_misfortune():
    """Some hundred runs without any partition would prove little."""
    outcomes = [run_seed(seed, with_lines=True) for seed in range(60)]
    told = "\n".join(line for outcome in outcomes for line in outcome.lines)

    assert sum(outcome.backed_up for outcome in outcomes) > 0
    for misfortune in (
        "is killed, and nobody is told",
        "is killed, and its connections break",
        "is started again",
        "worker-1                  is paused",
        "server-0                  is paused",
        "server-1                  is paused",
        "server-0                  finds its clock",
        "worker-1                  finds its clock",
        "parts worker",
        "parts server",
        "break",
        "lost: the network",
        "lost: a partition",
        "lost: a connection that is gone",
        "is not there for a message",
        "gives up: ",
    ):
        assert misfortune in told, misfortune


def test_servers_that_follow_have_every_misfortune():
    told = "\n".join(line for seed in (382, 463) for line in run_seed(seed, with_lines=True).lines)

    for misfortune in (
        r"server-\d +is killed, and nobody is told",
        r"server-\d +is killed, and its connections break",
        r"server-\d +is started again",
        r"server-\d +leads shard 1 from version",
        r"server-\d +joins again: deposed",
        r"server-\d +joins again: bad-shard",
        "error not-following",
    ):
        assert re.search(misfortune, told), misfortune
