"""`ps-vae keys`: who may take part in runs between machines."""

from pathlib import Path
from typing import Annotated

import typer

from ps_vae.cli.key_options import Keys, default_folder
from ps_vae.cli.options import Debug, Json
from ps_vae.cli.terminal import print_columns, print_json, say
from ps_vae.errors import UsageError

__all__ = ["keys"]

keys = typer.Typer(
    name="keys",
    help="Say who may take part in runs between machines.\n\nExample: [bold]ps-vae keys new[/bold]",
    invoke_without_command=True,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["--help", "-h"]},
)

Name = Annotated[str, typer.Argument(metavar="NAME", help="Of the key: a user, a machine.", show_default=False)]
NewName = Annotated[
    str | None,
    typer.Argument(metavar="[NAME]", help="Of one pair; without it the two that a cluster needs.", show_default=False),
]
File = Annotated[
    Path | None,
    typer.Argument(metavar="[FILE]", help="The public key; without it NAME.public.", show_default=False),
]


@keys.callback()
def _keys(context: typer.Context) -> None:
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


@keys.command(rich_help_panel="Commands")
def new(name: NewName = None, folder: Keys = None, debug: Debug = False) -> None:
    """Make keys: without a name one pair for servers and one for workers, which is allowed.

    Where machines share this folder (a home on the network) that is all there is to do.

    Example: [bold]ps-vae keys new[/bold]
    """
    from ps_vae.ps.security.keys import SERVER
    from ps_vae.train.key_folder import WORKER, KeyFolder

    where = KeyFolder(folder or default_folder())
    if name is not None:
        print_columns([["key", name, where.create(name).public]])
        if name != SERVER:
            say(f"servers let it in after: ps-vae keys allow {name} (with {name}.public in their folder of keys)")
        return
    if where.has_server and where.has_client:
        raise UsageError(f"{where.path} has keys for servers and workers already; give a name to make another")
    for each in (SERVER, WORKER):
        if not (where.path / f"{each}.secret").exists():
            print_columns([["key", each, where.create(each).public]])
    where.allow(WORKER)
    say(f"{where.path}: servers have the key {SERVER!r}, and let in {WORKER!r}")


@keys.command(rich_help_panel="Commands")
def allow(name: Name, file: File = None, folder: Keys = None, debug: Debug = False) -> None:
    """Let somebody in, on this machine's servers, those that run included.

    Example: [bold]ps-vae keys allow ann ann.public[/bold]
    """
    from ps_vae.train.key_folder import KeyFolder

    say(f"allowed: {KeyFolder(folder or default_folder()).allow(name, file)}")


@keys.command(rich_help_panel="Commands")
def revoke(name: Name, folder: Keys = None, debug: Debug = False) -> None:
    """Let somebody in no more; who is connected is cut off.

    Example: [bold]ps-vae keys revoke ann[/bold]
    """
    from ps_vae.train.key_folder import KeyFolder

    KeyFolder(folder or default_folder()).revoke(name)
    say(f"revoked: {name}")


@keys.command("list", rich_help_panel="Commands")
def list_(folder: Keys = None, json: Json = False, debug: Debug = False) -> None:
    """Show the keys that are known here, and who is allowed.

    Example: [bold]ps-vae keys list[/bold]
    """
    from ps_vae.train.key_folder import KeyFolder

    where = KeyFolder(folder or default_folder())
    known = where.known()
    if json:
        shown = [
            {"name": key.name, "public": key.public, "secret_here": key.is_ours, "allowed": key.is_allowed}
            for key in known
        ]
        print_json({"folder": str(where.path), "keys": shown})
        return
    print_columns(
        [
            [key.name, key.public, "secret here" if key.is_ours else "", "allowed" if key.is_allowed else ""]
            for key in known
        ]
    )
