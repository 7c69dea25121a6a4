"""The help is quick, complete, and its examples can be pasted."""

import re
import subprocess
import sys

import pytest
import typer

from ps_vae import __version__
from ps_vae.cli.main import app, run
from ps_vae.cli.run_options import RUN_OPTIONS
from ps_vae.ps.codecs.table import CODECS

GROUP = typer.main.get_command(app)
COMMANDS = sorted(GROUP.commands)  # type: ignore[attr-defined]
PROMISED = [
    *("encode", "evaluate", "evaluator", "impute", "interpolate", "keys", "reconstruct", "sample", "score"),
    *("server", "status", "train", "traverse", "worker"),
]


@pytest.fixture
def help_of(capsys, monkeypatch: pytest.MonkeyPatch):
    # Wide enough that nothing is broken or cut.
    monkeypatch.setenv("COLUMNS", "300")
    monkeypatch.setenv("TERMINAL_WIDTH", "300")

    def read(*words: str) -> str:
        assert run([*words, "--help"]) == 0
        return capsys.readouterr().out

    return read


def test_the_help_lists_the_promised_commands_and_no_other(help_of) -> None:
    listed = re.findall(r"^│ (\w+) ", help_of(), flags=re.MULTILINE)

    assert sorted(listed) == PROMISED


@pytest.mark.parametrize("command", ["train", "server"])
def test_the_help_lists_every_run_option_with_its_default(help_of, command: str) -> None:
    lines = help_of(command).splitlines()
    for option in RUN_OPTIONS:
        (line,) = [line for line in lines if re.match(rf"│ {re.escape(option.name.split('/')[0])}\s", line)]
        assert f"[default: {option.default}]" in line


def test_the_help_names_every_codec(help_of) -> None:
    text = " ".join(line.strip("│ ") for line in help_of("train").splitlines())

    for name in ("none", *CODECS):
        assert re.search(rf"How gradients are sent:[^\]]*\b{name}\b", text), name


@pytest.mark.parametrize("command", PROMISED)
def test_options_stand_in_the_order_in_which_one_thinks_of_them(help_of, command: str) -> None:
    panels = re.findall(r"^╭─ (\w+)", help_of(command), flags=re.MULTILINE)
    order = ["Arguments", "Options", "Data", "Model", "Training", "Cluster", "Output", "Commands"]

    assert panels == [panel for panel in order if panel in panels]


@pytest.mark.parametrize("command", COMMANDS)
def test_the_example_of_a_command_can_be_pasted(help_of, command: str) -> None:
    (example,) = re.findall(r"Example: (.+?)\s*$", help_of(command), flags=re.MULTILINE)
    program, *words = example.split()
    words = words[1:] if program == "ps-vae" else words
    assert program in ("ps-vae", f"bin/start-{command}")

    # Reading the words raises where they are off; nothing is run.
    GROUP.commands[command].make_context(command, list(words))  # type: ignore[attr-defined]


def test_without_words_the_help_is_shown(help_of, capsys) -> None:
    expected = help_of()

    assert run([]) == 0
    assert capsys.readouterr().out.strip() == expected.strip()


def test_the_version_is_told(capsys) -> None:
    assert run(["--version"]) == 0
    assert capsys.readouterr().out == f"ps-vae {__version__}\n"


# What takes time to import: every library but those that the help is made with, and what libraries bring in turn.
HEAVY = {
    *("numpy", "numba", "llvmlite", "zmq", "msgpack", "safetensors", "threadpoolctl"),
    *("scipy", "sklearn", "mlxtend", "matplotlib", "asyncio", "multiprocessing"),
}


@pytest.mark.parametrize(
    "arguments", [["--help"], *([command, "--help"] for command in COMMANDS), ["--version"], ["train", "--what"]]
)
def test_the_help_waits_for_no_heavy_library(arguments: list[str]) -> None:
    program = (
        "import sys; before = set(sys.modules); from ps_vae.cli.main import run; run(sys.argv[2:]); "
        "heavy = set(sys.argv[1].split()) & (set(sys.modules) - before); "
        "sys.exit(f'imported {sorted(heavy)}' if heavy else 0)"
    )
    command = [sys.executable, "-c", program, " ".join(HEAVY), *arguments]
    ours = subprocess.run(command, capture_output=True, text=True, timeout=60)

    assert ours.returncode == 0, ours.stderr


def test_the_package_itself_imports_nothing() -> None:
    program = "import sys; before = set(sys.modules); import ps_vae; print(sorted(set(sys.modules) - before))"
    ours = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)

    assert ours.stdout == "['ps_vae']\n", ours.stderr
