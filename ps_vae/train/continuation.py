"""The same words for the first start of a run and for every later one: for whoever starts servers without looking."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from ps_vae.errors import UsageError
from ps_vae.train.checkpoint import newest_version
from ps_vae.train.early_stop import EarlyStop
from ps_vae.train.plan import Wishes
from ps_vae.train.run_folder import RunFolder
from ps_vae.train.server_options import ServerOptions

__all__ = ["begun_or_resumed", "ended_before", "noted_end", "run_dir_of"]


def run_dir_of(options: ServerOptions) -> Path:
    """The folder that says whether there is a run. UsageError where none was said: the next free name never has one."""
    if options.run_dir is None:
        raise UsageError("--begin-or-resume needs --run-dir, the folder of the run to begin or to continue")
    return options.run_dir


def begun_or_resumed(wishes: Wishes, options: ServerOptions) -> tuple[Wishes, ServerOptions]:
    """What these words mean now: a run that has begun is continued, any other begins.

    Words that say another run than it was are refused when it is continued, as ever. Where the communication was to be
    chosen it is what was chosen, and the steps are those that were made of the words then.
    """
    if not RunFolder(run_dir_of(options)).has_begun:
        return wishes, replace(options, resume=False)
    if options.communication == "auto":
        wishes = Wishes()
    return wishes, replace(options, resume=True, communication="manual")


def noted_end(run: RunFolder, steps: int) -> dict[str, Any] | None:
    """What a run of so many steps noted when it was over; None where it goes on, or was killed before it noted that."""
    result = run.result()
    if result is None or result["failed"]:
        return None
    return result if result["version"] >= steps or result.get("stopped_early") else None


def ended_before(folder: Path) -> dict[str, Any]:
    """How a run ended that has nothing left to do; where that was not noted, less is known."""
    run = RunFolder(folder)
    config = run.config()
    if (noted := noted_end(run, config.steps)) is not None:
        return noted
    steps, decision = config.steps, EarlyStop.of(run.metrics(), config.patience)
    over = {"run_dir": str(folder), "version": steps, "steps": steps, "failed": False, "reason": "the run is over"}
    if decision is None:
        return over
    return {**over, "version": newest_version(run.checkpoints), "stopped_early": True, "reason": decision.reason}
