"""`ps-vae`: the commands, and how their errors become exit codes.

    0    done, or stopped cleanly when asked to
    1    anything else, with one line that says what and what to do
    2    the user's words are off: an option, a name, a combination
    130  interrupted by Ctrl-C where there was nothing to finish

Commands import what they need when they run: `ps-vae --help` must not wait for NumPy and Numba.
"""

import contextlib
import os
import sys
import traceback
from typing import Annotated, cast

import typer

from ps_vae import __version__
from ps_vae.cli.encode import encode
from ps_vae.cli.evaluate import evaluate
from ps_vae.cli.evaluator import evaluator
from ps_vae.cli.generate import reconstruct, sample
from ps_vae.cli.impute import impute
from ps_vae.cli.keys import keys
from ps_vae.cli.latent import interpolate, traverse
from ps_vae.cli.options import Invocation
from ps_vae.cli.score import score
from ps_vae.cli.server import server
from ps_vae.cli.status import status
from ps_vae.cli.terminal import speaker
from ps_vae.cli.train import train
from ps_vae.cli.worker import worker
from ps_vae.errors import PsVaeError, UsageError
from ps_vae.lines import ERROR, Line

__all__ = ["app", "run"]

# Click's error for words it does not understand; new versions of typer bring their own copy of it.
_WordsError = cast(type[Exception], typer.BadParameter.__bases__[0])

_TRAIN, _USE, _CLUSTER = "Train", "Use what was trained", "Train on several machines"

app = typer.Typer(
    name="ps-vae",
    add_completion=False,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["--help", "-h"]},
)
app.command(rich_help_panel=_TRAIN)(train)
app.command(rich_help_panel=_USE)(evaluate)
app.command(rich_help_panel=_USE)(sample)
app.command(rich_help_panel=_USE)(reconstruct)
app.command(rich_help_panel=_USE)(interpolate)
app.command(rich_help_panel=_USE)(traverse)
app.command(rich_help_panel=_USE)(encode)
app.command(rich_help_panel=_USE)(score)
app.command(rich_help_panel=_USE)(impute)
app.command(rich_help_panel=_CLUSTER)(server)
app.command(rich_help_panel=_CLUSTER)(worker)
app.command(rich_help_panel=_CLUSTER)(evaluator)
app.command(rich_help_panel=_CLUSTER)(status)
app.add_typer(keys, rich_help_panel=_CLUSTER)


def run(arguments: list[str] | None = None) -> int:
    """Run `ps-vae ARGUMENTS` (None: those of this process) and return its exit code."""
    invocation = Invocation()
    command = typer.main.get_command(app)
    try:
        result = command.main(arguments, prog_name="ps-vae", standalone_mode=False, obj=invocation)
        sys.stdout.flush()
        return result if isinstance(result, int) else 0
    except SystemExit as leave:
        return leave.code if isinstance(leave.code, int) else 1
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        return _forget_output()
    except Exception as error:
        _tell(error, invocation)
        return 2 if isinstance(error, UsageError | _WordsError) else 1


def _version(value: bool) -> None:
    if value:
        print(f"ps-vae {__version__}")
        raise typer.Exit


@app.callback(invoke_without_command=True)
def _ps_vae(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", help="Show the version.", callback=_version, is_eager=True)
    ] = False,
) -> None:
    """Train variational autoencoders on many CPU processes.

    Start here: [bold]ps-vae train[/bold]
    """
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


def _tell(error: Exception, invocation: Invocation) -> None:
    code = type(error).__name__
    shown = traceback.format_exc() if invocation.debug else None
    if invocation.log_format == "json":
        say = speaker(invocation.log_format)
        say(Line("failed", "{why}", level=ERROR, why=_line(error), error=code, traceback=shown))
        return
    with contextlib.suppress(OSError):
        print(f"{shown or ''}ps-vae: {_line(error)}", file=sys.stderr, flush=True)


def _line(error: Exception) -> str:
    """What and what to do, in one line."""
    if isinstance(error, PsVaeError):
        text = str(error)
    elif isinstance(error, _WordsError):
        context = getattr(error, "ctx", None)
        command = context.command_path if context else "ps-vae"
        text = f"{error.format_message().rstrip('.')}; see {command} --help"  # type: ignore[attr-defined]
    elif isinstance(error, OSError):
        from ps_vae.train.durable import what_to_do

        advice = what_to_do(error)
        text = f"{error.filename}: {error.strerror}" if error.filename else str(error)
        text += f"; {advice}" if advice else ""
    elif isinstance(error, MemoryError):
        text = f"not enough memory ({error}); take a smaller model, --batch-size or --processes"
    else:
        text = f"a fault in ps_vae itself: {type(error).__name__}: {error}; --debug shows where, please report it"
    return " ".join(text.split())


def _forget_output() -> int:
    """Whoever read our output has gone; nothing is left to say, not even by the interpreter on its way out."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 1
