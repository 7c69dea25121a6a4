"""What workers and evaluators have in common: from the server's welcome to a configuration and the same data."""

import os
import socket

from ps_vae.data import Dataset
from ps_vae.errors import DataError, UsageError
from ps_vae.ps.messages import Welcome
from ps_vae.train.config import RunConfig
from ps_vae.train.data import data_of

__all__ = ["configuration", "own_name", "same_data"]


def own_name() -> str:
    """host:pid, for people who look for this process."""
    return f"{socket.gethostname()}:{os.getpid()}"


def configuration(welcome: Welcome) -> RunConfig:
    """The run's configuration. Raises PeerError where it makes no sense."""
    return RunConfig.unpack(welcome.config)


def same_data(config: RunConfig, where: str | Dataset | None) -> Dataset:
    """The run's data on this host; `where` is their place here, or they themselves; None: the place on the server.

    Raises DataError where they cannot be read or are not the server's.
    """
    if isinstance(where, Dataset):
        return where
    spec = where or config.data
    try:
        data = data_of(config, where)
    except (DataError, UsageError) as error:
        hint = "put them there, or say with --data where they are on this host"
        raise DataError(f"the run's data cannot be read here: {error}; {hint}") from None
    if data.fingerprint != config.data_fingerprint:
        raise DataError(
            f"{spec} on this host has fingerprint {data.fingerprint}, the server trains on {config.data} with "
            f"{config.data_fingerprint}; copy the server's data, or say with --data where they are on this host"
        )
    return data
