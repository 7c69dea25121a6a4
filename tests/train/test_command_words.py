"""What a local run tells its server in words is what the user wished."""

import dataclasses
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from ps_vae.cli.main import run
from ps_vae.nn.activations import ACTIVATIONS
from ps_vae.optim.table import OPTIMIZERS
from ps_vae.train import local, processes, server, server_process
from ps_vae.train.config import BINARIZATIONS
from ps_vae.train.plan import DEFAULTS, Wishes
from ps_vae.train.server_process import flags

numbers = st.floats(allow_nan=False)
integers = st.integers(-(1 << 63), 1 << 63)
texts = st.text(st.characters(codec="utf-8", exclude_characters="\0"))

WISHES: dict[str, st.SearchStrategy[Any]] = {
    "data": texts,
    "split": texts,
    "condition": texts,
    "binarize": st.sampled_from(BINARIZATIONS),
    "hidden": st.lists(integers, max_size=4).map(tuple),
    "latent": integers,
    "activation": st.sampled_from(list(ACTIVATIONS)),
    "likelihood": texts,
    "sigma": numbers,
    "prior": texts,
    "bias_from_data": st.booleans(),
    "bound": texts,
    "beta": numbers,
    "beta_warmup": integers,
    "free_bits": numbers,
    "capacity": numbers,
    "capacity_warmup": integers,
    "optimizer": st.sampled_from(list(OPTIMIZERS)),
    "learning_rate": numbers,
    "schedule": texts,
    "batch_size": integers,
    "microbatch": integers,
    "epochs": numbers,
    "steps": integers,
    "checkpoint_every": integers,
    "report_every": integers,
    "consistency": texts,
    "push_codec": texts,
    "pull_codec": texts,
    "local_steps": integers,
    "outer_rate": numbers,
    "outer_momentum": numbers,
    "delay": integers,
    "clip_norm": numbers,
    "aggregate": texts,
    "patience": integers,
    "seed": integers,
}


class _SeenError(BaseException):
    """Carries what a command was about to do past everything that catches errors."""

    def __init__(self, wishes: Wishes) -> None:
        self.wishes = wishes


@pytest.fixture
def _only_the_words_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """Commands stop where they would start something, and leave this process's signals alone."""

    def seen(wishes: Wishes, *arguments: object, **options: object) -> None:
        raise _SeenError(wishes)

    monkeypatch.setattr(local, "LocalCluster", seen)
    monkeypatch.setattr(server, "serve", seen)
    monkeypatch.setattr(processes.StopSignal, "listen", lambda self: self)


def read_by(command: str, words: list[str]) -> Wishes:
    with pytest.raises(_SeenError) as caught:
        run([command, *words])
    return caught.value.wishes


def test_the_table_of_wishes_has_every_one_there_is() -> None:
    assert list(WISHES) == [field.name for field in dataclasses.fields(Wishes)]


@pytest.mark.usefixtures("_only_the_words_are_read")
@settings(deadline=None, max_examples=60)
@given(st.fixed_dictionaries(WISHES).map(lambda said: Wishes(**said)))
@example(DEFAULTS)
@example(Wishes())
@example(Wishes(data="--data", hidden=(), bias_from_data=False, seed=-1, sigma=float("inf")))
def test_train_and_server_read_the_words_for_any_wishes_as_the_same_wishes(wishes: Wishes) -> None:
    assert read_by("train", flags(wishes)) == wishes
    assert read_by("server", flags(wishes)) == wishes


@pytest.mark.usefixtures("_only_the_words_are_read")
@settings(deadline=None, max_examples=60)
@given(st.fixed_dictionaries({}, optional=WISHES).map(lambda said: Wishes(**said)))
def test_what_was_not_said_is_not_passed_on(wishes: Wishes) -> None:
    assert read_by("train", flags(wishes)) == wishes


def test_the_words_are_the_options_of_the_help(tmp_path: Path) -> None:
    words = flags(Wishes(data="my data.npy", hidden=(20, 10), bias_from_data=False, learning_rate=1e-05, steps=3))
    assert words == [
        *("--data", "my data.npy"),
        *("--hidden", "20,10"),
        "--no-bias-from-data",
        *("--learning-rate", "1e-05"),
        *("--steps", "3"),
    ]
    assert flags(Wishes()) == []
    assert flags(Wishes(hidden=(), bias_from_data=True)) == ["--hidden", "none", "--bias-from-data"]


def test_how_a_run_is_served_is_passed_on_to_the_server_that_train_starts(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """`server` reads the words that a local cluster starts it with as the options that the cluster was given."""
    started: list[list[str]] = []

    def spawn(arguments: list[str], *, log: Path | None = None) -> subprocess.Popen[bytes]:
        started.append(arguments)
        assert log is not None
        log.touch()
        return subprocess.Popen([sys.executable, "-I", "-S", "-c", ""])

    for starter in (local, server_process):
        monkeypatch.setattr(starter, "spawn", spawn)
    options = server.ServerOptions(
        listen="tcp://127.0.0.1:1",
        shards=2,
        remote_shards=1,
        run_dir=tmp_path / "run",
        resume=True,
        reproducible=True,
        keep=7,
        transport="tcp",
        await_workers=3,
        communication="manual",
        metrics="127.0.0.1:9400",
        replicas=1,
        keys=None,
        insecure=True,
        backup_workers=2,
    )
    with local.LocalCluster(Wishes(), options, 1, say=print):
        pass
    heard: list[server.ServerOptions] = []

    def serve(wishes: Wishes, options: server.ServerOptions, **keywords: object) -> dict[str, object]:
        heard.append(options)
        return {"failed": False}

    monkeypatch.setattr(server, "serve", serve)
    monkeypatch.setattr(processes.StopSignal, "listen", lambda self: self)
    (words,) = [words for words in started if words[0] == "server"]
    assert run([*words, "--json"]) == 0
    assert heard == [options]
