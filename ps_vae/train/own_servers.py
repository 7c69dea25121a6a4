"""The other servers' processes that a first server starts on its host, and starts anew when one is lost."""

import subprocess
import time
from collections.abc import Callable

from ps_vae.lines import WARNING, Line
from ps_vae.ps.addresses import sibling
from ps_vae.train.processes import spawn, stop_all

__all__ = ["OwnServers"]

# Between two servers that are started in place of those that were lost.
_SPAWN_SECONDS = 1.0
# A leader whose place was taken comes back by itself, as a follower: it has so long. And a server so long to start.
_RETURN_SECONDS = 3.0
_START_SECONDS = 15.0


class OwnServers:
    """Processes of `ps-vae server --join`.

    join      their command line, without an address to listen at
    bound     the first server's address
    replicas  whether leaders are followed: then others take the place of those that are lost
    """

    def __init__(self, join: list[str], bound: str, *, replicas: int, say: Callable[[str], None]) -> None:
        self._join, self._bound, self._replicas, self._say = join, bound, replicas, say
        self._processes: list[subprocess.Popen[bytes]] = []
        self._lost = 0
        self._spawned_at = float("-inf")
        self._unfollowed_since: float | None = None

    def start(self, shards: int, followers: int) -> None:
        """Those of a new run."""
        for _ in range(shards):
            self._spawn()
        for _ in range(followers):
            self._spawn("--follower")

    def go_on(self) -> None:
        """Those of a run that goes on are there, but for the follower that leads the first shard now."""
        self._lost = self._replicas

    def ended(self) -> str | None:
        """See who has ended: why the run cannot go on, where that is so."""
        for process in [process for process in self._processes if process.poll() is not None]:
            if not self._replicas:
                return f"a shard's process on this host ended with code {process.returncode}; continue with --resume"
            text = "a shard's process on this host ended with code {code}; another one is started to follow"
            self._say(Line("lost-server", text, level=WARNING, code=process.returncode))
            self._processes.remove(process)
            self._lost += 1
        return None

    def fill_up(self, *, lacks_follower: bool) -> None:
        """Start a follower where one is missing and none will come by itself."""
        now = time.monotonic()
        if not lacks_follower:
            self._unfollowed_since = None
        elif self._unfollowed_since is None:
            self._unfollowed_since = now
        if not self._replicas or self._unfollowed_since is None:
            return
        # Of servers that an earlier first server started, nobody hears how they end.
        is_deserted = now - self._unfollowed_since > _RETURN_SECONDS and now - self._spawned_at > _START_SECONDS
        if is_deserted or (self._lost and now - self._spawned_at > _SPAWN_SECONDS):
            self._lost = max(0, self._lost - 1)
            self._spawn("--follower")

    def stop(self) -> None:
        """All of them."""
        stop_all(self._processes)

    def _spawn(self, *more: str) -> None:
        self._spawned_at = time.monotonic()
        self._processes.append(spawn([*self._join, "--listen", sibling(self._bound), *more]))
