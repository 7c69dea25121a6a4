"""How a run ended, as a table."""

from typing import Any

from ps_vae.cli.terminal import count, megabytes, nats, print_table
from ps_vae.cli.traffic import fewer, spent

__all__ = ["print_result"]


def print_result(result: dict[str, Any]) -> None:
    """The table that `train` and `server` end with; result: what `--json` prints instead."""
    examples = result["examples"]
    early = [("ended", result["reason"])] if result["stopped_early"] else []
    print_table(
        [
            ("run", str(result["run_dir"])),
            ("steps", f"{count(result['version'])} of {count(result['steps'])}"),
            *early,
            ("examples", count(examples)),
            ("seconds", f"{result['seconds']:,.1f}"),
            ("examples/s", count(result["examples_per_second"])),
            ("pushed", _traffic(result["bytes_pushed"], examples)),
            ("pulled", _traffic(result["bytes_pulled"], examples)),
            ("both together", fewer(result) or "as many bytes as dense"),
            ("of these shared", f"{megabytes(result['bytes_shared'])}, in memory of this machine, not sent"),
            ("workers' time", spent(result) or "-"),
            ("training ELBO", f"{nats(result['elbo'])} nats per example"),
            ("validation ELBO", f"{nats(result['validation'].get('elbo'))} nats per example"),
            ("best of them", _best(result["best"])),
            ("next", _next_command(result)),
        ]
    )


def _traffic(total: int, examples: int) -> str:
    return f"{megabytes(total)}, {count(total / examples)} bytes per example" if examples else megabytes(total)


def _best(best: dict[str, Any] | None) -> str:
    return "-" if best is None else f"{nats(best['elbo'])} at version {count(best['version'])}"


def _next_command(result: dict[str, Any]) -> str:
    if result["stopped_early"]:
        return f"ps-vae evaluate {result['run_dir']} --version best"
    if result["version"] < result["steps"]:
        return f"ps-vae train --resume --run-dir {result['run_dir']}"
    return f"ps-vae evaluate {result['run_dir']}"
