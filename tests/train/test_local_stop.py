"""The end of a run on one machine that was stopped: its members are told, too."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from ps_vae.train.local import LocalCluster
from ps_vae.train.plan import Wishes
from ps_vae.train.server_options import ServerOptions


def test_members_of_a_stopped_run_are_stopped_and_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    cluster = LocalCluster(Wishes(), ServerOptions(listen="", run_dir=tmp_path / "run"), 1, say=said.append)
    # A worker that is still starting: it has not met the server, which has ended, and waits for it.
    member = subprocess.Popen([sys.executable, "-I", "-S", "-c", "import signal; signal.pause()"])
    monkeypatch.setattr(cluster, "_children", {"workers": member})
    (cluster._private / "server.log").touch()
    cluster.stop()
    assert cluster.is_done
    cluster.__exit__(None, None, None)
    assert member.returncode == -signal.SIGTERM
    # That is what is said of one that was waited for in vain.
    assert said == []


@pytest.mark.parametrize("has_begun", [False, True])
def test_members_of_a_run_that_has_not_begun_are_stopped_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, has_begun: bool
) -> None:
    cluster = LocalCluster(Wishes(), ServerOptions(listen="", run_dir=tmp_path / "run"), 1, say=lambda text: None)
    member = subprocess.Popen([sys.executable, "-I", "-S", "-c", "import signal; signal.pause()"])
    monkeypatch.setattr(cluster, "_children", {"workers": member})
    (cluster._private / "server.log").write_text("listening on ipc://x\n" if has_begun else "")
    try:
        cluster.stop()
        if not has_begun:
            assert member.wait(60) == -signal.SIGTERM
        assert (member.poll() is None) == has_begun
    finally:
        member.kill()
        member.wait()
