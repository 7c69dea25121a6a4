"""Options about keys, and what they mean: whom a command shows which keys to, or that it does without."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ps_vae.cli.options import CLUSTER, with_default
from ps_vae.errors import UsageError

if TYPE_CHECKING:
    from ps_vae.ps.security.keys import ClientKeys

__all__ = ["Insecure", "Key", "Keys", "client_keys", "default_folder", "key_words", "server_folder"]

_PLACE = "~/.config/ps-vae/keys"

Keys = Annotated[
    Path | None,
    typer.Option(
        "--keys",
        metavar="FOLDER",
        rich_help_panel=CLUSTER,
        show_default=False,
        help=with_default(
            "Keys that processes know each other by. Between machines they need some, see ps-vae keys; on one machine "
            "they do without, unless a folder is said.",
            _PLACE,
        ),
    ),
]
Key = Annotated[
    str | None,
    typer.Option(
        "--key",
        metavar="NAME",
        rich_help_panel=CLUSTER,
        show_default=False,
        help=with_default("Which key of the folder to come in with.", "worker, or the only one"),
    ),
]
Insecure = Annotated[
    bool,
    typer.Option(
        "--insecure",
        rich_help_panel=CLUSTER,
        help="Do without keys, between machines too: whoever reaches the port can read and change everything.",
    ),
]


def default_folder() -> Path:
    """Where keys lie unless something else is said."""
    base = os.environ.get("XDG_CONFIG_HOME")
    return (Path(base) if base else Path.home() / ".config") / "ps-vae" / "keys"


def server_folder(keys: Path | None, insecure: bool, *addresses: str) -> Path | None:
    """The folder of keys of a server that listens, or joins, at these addresses; None where it goes without."""
    from ps_vae.ps.addresses import is_local
    from ps_vae.train.key_folder import KeyFolder

    _check(keys, insecure)
    if keys is not None or insecure or all(map(is_local, addresses)):
        return keys
    folder = default_folder()
    if not KeyFolder(folder).has_server:
        (first, *_) = [address for address in addresses if not is_local(address)]
        raise UsageError(
            f"{first} is for other hosts too, and {folder} has no server.secret; run `ps-vae keys new` first, or say "
            "--insecure"
        )
    return folder


def client_keys(keys: Path | None, key: str | None, insecure: bool, address: str) -> "ClientKeys | None":
    """What a client of the server at `address` shows; None where it goes without.

    On this host a server may want keys or not: then they are for the case that it asks for them, if there are some.
    """
    from ps_vae.ps.addresses import is_local
    from ps_vae.train.key_folder import KeyFolder

    _check(keys, insecure)
    if insecure:
        return None
    folder = KeyFolder(keys if keys is not None else default_folder())
    if keys is not None or key is not None or not is_local(address):
        return folder.client_keys(key)
    if address.startswith("ipc://") or not folder.has_client:
        return None
    return folder.client_keys(if_asked=True)


def key_words(keys: Path | None, key: str | None, insecure: bool) -> list[str]:
    """The same options, for a process that is started."""
    words = ["--keys", str(keys)] if keys is not None else []
    words += ["--key", key] if key is not None else []
    return [*words, "--insecure"] if insecure else words


def _check(keys: Path | None, insecure: bool) -> None:
    if insecure and keys is not None:
        raise UsageError(f"--insecure and --keys {keys}: leave one of the two out")
