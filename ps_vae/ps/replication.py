"""The leader's side of replication: nothing is published that the follower does not have.

    leader              follower            coordinator
      <------------ follow
      copy(v) -------->
      replicate(v) --->                                       published at once: the follower is catching up
      <---- replicated(v)
      <---- replicated(v+1)
      applied(follower) ------------------------->            from here on it is waited for
      replicate(v+1) ->
      <---- replicated(v+2)
      published: v+2

Replication after aggregation (Li et al., "Scaling distributed machine learning with the parameter server", OSDI 2014,
section 4.3): one slice a step travels, however many workers push. The follower makes the same update, with the same
bits. A leader whose follower is gone says so (`applied` without one) and goes on when the coordinator has agreed
(`lead`, naming the one that is gone): otherwise the coordinator might rely on a follower that lacks what was published.
There is no way back: a follower that was given up follows anew, under another name.

state        the follower            is left by
alone        -                       follow -> catching up
catching up  has a copy              it has the newest version -> waited for; it is gone -> alone
waited for   has all that is         it is gone, or silent with a step for 2 s -> leaving
             published
leaving      may be gone             the coordinator agrees -> alone
"""

from ps_vae.ps.outbox import Sender

__all__ = ["Replication"]

_PATIENCE_SECONDS = 2.0


class Replication:
    """Who follows this leader, and whether it is waited for.

    Invariant: while `is_waited_for`, no version is published that the follower has not said to have.

    sender     where it is
    following  16 bytes that it drew for this time
    """

    def __init__(self) -> None:
        self.sender: Sender | None = None
        self.following: bytes | None = None
        self.state = "alone"
        self._sent_at: float | None = None

    @property
    def is_waited_for(self) -> bool:
        """Whether a step may be published only when the follower has it."""
        return self.state in ("waited for", "leaving")

    @property
    def relied_on(self) -> bytes | None:
        """The follower that the coordinator may make a leader of."""
        return self.following if self.state == "waited for" else None

    @property
    def given_up(self) -> bytes | None:
        """The follower that the coordinator has to let go of."""
        return self.following if self.state == "leaving" else None

    def begin(self, sender: Sender, following: bytes) -> bool:
        """Whether a copy of the state is to be sent; whoever was catching up is forgotten then."""
        if self.is_waited_for:
            return False
        self.sender, self.following, self.state, self._sent_at = sender, following, "catching up", None
        return True

    def sent(self, now: float) -> None:
        """A step is on its way."""
        self._sent_at = now if self._sent_at is None else self._sent_at

    def has(self, version: int, published: int) -> None:
        """The follower has what makes `version`; `published` is the newest one here."""
        if self.state == "catching up" and version >= published:
            self.state, self._sent_at = "waited for", None
        if version > published:
            self._sent_at = None

    def is_late(self, now: float) -> bool:
        """Give up a follower that does not answer; whether that has just happened."""
        if self.state != "waited for" or self._sent_at is None or now - self._sent_at < _PATIENCE_SECONDS:
            return False
        self.state = "leaving"
        return True

    def forget(self, sender: Sender) -> bool:
        """The sender is gone; whether a follower was given up with it."""
        if sender != self.sender:
            return False
        if self.state == "waited for":
            self.state = "leaving"
            return True
        if self.state == "catching up":
            self._be_alone()
        return False

    def agreed(self, gone: bytes | None) -> bool:
        """The coordinator knows that this follower is gone; whether nobody is waited for any more because of that."""
        if gone is None or gone != self.following or not self.is_waited_for:
            return False
        self._be_alone()
        return True

    def _be_alone(self) -> None:
        self.sender = self.following = self._sent_at = None
        self.state = "alone"
