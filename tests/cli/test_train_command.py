"""`ps-vae train` for real: server, worker and evaluator as processes of this machine."""

import json
import signal
import subprocess
import sys
from pathlib import Path

from ps_vae.jit import COMPILING

# The keys that scripts may rely on.
CONTRACT = {
    "run_dir",
    "steps",
    "examples",
    "seconds",
    "examples_per_second",
    "bytes_pushed",
    "bytes_pulled",
    "elbo",
}
SMALL = ["--data", "digits", "--hidden", "16", "--latent", "2", "--workers", "1"]


def start(run_dir: Path, *words: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "ps_vae", "train", *SMALL, "--run-dir", str(run_dir), "--json", *words]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_a_run_ends_with_one_json_object_and_pictures(tmp_path: Path) -> None:
    train = start(tmp_path / "run", "--steps", "40")

    out, err = train.communicate(timeout=100)

    assert train.returncode == 0, err
    result = json.loads(out)
    assert set(result) >= CONTRACT
    assert (result["run_dir"], result["steps"], result["version"]) == (str(tmp_path / "run"), 40, 40)
    assert result["examples"] == 40 * 128
    assert sorted(path.name for path in (tmp_path / "run" / "pictures").iterdir()) == [
        "loss.png",
        "reconstructions.png",
        "samples.png",
    ]


def test_a_run_that_is_interrupted_has_a_checkpoint_and_exit_code_0(tmp_path: Path) -> None:
    train = start(tmp_path / "run", "--epochs", "100000", "--no-pictures")
    assert train.stderr is not None
    # Before it, a line where kernels had to be compiled.
    first = next(line for line in iter(train.stderr.readline, "") if not line.startswith(COMPILING))
    train.send_signal(signal.SIGINT)

    out, err = train.communicate(timeout=100)

    assert first.startswith("step "), first
    assert train.returncode == 0, err
    result = json.loads(out)
    assert not result["failed"]
    assert 0 < result["version"] < result["steps"]
    assert (tmp_path / "run" / "checkpoints" / f"step-{result['version']:08d}.safetensors").exists()


def test_data_that_do_not_exist_leave_nothing_behind(tmp_path: Path) -> None:
    train = start(tmp_path / "run", "--data", "no-such-data")

    out, err = train.communicate(timeout=100)

    assert train.returncode == 2
    assert out == ""
    assert err.startswith("ps-vae: unknown data set 'no-such-data'")
    assert err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []
