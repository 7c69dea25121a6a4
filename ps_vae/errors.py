"""Every exception of ps_vae.

    PsVaeError
    ├── UsageError             the user's words are off: an option, a name, a combination (exit code 2)
    │   └── NothingLeft        a run that is to go on is at its end
    ├── DataError              a file or array that cannot be trained on
    ├── CheckpointError        a checkpoint that is damaged or belongs to another run
    ├── NumericalError         NaN or infinity where a number has to be
    ├── SecurityError          a server that would let strangers in
    ├── Unreachable            nobody answers at an address, or no longer
    ├── PeerError              a message that breaks the protocol; it is answered with `code` and changes nothing
    └── RefusedError           the peer told us that *we* broke the protocol, with its `code`

The text of an error is for the person who reads it: what was wrong, with the values, and what to do.
"""

__all__ = [
    "CheckpointError",
    "DataError",
    "NothingLeft",
    "NumericalError",
    "PeerError",
    "PsVaeError",
    "RefusedError",
    "SecurityError",
    "Unreachable",
    "UsageError",
]


class PsVaeError(Exception):
    """Base of all errors that ps_vae raises on purpose."""


class UsageError(PsVaeError, ValueError):
    """The user's words are off."""


class NothingLeft(UsageError):
    """The run that is to go on is at its end."""


class DataError(PsVaeError, ValueError):
    """The data cannot be trained on."""


class CheckpointError(PsVaeError):
    """The checkpoint is damaged or belongs to another run."""


class NumericalError(PsVaeError, ArithmeticError):
    """NaN or infinity where a number has to be."""


class SecurityError(PsVaeError):
    """A server that would let strangers in, and therefore does not serve."""


class Unreachable(PsVaeError):
    """Nobody answers at the address, or no longer."""


class PeerError(PsVaeError):
    """The peer broke the protocol.

    code  one of the codes that PROTOCOL.md lists; it travels back in an `error` message
    """

    def __init__(self, code: str, text: str) -> None:
        super().__init__(text)
        self.code = code


class RefusedError(PsVaeError):
    """The peer refused what we sent."""

    def __init__(self, code: str, text: str) -> None:
        super().__init__(text)
        self.code = code
