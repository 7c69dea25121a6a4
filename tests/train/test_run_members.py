"""Members of a run: on the server's data, with arithmetic that can be compared."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from small_run import small_config, small_data

from ps_vae.data import load
from ps_vae.errors import DataError, PeerError
from ps_vae.ps.messages import Welcome
from ps_vae.train.arithmetic import fingerprint
from ps_vae.train.evaluator import _Program as EvaluatorProgram
from ps_vae.train.member import configuration, own_name, same_data
from ps_vae.train.plan import Wishes, plan
from ps_vae.train.processes import StopSignal
from ps_vae.train.shard_server import Place, serve_shard

# As a worker has it: BLAS is told its threads and kernels before it is loaded.
ASK = "from ps_vae.train.arithmetic import fingerprint, use_one_thread; use_one_thread(); print(fingerprint())"


def welcome(config: bytes) -> Welcome:
    return Welcome(bytes(16), bytes(16), config, (("tcp://*:1", 0, 16),), 4, 6, 0, 0, 0, 0, 0)


def test_the_configuration_is_the_servers() -> None:
    assert configuration(welcome(small_config().pack())) == small_config()
    with pytest.raises(PeerError, match="configuration"):
        configuration(welcome(b"{}"))


def test_data_are_taken_from_where_they_lie_on_this_host(tmp_path: Path) -> None:
    there, here = tmp_path / "there.npy", tmp_path / "here.npy"
    for path in (there, here):
        np.save(path, np.eye(30, 16, dtype=np.float32))
    config = plan(Wishes(data=str(there), hidden=(8,), latent=2, batch_size=8, steps=1), load(str(there)))
    assert same_data(config, None).name == str(there)
    there.unlink()
    assert same_data(config, str(here)).name == str(here)
    with pytest.raises(DataError, match=f"{there}.*--data"):
        same_data(config, None)


def test_other_data_than_the_servers_are_refused_with_both_fingerprints() -> None:
    config = small_config()
    other = load("gaussian:64x64")
    with pytest.raises(DataError) as caught:
        same_data(config, "gaussian:64x64")
    words = ["gaussian:64x64", other.fingerprint, "digits", small_data().fingerprint, "--data"]
    assert [word for word in words if word not in str(caught.value)] == []


def test_the_same_data_in_another_split_are_other_data() -> None:
    with pytest.raises(DataError, match=small_data().fingerprint):
        same_data(plan(Wishes(data="digits", split="0.5,0.25,0.25", batch_size=8, steps=1), small_data("auto")), None)


def test_an_evaluator_has_nothing_to_say_about_a_split_without_rows() -> None:
    program = EvaluatorProgram(None, lambda text: None)
    program.join(welcome(small_config(split="1,0,0").pack()))
    assert program.measure(3) == {}


def test_a_name_tells_host_and_process() -> None:
    host, _, process = own_name().rpartition(":")
    assert host
    assert Path(f"/proc/{process}").is_dir()


def test_two_processes_of_one_host_have_the_same_arithmetic(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENBLAS_NUM_THREADS", "1")
    monkeypatch.setenv("OPENBLAS_CORETYPE", "Haswell")
    run = [sys.executable, "-c", ASK]
    processes = [subprocess.Popen(run, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    answers = [process.communicate(timeout=60)[0] for process in processes]
    assert answers[0] == answers[1]
    assert answers[0].startswith(f"numpy-{np.__version__} numba-")


def test_a_fingerprint_fits_into_a_hello() -> None:
    assert len(fingerprint()) <= 256
    assert fingerprint() == fingerprint()


def test_a_shard_that_is_told_to_stop_before_it_is_admitted_has_not_failed(tmp_path: Path) -> None:
    should_stop = StopSignal()
    should_stop.count = 1
    place = Place(f"ipc://{tmp_path}/nobody", f"ipc://{tmp_path}/shard")
    failed, reason = serve_shard(place, say=lambda text: None, should_stop=should_stop)
    assert not failed
    assert "stopped" in reason
