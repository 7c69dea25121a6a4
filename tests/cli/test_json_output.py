"""With `--json` standard output is one JSON object; without it, a table that holds the same figures."""

import json
from pathlib import Path
from typing import Any

import pytest

from ps_vae.cli.main import run
from ps_vae.cli.terminal import print_json
from ps_vae.ps import observer
from ps_vae.train import evaluation, local

RESULT: dict[str, Any] = {
    "run_dir": "runs/a",
    "steps": 500,
    "version": 500,
    "examples": 64_000,
    "seconds": 5.0,
    "examples_per_second": 12_800.0,
    "bytes_pushed": 1_280_000_000,
    "bytes_pulled": 2_560_000,
    "bytes_shared": 0,
    "bytes_dense": 2_565_120_000,
    "time": {"computing": 0.75, "encoding": 0.05, "waiting": 0.2},
    "elbo": -106.7,
    "validation": {"version": 500, "elbo": -107.25, "reconstruction": -80.0, "kl": 27.25},
    "best": {"version": 450, "elbo": -107.0},
    "stopped_early": False,
    "failed": False,
    "reason": "done",
}
STATE: dict[str, Any] = {
    "run": "00ff",
    "run_dir": "runs/a",
    "version": 250,
    "steps": 500,
    "consistency": "bsp",
    "phase": "training",
    "steps_per_second": 2.0,
    "reissued_blocks": 0,
    "backed_up_blocks": 0,
    "bytes_pushed": 12_000_000,
    "bytes_pulled": 13_000_000,
    "bytes_shared": 0,
    "bytes_dense": 25_000_000,
    "time": {"computing": 0.75, "encoding": 0.05, "waiting": 0.2},
    "worker_count": 2,
    "workers": [
        {
            "name": "host:17",
            "microbatches_per_second": None,
            "state": "working",
            "step": 250,
            "microbatches": 4,
            "lease_seconds": 8.25,
            "silent_seconds": 0.5,
            "refused": 2,
        },
        {
            "name": "host:18",
            "microbatches_per_second": 2.5,
            "state": "idle",
            "step": None,
            "microbatches": 0,
            "lease_seconds": None,
            "silent_seconds": 0.25,
            "refused": 0,
        },
    ],
    "evaluators": [{"name": "host:19", "version": 200}],
    "shards": [
        {"address": "tcp://*:5555", "up": True, "version": 250, "incarnation": 0}
        | {"follower": "joining", "lag": 1_200, "lag_seconds": 600.0, "follower_silent_seconds": 3.25},
    ],
    "elbo": None,
    "reconstruction": None,
    "kl": None,
    "validation": {},
    "examples_per_second": 256.0,
    "batch_size": 128,
    "seconds": 125.0,
    "duplicates": 1,
    "refused": {"malformed": 2, "stale": 1_000},
    "changes": {"joined": 5, "late": 1},
    "checkpoint": 200,
    "checkpoint_failures": 0,
}
EVALUATION: dict[str, Any] = {
    "split": "test",
    "examples": 500,
    "version": 500,
    "elbo": -106.7,
    "reconstruction": -80.7,
    "kl": 26.0,
    "active_units": 17,
    "kl_by_dimension": [1.3] * 20,
    "samples": 5000,
    "nll": 98.125,
    "nll_se": 0.0625,
    "effective_sample_size": 12.5,
}


@pytest.fixture
def stubs(monkeypatch: pytest.MonkeyPatch):
    """A run, an evaluation and a server that need no time."""

    class Cluster:
        """Trains in two polls; asked to stop, it has stopped."""

        def __init__(self, wishes: object, options: object, workers: int, *, say: Any) -> None:
            self.polls = 0

        def __enter__(self) -> "Cluster":
            return self

        def __exit__(self, *error: object) -> None:
            pass

        @property
        def is_done(self) -> bool:
            return self.polls == 2

        def poll(self) -> dict[str, Any] | None:
            self.polls += 1
            return STATE if self.polls == 2 else None

        def result(self) -> dict[str, Any]:
            return RESULT

    class Observer:
        def __init__(self, address: str, keys: None = None) -> None:
            pass

        def ask(self, timeout: float) -> dict[str, Any]:
            return STATE

        def close(self) -> None:
            pass

    def evaluate(run_dir: Path, **keywords: Any) -> dict[str, Any]:
        keywords["progress"](250, 500)
        keywords["say"]("the newest checkpoint is damaged")
        return EVALUATION

    monkeypatch.setattr(local, "LocalCluster", Cluster)
    monkeypatch.setattr(observer, "Observer", Observer)
    monkeypatch.setattr(evaluation, "evaluate", evaluate)


COMMANDS = [
    (["train", "--no-pictures"], RESULT),
    (["evaluate", "runs/a", "--samples", "5000"], EVALUATION),
    (["status", "tcp://127.0.0.1:1"], STATE),
]


@pytest.mark.parametrize(("command", "expected"), COMMANDS)
def test_json_is_the_only_thing_on_standard_output(stubs, capsys, command: list[str], expected: dict[str, Any]) -> None:
    assert run([*command, "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == expected


@pytest.mark.parametrize(
    ("command", "figures"),
    [
        (
            COMMANDS[0][0],
            [
                "runs/a",
                "500 of 500",
                "64,000",
                "12,800",
                "1,280 MB",
                "20,000 bytes",
                "2.0 times fewer",
                "75% computing",
                "-106.700",
            ],
        ),
        (COMMANDS[1][0], ["500 of test", "-106.700", "-80.700", "26.000", "98.125 ± 0.062", "12.5 of 5,000"]),
        (
            COMMANDS[2][0],
            [
                "250 of 500",
                "2:05 left",
                "256 examples/s",
                "12.0 MB",
                "2 workers",
                "host:17",
                "4 of step 250, 8.2 s left",
                "host:19",
                "version 200",
                "5 joined, 1 late",
                "0 blocks given out again, 1 push counted already",
                "2 malformed, 1,000 stale",
                "tcp://*:5555",
                "follower joining, 1,200 behind (600.0 s), silent for 3.2 s",
                "20% waiting",
            ],
        ),
    ],
)
def test_the_table_holds_the_figures(stubs, capsys, command: list[str], figures: list[str]) -> None:
    assert run(command) == 0
    out = capsys.readouterr().out
    assert [figure for figure in figures if figure not in out] == []


def test_progress_without_a_terminal_is_a_line_on_standard_error(stubs, capsys) -> None:
    run(["train", "--no-pictures", "--json"])

    assert capsys.readouterr().err == (
        "step 250 of 500: 256 examples/s, pushed 12.0 MB, pulled 13.0 MB, 2 workers, 2:05 left\n"
    )


def test_a_run_that_failed_prints_its_figures_and_says_why(stubs, capsys, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(RESULT, "failed", True)
    monkeypatch.setitem(RESULT, "reason", "a shard was lost; continue with --resume")

    assert run(["train", "--json"]) == 1
    out, err = capsys.readouterr()
    assert json.loads(out) == RESULT
    assert err.endswith("ps-vae: a shard was lost; continue with --resume\n")


def test_a_run_that_was_stopped_says_how_to_go_on(stubs, capsys, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(RESULT, "version", 300)

    assert run(["train", "--no-pictures"]) == 0
    assert "ps-vae train --resume --run-dir runs/a" in capsys.readouterr().out


def test_without_matplotlib_the_run_still_succeeds(stubs, capsys, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ps_vae.cli.output.find_spec", lambda name: None)

    assert run(["train", "--json"]) == 0
    out, err = capsys.readouterr()
    assert json.loads(out) == RESULT
    assert err.endswith("pip install 'ps_vae[demo]'\n")


def test_without_matplotlib_a_picture_that_was_asked_for_is_refused(capsys, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ps_vae.cli.output.find_spec", lambda name: None)

    assert run(["sample", "runs/a", "--output", "a.png"]) == 2
    assert capsys.readouterr().err == (
        "ps-vae: pictures need matplotlib: pip install 'ps_vae[demo]', or give --output FILE.npy\n"
    )


def test_what_is_no_number_is_null(capsys) -> None:
    print_json({"elbo": float("nan"), "validation": {"kl": float("inf")}, "all": [1.5, float("-inf")]})

    assert capsys.readouterr().out == '{"elbo": null, "validation": {"kl": null}, "all": [1.5, null]}\n'
