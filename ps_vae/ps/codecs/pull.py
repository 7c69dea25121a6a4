"""How weights are written on their way to the workers: `int8`, or `update:onebit`, a change in a codec of the table.

Weights that are written anew each time are off by the codec's error and no more, so it has to be small: codecs that
round, and remember nothing. A change may be written by any codec: what it leaves out is in the next change, which is
taken from what the workers hold (module replica).
"""

from collections.abc import Callable

from ps_vae.errors import UsageError
from ps_vae.ps.codecs.codec import Codec, Matrix
from ps_vae.ps.codecs.table import NO_CODEC, codec_for
from ps_vae.ps.record import record

__all__ = ["PullCodec", "pull_codec_for"]

_UPDATE = "update:"
# Of a codec's state: what a replica can do without, and what only makes the next payload better.
_REPLACED = {"residual", "q"}


@record
class PullCodec:
    """A codec for one slice of the weights.

    is_change  whether it writes what is to be added to the weights of the version before
    seed       of the run, for codecs that round at random
    """

    codec: Codec
    is_change: bool
    seed: int


def pull_codec_for(words: str) -> Callable[[int, tuple[Matrix, ...], int], PullCodec] | None:
    """What makes the codec that the user means, of (numbers, matrices, seed); None for `none`.

    Raises UsageError where there is no such codec.
    """
    is_change = words.startswith(_UPDATE)
    name = words.removeprefix(_UPDATE)
    make = codec_for(name)
    if make is None:
        if is_change:
            raise UsageError(f"{words!r} updates nothing; write {NO_CODEC}, or update:CODEC with one of the codecs")
        return None
    state = set(make(0, ()).state)
    if state and not is_change:
        raise UsageError(f"{words!r} would send a part of the weights; send changes in it: update:{words}")
    if state - _REPLACED:
        raise UsageError(f"{words!r}: a momentum of changes is none of the optimizer; leave it out")
    return lambda numbers, matrices, seed: PullCodec(make(numbers, matrices), is_change, seed)
