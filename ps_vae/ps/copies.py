"""What a follower begins with: a leader's slice as a message, and the message as a state."""

from ps_vae.errors import PeerError
from ps_vae.ps.messages import Copy
from ps_vae.ps.state import ShardState
from ps_vae.ps.trained_slice import TrainedSlice

__all__ = ["copy_of", "state_of"]

# How arrays of a copy are named.
_WEIGHTS, _OPTIMIZER, _PUBLISHED = "weights", "optimizer/", "published/"


def copy_of(held: TrainedSlice, following: bytes) -> Copy:
    """All that a slice holds, in arrays that nobody writes to while they travel; no update may be unpublished."""
    arrays = {_WEIGHTS: held.weights}
    arrays |= {f"{_OPTIMIZER}{name}": array for name, array in held.optimizer.items()}
    arrays |= {f"{_PUBLISHED}{name}": array for name, array in held.published.besides.items()}
    payload = tuple(array.copy() for array in arrays.values())
    return Copy(following, held.version, held.updates, held.metrics, tuple(arrays), payload)


def state_of(copy: Copy, size: int) -> ShardState:
    """What a leader's copy holds, in arrays of our own. PeerError where it is no shard's of so many numbers."""
    arrays = dict(zip(copy.names, (array.copy() for array in copy.payload), strict=False))
    weights = arrays.pop(_WEIGHTS, None)
    optimizer = {name[len(_OPTIMIZER) :]: arrays.pop(name) for name in copy.names if name.startswith(_OPTIMIZER)}
    published = {name[len(_PUBLISHED) :]: arrays.pop(name) for name in copy.names if name.startswith(_PUBLISHED)}
    fits = weights is not None and all(array.size == size for array in (weights, *optimizer.values()))
    if weights is None or not fits or arrays or len(copy.names) != len(copy.payload):
        sizes = [array.size for array in copy.payload]
        raise PeerError("bad-size", f"a copy of {sizes} numbers, {copy.names}, of a slice of {size}")
    return ShardState(copy.version, weights, optimizer, copy.updates, copy.metrics, published)
