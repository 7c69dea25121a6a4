"""A first server that was started again takes its run up from the other servers, where these have all of it.

What names the run is in its folder, in servers.json, from when the first shard has a follower until the run ends. Its
secret is there too, so the file is for its owner alone.

The others go on as they are: a run can be changed when it begins anew from a checkpoint, and not when it is taken up.
"""

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace

from ps_vae.errors import PsVaeError, UsageError
from ps_vae.lines import WARNING, Line
from ps_vae.ps.endpoint import Endpoint
from ps_vae.ps.gathering import Found, Gathering
from ps_vae.ps.outbox import Event, Refused, RunEnded
from ps_vae.ps.partition import partition
from ps_vae.ps.server import Server
from ps_vae.train.config import RunConfig
from ps_vae.train.event_lines import line_of
from ps_vae.train.processes import StopSignal
from ps_vae.train.run_folder import RunFolder
from ps_vae.train.shard import rules_of

__all__ = ["KnownRun", "check_unchanged", "known_run", "take_up"]

# Pieces of work that one coordinator cannot have given out.
_TICKETS = 1 << 32
# Where an option has another name than what it sets.
_OPTIONS = {"milestone": "checkpoint-every"}


@dataclass(frozen=True, slots=True)
class KnownRun:
    """What a coordinator cannot ask others for.

    run     its name
    secret  of its servers
    first   the version that its servers began at
    shards  how many it has
    starts  how often its coordinator was started
    """

    run: bytes
    secret: bytes = field(repr=False)
    first: int
    shards: int
    starts: int = 1

    @property
    def tickets(self) -> int:
        """What the tickets of this start's work come after."""
        return (self.starts - 1) * _TICKETS

    def write(self, folder: RunFolder) -> None:
        """Into the folder. Raises OSError where the disk refuses."""
        folder.write_servers({**asdict(self), "run": self.run.hex(), "secret": self.secret.hex()})


def known_run(folder: RunFolder, size: int) -> KnownRun | None:
    """The run of `size` parameters whose servers may be there still, as of its next start; None where none is."""
    plain = folder.servers()
    try:
        run, secret = bytes.fromhex(plain["run"]), bytes.fromhex(plain["secret"])
        known = KnownRun(run, secret, int(plain["first"]), int(plain["shards"]), int(plain["starts"]))
        partition(size, known.shards)
    except (KeyError, TypeError, ValueError):
        return None
    if (len(run), len(secret)) != (16, 16):
        return None
    return replace(known, starts=known.starts + 1)


def take_up(
    known: KnownRun,
    config: RunConfig,
    size: int,
    endpoint: Endpoint,
    *,
    least: int,
    say: Callable[[str], None],
    should_stop: StopSignal,
) -> Found | None:
    """The servers of the run, where they have all of it; they get another few seconds to be there.

    Who is told to stop goes on looking: the run is stopped when it is taken up, with a checkpoint. Where that cannot
    be, or it is told so twice, PsVaeError is raised, and the next start can look for them again.

    config  of the run as its servers have it
    size    of its parameters
    least   the version of the newest checkpoint: nobody goes back behind it
    """
    say(Line("taking-up", "looking for the other servers of run {run}", run=known.run.hex()))
    slices = partition(size, known.shards)
    gathering = Gathering(rules_of(config, known.run, known.first, known.secret), slices, least)

    def notice(event: Event) -> None:
        line = line_of(event) if isinstance(event, Refused) else None
        if line is not None:
            say(line)

    server = Server(endpoint, None, coordinator=gathering, notify=notice)
    obeyed = 0

    def obey() -> None:
        nonlocal obeyed
        if should_stop.count > obeyed:
            if obeyed == 0:
                text = "stopping, as soon as the run is taken up from its servers (once more: stop at once)"
                say(Line("stopping", text))
            obeyed = should_stop.count
        if obeyed > 1:
            server.dispatch([RunEnded(True, "told to stop at once")])

    started = time.monotonic()
    ended = server.run(obey)
    server.leave()
    found = gathering.found
    if found is None and should_stop():
        raise PsVaeError(
            f"stopped before the run could be taken up from its servers: {ended.reason}; nothing is changed, go on "
            "with --resume"
        )
    if found is None:
        text = "{why}: the run cannot be taken up from its servers"
        say(Line("not-taken-up", text, level=WARNING, why=ended.reason))
        return None
    text = "found the servers of all {shards} shards in {seconds:.1f} s; the run goes on at version {version:,}"
    seconds = time.monotonic() - started
    say(Line("taken-up", text, shards=len(slices), seconds=seconds, version=found.lowest))
    return found


def check_unchanged(folder: RunFolder, found: Found, was: RunConfig, now: RunConfig, shards: int) -> None:
    """Raise UsageError where other words were said than the run has that was found.

    was, now  as its servers have it, and as it was said
    shards    as it was said
    """
    before, after = was.to_json(), now.to_json()
    changes = [f"--{_option(name)} {before[name]}, not {after[name]}" for name in before if before[name] != after[name]]
    if shards != len(found.members):
        changes.append(f"{len(found.members)} shards, not {shards}")
    if not changes:
        return
    have = f"the other servers of {folder.path} have the run, at version {found.lowest:,}, with {', '.join(changes)}"
    raise UsageError(
        f"{have}; leave that out to go on at once, or to change it resume without it, stop with Ctrl-C, resume with it"
    )


def _option(name: str) -> str:
    return _OPTIONS.get(name, name).replace("_", "-")
