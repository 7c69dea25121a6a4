"""A follower: a server that holds what its leader holds, one update behind at most, and leads when it is told to.

    state      meaning                                        left by
    asking     follow was sent; what an earlier copy made is  copy -> following; lead -> leading
               kept until then
    following  every step of the leader is applied here too   lead -> leading; a step is missing, or the leader does not
                                                              know us any more -> asking
    leading    the shard is a leader like any other           -

Nothing here decides: who leads is the coordinator's word. It may rely on an earlier copy: whoever says that it does not
know us may be another server, that was started where our leader was.
"""

from collections.abc import Callable

from ps_vae.errors import PeerError
from ps_vae.ps.copies import state_of
from ps_vae.ps.identity import ServerIdentity
from ps_vae.ps.messages import Copy, Error, Follow, Lead, Present, Replicate, Replicated, Standby, Who
from ps_vae.ps.outbox import COORDINATOR, Output, Send, ShardAddress
from ps_vae.ps.shard import Shard
from ps_vae.ps.state import ShardState

__all__ = ["Follower"]

_REPEAT_SECONDS = 1.0


class Follower:
    """One server's time as a follower of one shard.

    Invariant: the shard has exactly the updates of its leader up to `version`, and says nothing to anybody.

    identity     of the server
    leader       the address of its leader, as the coordinator told it
    incarnation  that the leader is
    size         of the slice
    make         makes the shard from a state
    draw         16 random bytes
    """

    def __init__(
        self,
        run: bytes,
        number: int,
        identity: ServerIdentity,
        leader: str,
        incarnation: int,
        size: int,
        make: Callable[[ShardState], Shard],
        draw: Callable[[], bytes],
    ) -> None:
        self.state = "asking"
        self.shard: Shard | None = None
        self._run, self._number, self._size = run, number, size
        self._identity, self._leader, self._incarnation = identity, leader, incarnation
        self._make, self._draw = make, draw
        # What was drawn for this time; and for the copy that is here, if there is one.
        self._following = draw()
        self._copied: bytes | None = None
        self._since = 0
        self._told_at = float("-inf")

    @property
    def version(self) -> int:
        """How many steps are here."""
        return 0 if self.shard is None else self.shard.version

    def handle(self, message: Copy | Replicate | Lead | Who | Error, now: float) -> list[Output]:
        """Take a message of the leader or the coordinator. PeerError where it makes no sense."""
        match message:
            case Copy() if self.state == "asking" and message.following == self._following:
                return self._take(message, now)
            case Replicate() if self.state != "leading" and message.following == self._copied:
                return self._apply(message, now)
            case Lead() if message.run == self._run and message.shard == self._number:
                return self._lead(message)
            case Who() if message.run == self._run and self.state != "leading":
                return [Send(COORDINATOR, self._present), *self._tell(now)]
            case Error() if message.code == "not-following" and self.state == "following":
                return self._follow_anew(now)
        return []

    def tick(self, now: float) -> list[Output]:
        """Call at least every tenth of a second."""
        if self.state == "leading" or now - self._told_at < _REPEAT_SECONDS:
            return []
        return self._tell(now)

    @property
    def _present(self) -> Present:
        session, address = self._identity.session, self._identity.address
        return Present(
            self._run,
            self._number,
            session,
            address,
            leads=False,
            incarnation=self._incarnation,
            leader=self._leader,
        )

    def _take(self, copy: Copy, now: float) -> list[Output]:
        self.shard = self._make(state_of(copy, self._size))
        self._since, self._copied = copy.version, copy.following
        self.state = "following"
        return self._tell(now)

    def _apply(self, step: Replicate, now: float) -> list[Output]:
        if self.shard is None or step.version > self.version:
            # One was lost on the way.
            return self._follow_anew(now) if self.state == "following" else []
        if step.version == self.version:
            self.shard.follow(step)
        return [Send(ShardAddress(self._number), Replicated(step.following, self.version))]

    def _lead(self, lead: Lead) -> list[Output]:
        if self.shard is None:
            raise PeerError("bad-role", "this follower has no copy of the shard that it is to lead")
        self.shard.incarnation = max(self.shard.incarnation, lead.incarnation)
        self.state = "leading"
        return []

    def _follow_anew(self, now: float) -> list[Output]:
        self.state, self._following = "asking", self._draw()
        return self._tell(now)

    def _tell(self, now: float) -> list[Output]:
        self._told_at = now
        session = self._identity.session
        standby = Standby(self._run, self._number, session, self._copied, self._since, self.version)
        to_leader = (
            Follow(self._run, self._number, self._following)
            if self.state == "asking"
            else Replicated(self._following, self.version)
        )
        return [Send(COORDINATOR, standby), Send(ShardAddress(self._number), to_leader)]
