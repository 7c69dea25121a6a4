"""The clients of a run: who was let in, who is still there, whose arithmetic differs."""

from collections.abc import Iterator

from ps_vae.errors import PeerError
from ps_vae.ps.members import ROLES, Client
from ps_vae.ps.messages import Hello
from ps_vae.ps.outbox import Member, Output, Sender

__all__ = ["EVALUATION_SECONDS", "Roster"]

# A client that is silent for longer is taken for gone. An idle one repeats itself every second; one that computes says
# nothing, but its lease ends; one that warms up may be fetching its data.
_IDLE_SECONDS = 5.0
_LATE_SECONDS = 60.0
_WARMING_SECONDS = 600.0
EVALUATION_SECONDS = 120.0

# Sessions that were put out. Whoever draws a new one is another client to us in any case.
_REMEMBERED = 1024

# Connections that nobody is known by any more are thought of for a while.
_MANY = 64

# Kinds of arithmetic that are told apart: hosts have a few; whoever makes them up has any number.
_FINGERPRINTS = 64


class Roster:
    """Workers and evaluators by session, whatever connection they come through; one session a connection.

    is_reproducible  refuse workers whose arithmetic is not that of the first
    """

    def __init__(self, *, is_reproducible: bool) -> None:
        self.clients: dict[bytes, Client] = {}
        self._is_reproducible = is_reproducible
        self._fingerprints: list[str] = []
        self._put_out: dict[bytes, str] = {}
        # The session that each connection said hello with last.
        self._latest: dict[Sender, bytes] = {}

    @property
    def workers(self) -> list[Client]:
        return [client for client in self.clients.values() if client.role == "worker"]

    @property
    def evaluators(self) -> list[Client]:
        return [client for client in self.clients.values() if client.role == "evaluator"]

    def check(self, hello: Hello) -> list[Output]:
        """Whether it may come in: PeerError where not. What differs is said once."""
        self._check_not_put_out(hello.session)
        if hello.role not in ROLES:
            raise PeerError("bad-role", f"role {hello.role!r} is not one of {', '.join(ROLES)}")
        known = self.clients.get(hello.session)
        if known is not None and known.role != hello.role:
            raise PeerError("bad-role", f"this session said hello as {known.role} before, now as {hello.role}")
        return self._compare(hello)

    def replaced(self, sender: Sender, hello: Hello) -> Client | None:
        """Who said hello through this connection before, under another session: a connection has one."""
        known = self.clients.get(self._latest.get(sender, hello.session))
        return known if known is not None and known.session != hello.session and known.sender == sender else None

    def enter(self, sender: Sender, hello: Hello, now: float) -> tuple[Client, bool]:
        """The client of a hello that was checked, and whether it is new."""
        known = self.clients.get(hello.session)
        client = known or Client(hello.session, sender, hello.name, hello.role, now)
        client.sender, client.heard = sender, now
        client.warming, client.idle, client.reported = True, False, -1
        self.clients[hello.session] = client
        self._latest[sender] = hello.session
        if len(self._latest) > 2 * len(self.clients) + _MANY:
            self._latest = {one.sender: one.session for one in self.clients.values()}
        return client, known is None

    def find(self, session: bytes, role: str | None, now: float) -> Client:
        """The client, which was heard of just now; PeerError where it is not known, or has another role."""
        client = self.clients.get(session)
        if client is None:
            self._check_not_put_out(session)
            raise PeerError("unknown-session", "this session is not known (any more); say hello")
        if role is not None and client.role != role:
            raise PeerError("bad-role", f"{client.name} is no {role} but has said hello as {client.role}")
        client.heard = now
        return client

    def excuse(self, seconds: float, now: float) -> None:
        """Nobody could be heard for so long."""
        for client in self.clients.values():
            client.heard = min(now, client.heard + seconds)

    def put_out(self, client: Client, why: str) -> None:
        """Let go of a client whose session does not come back."""
        del self.clients[client.session]
        self._put_out[client.session] = why
        while len(self._put_out) > _REMEMBERED:
            del self._put_out[next(iter(self._put_out))]

    def silent(self, now: float) -> Iterator[Client]:
        """Clients that have not been heard of for too long."""
        for client in list(self.clients.values()):
            if client.lease is None and now - client.heard > _patience(client):
                yield client

    def _check_not_put_out(self, session: bytes) -> None:
        if (why := self._put_out.get(session)) is not None:
            raise PeerError("put-out", why)

    def _compare(self, hello: Hello) -> list[Output]:
        """Same arithmetic, same bits."""
        if hello.role != "worker" or hello.fingerprint in self._fingerprints:
            return []
        if not self._fingerprints:
            self._fingerprints.append(hello.fingerprint)
            return []
        why = f"its arithmetic ({hello.fingerprint}) is not that of the first worker ({self._fingerprints[0]})"
        if self._is_reproducible:
            raise PeerError("fingerprint", f"{why}, and the run is --reproducible")
        if len(self._fingerprints) >= _FINGERPRINTS:
            return []
        self._fingerprints.append(hello.fingerprint)
        return [Member(hello.name, "differs", f"{why}: bits may differ")]


def _patience(client: Client) -> float:
    if client.role == "evaluator":
        return EVALUATION_SECONDS
    if client.warming:
        return _WARMING_SECONDS
    return _IDLE_SECONDS if client.idle else _LATE_SECONDS
