"""A folder of keys: pairs of our own, public keys of others, and whom a server lets in.

NAME.secret           40 characters and a line's end, for its owner alone (mode 0600)
NAME.public           the public key of that pair, or of somebody else
allowed/NAME.public   a server lets in who has the secret of it

`server` is the pair that all servers of a run have. The text of a key is described in ps/security/keys.py.
"""

import os
import re
import stat
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from ps_vae.errors import UsageError
from ps_vae.ps.addresses import is_local
from ps_vae.ps.security.door import new_pair, pair_of
from ps_vae.ps.security.keys import SERVER, ClientKeys, KeyPair, ServerKeys, is_key
from ps_vae.train.allow_list import AllowList, read_public

__all__ = ["WORKER", "KeyFolder", "KnownKey", "check_open", "say_who_is_let_in"]

WORKER = "worker"
"""The pair that clients have where nobody said another name."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}")


@dataclass(frozen=True, slots=True)
class KnownKey:
    """What the folder says about one name."""

    name: str
    public: str
    is_ours: bool
    is_allowed: bool


@dataclass(frozen=True, slots=True)
class KeyFolder:
    """Keys on the disk. What is wrong with them is a UsageError that says what to do."""

    path: Path

    @property
    def allowed(self) -> Path:
        return self.path / "allowed"

    @property
    def has_server(self) -> bool:
        """Whether a server could be started with these keys."""
        return self._secret(SERVER).exists()

    @property
    def has_client(self) -> bool:
        """Whether a client could be started with these keys."""
        return bool(self._own_names()) and self._public(SERVER).exists()

    def create(self, name: str) -> KeyPair:
        """A new pair of that name."""
        _check_name(name)
        self._make(self.path)
        pair = new_pair()
        public = self._public(name)
        if public.exists():
            raise UsageError(f"{public} exists; take another name, or remove it")
        _write_new(self._secret(name), pair.secret)
        _write_new(public, pair.public)
        return pair

    def allow(self, name: str, file: Path | None = None) -> Path:
        """Have servers let in the public key of `file`, or of NAME.public; returns where that is noted."""
        _check_name(name)
        if name == SERVER:
            raise UsageError(f"the name {SERVER!r} is that of the servers' own key, which is let in anyway")
        public = read_public(file or self._public(name))
        self._make(self.path)
        self._make(self.allowed)
        for known in self.known():
            if known.is_allowed and (known.name == name) != (known.public == public):
                raise UsageError(f"{known.name} is allowed with {known.public}; revoke that first")
        _write(self.allowed / f"{name}.public", public)
        return self.allowed / f"{name}.public"

    def revoke(self, name: str) -> None:
        """Have servers let in that key no more, those that run included."""
        _check_name(name)
        try:
            (self.allowed / f"{name}.public").unlink()
        except FileNotFoundError:
            known = ", ".join(key.name for key in self.known() if key.is_allowed) or "nobody"
            raise UsageError(f"{name} is not allowed in {self.path}; allowed are: {known}") from None

    def known(self) -> list[KnownKey]:
        """Everything that lies here, by name."""
        names = {path.stem for folder in (self.path, self.allowed) for path in folder.glob("[!.]*.public")}
        return [self._known(name) for name in sorted(names)]

    def server_keys(self, say: Callable[[str], None]) -> ServerKeys:
        """What a server needs; `say` is told of an allowed key that cannot be read."""
        for folder in (self.path, self.allowed):
            _check_unwritable(folder)
        return ServerKeys(self._pair(SERVER), AllowList(self.allowed, say).name_of)

    def client_keys(self, name: str | None = None, *, if_asked: bool = False) -> ClientKeys:
        """What a client of that name needs; without one it is `worker`, or the only one that is there."""
        _check_unwritable(self.path)
        pair = self._pair(self._only_name() if name is None else name)
        server = self._public(SERVER)
        if not server.exists():
            raise UsageError(f"{self.path} has no {server.name}: copy it there from the server's folder of keys")
        return ClientKeys(pair, read_public(server), if_asked)

    def _only_name(self) -> str:
        names = self._own_names()
        if WORKER in names or len(names) == 1:
            return WORKER if WORKER in names else names[0]
        if names:
            raise UsageError(f"{self.path} has several keys; say --key and one of {', '.join(names)}")
        raise UsageError(f"{self.path} has no key to come in with; run `ps-vae keys new` first, or say --insecure")

    def _own_names(self) -> list[str]:
        return sorted(path.stem for path in self.path.glob("[!.]*.secret") if path.stem != SERVER)

    def _pair(self, name: str) -> KeyPair:
        _check_name(name)
        path = self._secret(name)
        try:
            with path.open() as file:
                mode = os.fstat(file.fileno()).st_mode
                text = file.read(256).strip()
        except (OSError, UnicodeDecodeError) as error:
            why = error.strerror if isinstance(error, OSError) else "no text"
            raise UsageError(f"{path}: {why}; run `ps-vae keys new` first, or say --insecure") from None
        if mode & (stat.S_IRWXG | stat.S_IRWXO):
            raise UsageError(f"{path} is open to others (mode {mode & 0o777:03o}); chmod 600 {path}")
        if not is_key(text):
            raise UsageError(f"{path} is no secret key of 40 characters; remove it and run `ps-vae keys new`")
        return pair_of(text)

    def _known(self, name: str) -> KnownKey:
        allowed = self.allowed / f"{name}.public"
        is_allowed = allowed.exists()
        public = read_public(allowed if is_allowed else self._public(name))
        return KnownKey(name, public, self._secret(name).exists(), is_allowed)

    def _secret(self, name: str) -> Path:
        return self.path / f"{name}.secret"

    def _public(self, name: str) -> Path:
        return self.path / f"{name}.public"

    def _make(self, folder: Path) -> None:
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise UsageError(f"cannot make {folder}: {error.strerror}; give another --keys") from None


def check_open(listen: str, keys: Path | None, *, is_insecure: bool) -> None:
    """UsageError where other hosts could come in without a key, and nobody has said that they may."""
    if keys is None and not is_insecure and not is_local(listen):
        raise UsageError(
            f"{listen} can be reached from other hosts, and there are no keys; "
            "run `ps-vae keys new` first, or say --insecure"
        )


def say_who_is_let_in(address: str, keys: Path | None, say: Callable[[str], None]) -> None:
    """What an operator should know about a server that has begun to listen."""
    if keys is not None:
        names = [key.name for key in KeyFolder(keys).known() if key.is_allowed]
        say(f"{address} is for those who are allowed in {keys}: {', '.join(names) or 'nobody yet'}")
    elif not is_local(address):
        say(f"WARNING: whoever reaches {address} can read and change everything; ps-vae keys would prevent it")


def _check_name(name: str) -> None:
    if not _NAME.fullmatch(name):
        raise UsageError(f"{name!r} is no name for a key; take letters, digits and . _ @ -")


def _check_unwritable(folder: Path) -> None:
    """Whoever can write to it could let himself in."""
    with suppress(FileNotFoundError):
        mode = folder.stat().st_mode
        if mode & (stat.S_IWGRP | stat.S_IWOTH):
            raise UsageError(f"{folder} can be written to by others (mode {mode & 0o777:03o}); chmod 700 {folder}")


def _write_new(path: Path, text: str) -> None:
    """A file that is never there half, nor open to others, nor in the place of another."""
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        raise UsageError(f"{path} exists; take another name, or remove it") from None
    except OSError as error:
        raise UsageError(f"cannot write {path}: {error.strerror}; give another --keys") from None
    try:
        with open(descriptor, "w") as file:
            file.write(text + "\n")
            file.flush()
            os.fsync(file.fileno())
    except OSError:
        path.unlink()
        raise


def _write(path: Path, text: str) -> None:
    """The same, in the place of what was there."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    with suppress(FileNotFoundError):
        temporary.unlink()
    _write_new(temporary, text)
    temporary.replace(path)
