"""Real processes: a median has the same bits whoever computes, and a faulty worker is put out of a run that goes on."""

import dataclasses
import os
import subprocess
import sys
from pathlib import Path

import invariance
import pytest

from ps_vae.train.plan import Wishes

STEPS = 300
WISHES = Wishes(data="digits", hidden=(24,), latent=4, steps=STEPS, batch_size=96, microbatch=16)


@pytest.mark.parametrize("aggregate", ["median", "trimmed:0.17"])
def test_a_run_by_two_workers_and_three_shards_is_bit_for_bit_that_of_one_loop_with_numpys_middle(aggregate):
    wishes = dataclasses.replace(WISHES, aggregate=aggregate)
    transport, run = invariance.ways(STEPS)["2 workers, 3 shards, tcp"]

    ours = invariance.run(wishes, transport, run)

    assert invariance.different(invariance.one_loop_in_a_fresh_process(wishes), ours) == []


def start_program(cluster, name, log):
    """A worker program of the tests; returns when it has joined."""
    with log.open("wb") as file:
        program = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name(name)), cluster.address],
            stdout=file,
            stderr=file,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
        )
    cluster.children.append(program)
    cluster.wait(lambda: "joined run" in log.read_text() or program.poll() is not None)
    return program


def test_a_worker_that_pushes_first_what_others_were_given_is_refused_and_the_bits_are_those_of_one_loop(tmp_path):
    wishes = dataclasses.replace(WISHES, aggregate="median")
    cluster = invariance.Cluster(tmp_path, wishes, "ipc")
    try:
        server = cluster.serve(2, "--await-workers", "3")
        hostile = start_program(cluster, "grabbing_worker.py", tmp_path / "hostile.txt")
        honest = [cluster.work() for _ in range(2)]
        cluster.finish(server, hostile, *honest)
        ours = cluster.outcome()
    finally:
        cluster.close()

    assert "not-yours: [" in cluster.logs(), (tmp_path / "hostile.txt").read_text()
    assert invariance.different(invariance.one_loop_in_a_fresh_process(wishes), ours) == []


def test_a_worker_that_sends_nan_and_says_nothing_is_put_out_and_the_bits_are_those_of_one_loop(tmp_path):
    cluster = invariance.Cluster(tmp_path, WISHES, "ipc")
    log = tmp_path / "faulty.txt"
    try:
        server = cluster.serve(2, "--await-workers", "3")
        faulty = start_program(cluster, "faulty_worker.py", log)
        honest = [cluster.work() for _ in range(2)]
        code = faulty.wait(60)
        cluster.finish(server, *honest)
        ours = cluster.outcome()
    finally:
        cluster.close()

    assert code == 3, log.read_text()
    assert "put-out: faulty is put out: 3 pieces of its work in a row could not be used" in log.read_text()
    assert "likelihood.bias" in cluster.logs()
    assert invariance.different(invariance.one_loop_in_a_fresh_process(WISHES), ours) == []
