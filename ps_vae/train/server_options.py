"""Where and how a first server runs."""

from dataclasses import dataclass
from pathlib import Path

from ps_vae.errors import UsageError
from ps_vae.ps.consistency import parse_consistency

__all__ = ["ServerOptions"]


@dataclass(frozen=True, slots=True)
class ServerOptions:
    """Where and how the server runs; nothing in here changes what is computed.

    shards         processes started here, this one included
    remote_shards  further ones that are waited for (`start-server --join`)
    keep           checkpoints that stay on the disk
    transport      how tensors travel between processes of this host: one of ps_vae.ps.transport.TRANSPORTS
    await_workers  that have to be ready before the first step begins
    communication  manual: as the run's options say; auto: as a trial finds best
    log_format     of the shards' processes that are started here
    metrics        PORT or HOST:PORT where Prometheus finds what is measured; None: nowhere
    replicas       followers of each shard, started here: 0 or 1
    keys           the folder of keys; None: everybody is let in, and nothing is encrypted
    insecure       that may be so at an address for other hosts, too
    backup_workers whose work is given to others too while they are slow, in bsp
    """

    listen: str = "tcp://127.0.0.1:5555"
    shards: int = 1
    remote_shards: int = 0
    run_dir: Path | None = None
    resume: bool = False
    reproducible: bool = False
    keep: int = 3
    transport: str = "auto"
    await_workers: int = 1
    communication: str = "manual"
    log_format: str = "text"
    metrics: str | None = None
    replicas: int = 0
    keys: Path | None = None
    insecure: bool = False
    backup_workers: int = 0

    def check(self) -> None:
        """UsageError where numbers are out of their range."""
        if self.replicas not in (0, 1):
            raise UsageError(f"--replicas {self.replicas}: a shard has no follower or one")
        if min(self.shards, self.keep, self.await_workers) < 1:
            raise UsageError("--shards, --keep and --await-workers are at least 1")
        if min(self.remote_shards, self.backup_workers) < 0:
            raise UsageError("--remote-shards and --backup-workers are at least 0")

    def check_for(self, consistency: str) -> None:
        """UsageError where an option does not go with a run of this consistency."""
        is_synchronous = parse_consistency(consistency).is_synchronous
        if self.replicas and not is_synchronous:
            raise UsageError(f"--replicas {self.replicas} needs --consistency bsp; this run is {consistency}")
        if self.backup_workers and not is_synchronous:
            raise UsageError(
                f"--backup-workers {self.backup_workers} is for --consistency bsp; in {consistency} nobody waits "
                "for a slow worker"
            )
