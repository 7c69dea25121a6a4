"""What docs/deploy says to service managers: ps-vae takes every command line, and they take every file."""

import json
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import typer
import yaml

from ps_vae.cli.main import app, run
from ps_vae.train import server_process, shard_server, supervisor
from ps_vae.train.key_folder import KeyFolder
from ps_vae.train.node import as_one

ROOT = Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "docs" / "deploy"
UNITS = sorted((DEPLOY / "systemd").iterdir())
SLURM = DEPLOY / "slurm.sh"
README = (DEPLOY / "README.md").read_text()
MANIFEST = [*yaml.safe_load_all((DEPLOY / "kubernetes.yaml").read_text())]
PODS = {each["metadata"]["name"]: each["spec"]["template"] for each in MANIFEST if "template" in each["spec"]}
KUBERNETES = "1.31"
PATIENCE = 90

YES_NO, SECONDS, NUMBER, NAMES = "yes|no", r"\d+", r"\d+", r"[A-Za-z0-9_@-]+( [A-Za-z0-9_@-]+)*"
PATH, ANYTHING = r"-?/[\w./-]+", ".*"
# The directives that there are and what they may be, from systemd.unit(5), systemd.service(5), systemd.exec(5),
# systemd.kill(5), systemd.resource-control(5) and org.freedesktop.systemd1(5) of systemd 252.
DIRECTIVES = {
    "Unit": {
        "Description": ".+",
        "Wants": r"[\w@.-]+\.target",
        "After": r"[\w@.-]+\.target",
        "StartLimitIntervalSec": SECONDS,
        "StartLimitBurst": NUMBER,
    },
    "Service": {
        "Type": "simple|exec|forking|oneshot|dbus|notify|idle",
        "User": "[a-z_][a-z0-9_-]*",
        "Group": "[a-z_][a-z0-9_-]*",
        "StateDirectory": NAMES,
        "CacheDirectory": NAMES,
        "WorkingDirectory": PATH,
        "Environment": r'("?[A-Z_]+=[^"]*"?)( [A-Z_]+=\S*)*',
        "EnvironmentFile": PATH,
        "ExecStart": r"/\S+ .+",
        "Restart": "no|on-success|on-failure|on-abnormal|on-watchdog|on-abort|always",
        "RestartSec": SECONDS,
        "RestartPreventExitStatus": r"\d+",
        "KillMode": "control-group|mixed|process|none",
        "KillSignal": r"SIG[A-Z]+",
        "TimeoutStopSec": SECONDS,
        "OOMPolicy": "continue|stop|kill",
        "LimitNOFILE": NUMBER,
        "NoNewPrivileges": YES_NO,
        "CapabilityBoundingSet": "(CAP_[A-Z_]+ ?)*",
        "AmbientCapabilities": "(CAP_[A-Z_]+ ?)*",
        "ProtectSystem": f"{YES_NO}|full|strict",
        "ProtectHome": f"{YES_NO}|read-only|tmpfs",
        "PrivateTmp": YES_NO,
        "PrivateDevices": YES_NO,
        "ProtectClock": YES_NO,
        "ProtectControlGroups": YES_NO,
        "ProtectHostname": YES_NO,
        "ProtectKernelLogs": YES_NO,
        "ProtectKernelModules": YES_NO,
        "ProtectKernelTunables": YES_NO,
        "ProtectProc": "noaccess|invisible|ptraceable|default",
        "RestrictAddressFamilies": "AF_[A-Z0-9]+( AF_[A-Z0-9]+)*",
        "RestrictNamespaces": YES_NO,
        "RestrictRealtime": YES_NO,
        "RestrictSUIDSGID": YES_NO,
        "LockPersonality": YES_NO,
        "SystemCallArchitectures": "native",
        "SystemCallFilter": NAMES,
        "SystemCallErrorNumber": "E[A-Z]+",
        "UMask": "0[0-7]{3}",
    },
    "Install": {"WantedBy": r"[\w@.-]+\.target"},
}


def directives(unit: Path) -> Iterator[tuple[str, str, str]]:
    """Section, name and value of each line of a unit that says something."""
    section = ""
    for line in unit.read_text().splitlines():
        if line.startswith("["):
            section = line.strip("[]")
        elif line and not line.startswith("#"):
            name, _, value = line.partition("=")
            yield section, name, value


def command_of(unit: Path) -> list[str]:
    """What systemd starts, with the unit's own environment: ${NAME} is one word, $NAME as many as it has."""
    lines = [*directives(unit)]
    said = [word.partition("=") for _, name, value in lines if name == "Environment" for word in shlex.split(value)]
    environment = {name: value for name, _, value in said}
    ((*_, command),) = [line for line in lines if line[1] == "ExecStart"]
    words: list[str] = []
    for word in command.replace("%i", "head").split():
        if re.fullmatch(r"\$\w+", word):
            words += environment[word[1:]].split()
        else:
            words.append(re.sub(r"\$\{(\w+)\}", lambda found: environment[found[1]], word))
    return words


def container(pod: str, name: str, kind: str = "containers") -> dict[str, Any]:
    (found,) = [each for each in PODS[pod]["spec"][kind] if each["name"] == name]
    return found


def arguments(pod: str, name: str) -> list[str]:
    """What the image's entry point gets, with $(NAME) as Kubernetes puts it in."""
    found = container(pod, name)
    cores = found["resources"]["limits"].get("cpu", "")
    return [word.replace("$(CORES)", cores) for word in found["args"]]


def probes() -> list[list[str]]:
    server = container("ps-vae-server", "server")
    return [server[f"{kind}Probe"]["exec"]["command"] for kind in ("startup", "readiness", "liveness")]


def lines_of_the_readme() -> list[list[str]]:
    """The words of each `ps-vae` that is to be typed."""
    blocks = re.findall(r"^```\n(.*?)^```", README, flags=re.MULTILINE | re.DOTALL)
    lines = re.findall(r"(?:^|[ /])ps-vae ((?:keys|status|server|worker) .*)", "\n".join(blocks), flags=re.MULTILINE)
    return [shlex.split(line, comments=True) for line in lines]


def lines_of_the_script() -> list[list[str]]:
    """The words of each `ps-vae` in the script, its variables standing for words of theirs."""
    text = SLURM.read_text().replace("\\\n", " ")
    lines = re.findall(r"^\s*srun .*? ps-vae (.*) &$", text, flags=re.MULTILINE)
    values = {"port": "20001", "head": "node1", "SLURM_CPUS_PER_TASK": "4", "run": "runs/a", "keys": "/etc/ps-vae/keys"}
    plain = [line.replace('"$@"', "--data mnist --epochs 20") for line in lines]
    return [shlex.split(re.sub(r"\$(\w+)", lambda found: values[found[1]], line)) for line in plain]


LINES = [
    *(command_of(unit)[1:] for unit in UNITS),
    arguments("ps-vae-server", "server"),
    arguments("ps-vae-follower", "follower"),
    arguments("ps-vae-worker", "worker"),
    *lines_of_the_script(),
]


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    assert run(["keys", "new", "--keys", str(tmp_path / "keys")]) == 0
    return tmp_path / "keys"


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What would have been started; nothing is."""
    names: list[str] = []

    def stand_in(name: str, answer: Any) -> Callable[..., Any]:
        def start(*positional: Any, **named: Any) -> Any:
            names.append(name)
            return answer

        return start

    class Outcome:
        failed, reason = False, "done"

    monkeypatch.setattr(server_process, "supervise_server", stand_in("server", 0))
    monkeypatch.setattr(shard_server, "serve_shard", stand_in("shard", (False, "")))
    monkeypatch.setattr(supervisor, "supervise", stand_in("workers", 0))
    monkeypatch.setattr(as_one, "work_as_one", stand_in("workers", Outcome()))
    return names


def test_each_kind_of_process_is_in_each_deployment() -> None:
    assert sorted(unit.name for unit in UNITS) == [
        "ps-vae-server.service",
        "ps-vae-shard.service",
        "ps-vae-worker@.service",
    ]
    assert len(lines_of_the_script()) == 2
    assert len(lines_of_the_readme()) == 4


@pytest.mark.parametrize("words", LINES, ids=lambda words: " ".join(words[:3]))
def test_each_command_line_gets_as_far_as_to_start_what_it_is_for(
    words: list[str], started: list[str], keys: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    here = [re.sub("/etc/ps-vae/keys|/keys/own", str(keys), word) for word in words]

    assert run(here) == 0, capsys.readouterr().err

    expected = "workers" if words[0] == "worker" else "shard" if "join" in " ".join(words) else "server"
    assert started == [expected]


@pytest.mark.parametrize(
    "words", [*(probe[1:] for probe in probes()), *lines_of_the_readme()], ids=lambda words: " ".join(words[:3])
)
def test_each_command_line_that_asks_is_understood(words: list[str]) -> None:
    command: Any = typer.main.get_command(app)
    while hasattr(command, "commands"):
        command, words = command.commands[words[0]], words[1:]

    # Reading the words raises where they are off; nothing is run.
    command.make_context("command", [*words])


@pytest.mark.parametrize("words", LINES, ids=lambda words: " ".join(words[:3]))
def test_each_first_server_begins_and_continues_with_the_same_words(words: list[str]) -> None:
    if words[0] == "server" and not any(word.startswith("--join") for word in words):
        assert {"--supervise", "--begin-or-resume"} <= {*words}
        assert "--run-dir" in " ".join(words)
    else:
        assert "--connect-timeout" in " ".join(words)


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.name)
def test_a_unit_says_only_what_systemd_knows(unit: Path) -> None:
    for section, name, value in directives(unit):
        assert name in DIRECTIVES[section], f"{name}= in [{section}]"
        assert re.fullmatch(DIRECTIVES[section][name], value), f"{name}={value}"


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.name)
def test_a_unit_stops_its_parent_alone_and_starts_again_what_has_failed(unit: Path) -> None:
    said = {name: value for _, name, value in directives(unit)}

    # With `control-group` the child would get a second SIGTERM from systemd: that is "stop at once".
    assert (said["KillMode"], said["KillSignal"]) == ("mixed", "SIGTERM")
    assert (said["Restart"], said["RestartPreventExitStatus"]) == ("on-failure", "2")
    # Numba writes code and runs it.
    assert "MemoryDenyWriteExecute" not in said


@pytest.mark.parametrize("resource", MANIFEST, ids=lambda resource: resource["metadata"]["name"])
def test_the_manifest_is_one_that_kubernetes_takes(resource: dict[str, Any]) -> None:
    kubernetes_validate.validate(resource, KUBERNETES, strict=True)


def test_selectors_find_the_pods_that_they_are_for() -> None:
    labels = {name: pod["metadata"]["labels"] for name, pod in PODS.items()}
    for resource in MANIFEST:
        name, selector = resource["metadata"]["name"], resource["spec"]["selector"]
        wanted = selector.get("matchLabels", selector)
        found = {pod for pod, has in labels.items() if wanted.items() <= has.items()}
        assert found == {"ps-vae-server" if resource["kind"] == "Service" else name}


def test_clients_go_where_the_server_listens_and_metrics_are_where_they_are_said_to_be() -> None:
    service, server = MANIFEST[0], next(each for each in MANIFEST if each["kind"] == "StatefulSet")
    ports = {port["name"]: port["containerPort"] for port in container("ps-vae-server", "server")["ports"]}
    words = " ".join(arguments("ps-vae-server", "server"))
    address = f"tcp://{server['metadata']['name']}-0.{server['spec']['serviceName']}:{ports['server']}"

    assert server["spec"]["serviceName"] == service["metadata"]["name"]
    assert {port["targetPort"]: port["port"] for port in service["spec"]["ports"]} == ports
    assert f"--listen=tcp://0.0.0.0:{ports['server']}" in words
    assert f"--metrics-port=0.0.0.0:{ports['metrics']}" in words
    annotations = PODS["ps-vae-server"]["metadata"]["annotations"]
    assert annotations["prometheus.io/port"] == str(ports["metrics"])
    assert annotations["prometheus.io/path"] == "/metrics"
    assert f"--join={address}" in arguments("ps-vae-follower", "follower")
    assert f"--server={address}" in arguments("ps-vae-worker", "worker")
    assert all(f"tcp://127.0.0.1:{ports['server']}" in probe for probe in probes())


@pytest.mark.parametrize("pod", PODS)
def test_every_place_in_a_pod_is_there_and_no_container_is_more_than_a_user(pod: str) -> None:
    spec = PODS[pod]["spec"]
    claims = [claim for each in MANIFEST for claim in each["spec"].get("volumeClaimTemplates", [])]
    volumes = {volume["name"] for volume in [*spec["volumes"], *(claim["metadata"] for claim in claims)]}

    assert spec["securityContext"]["runAsNonRoot"]
    for each in [*spec["containers"], *spec["initContainers"]]:
        assert {mount["name"] for mount in each["volumeMounts"]} <= volumes
        context = each["securityContext"]
        assert context["readOnlyRootFilesystem"]
        assert not context["allowPrivilegeEscalation"]
        assert context["capabilities"] == {"drop": ["ALL"]}
        assert each["resources"]["requests"].keys() == {"cpu", "memory"}


@pytest.mark.parametrize("pod", PODS)
def test_the_keys_that_a_pod_is_given_are_such_that_they_are_used(pod: str, keys: Path, tmp_path: Path) -> None:
    (secret,) = [volume["secret"]["secretName"] for volume in PODS[pod]["spec"]["volumes"] if "secret" in volume]
    made = dict(re.findall(r"secret generic (\S+) \\\n((?:.*\\\n)*.*)", README))
    given, own = tmp_path / "secret", tmp_path / "mounted"
    given.mkdir()
    own.mkdir()
    for name in re.findall(r"--from-file=keys/(\S+)", made[secret]):
        (given / name).write_text((keys / name).read_text())
        # What Kubernetes makes of it in a pod with an fsGroup.
        (given / name).chmod(0o440)
    *shell, script = container(pod, "keys", "initContainers")["command"]

    # Twice: where the node has lost the pod's sandbox it runs again.
    for _ in range(2):
        here = script.replace("/secret", str(given)).replace("/keys", str(own))
        subprocess.run([*shell, here], check=True, timeout=PATIENCE)

    folder = KeyFolder(own / "own")
    assert folder.client_keys().server == KeyFolder(keys).client_keys().server
    if pod != "ps-vae-worker":
        worker = KeyFolder(keys).client_keys().own.public
        assert folder.server_keys(print).admits(worker) == "worker"
    else:
        assert not folder.has_server


def test_the_image_is_made_of_what_is_here_and_starts_ps_vae() -> None:
    lines = (DEPLOY / "Dockerfile").read_text().splitlines()
    copied = [word for line in lines if line.startswith("COPY") for word in line.split()[1:-1]]

    assert all((ROOT / name).exists() for name in copied)
    assert {"setup.cfg", "pyproject.toml", "ps_vae"} <= {*copied}
    assert json.loads(lines[-1].removeprefix("ENTRYPOINT ")) == ["ps-vae"]


def test_the_readme_shows_every_file_that_is_there() -> None:
    files = {str(path.relative_to(DEPLOY)) for path in DEPLOY.rglob("*") if path.is_file()} - {"README.md"}

    assert {*re.findall(r"\]\(([^)]+)\)", README)} == files


def test_the_script_has_no_fault_that_a_shell_or_its_linter_finds() -> None:
    shellcheck = Path(sys.executable).parent / "shellcheck"

    assert subprocess.run(["bash", "-n", SLURM], timeout=PATIENCE).returncode == 0
    found = subprocess.run([shellcheck, SLURM], capture_output=True, text=True, timeout=PATIENCE)
    assert (found.returncode, found.stdout) == (0, "")


@pytest.fixture
def slurm(tmp_path: Path, keys: Path) -> Callable[[], subprocess.Popen[str]]:
    """Starts the script as Slurm would, on one node; `requeued` then has the jobs that it asked to be run again."""
    commands = tmp_path / "commands"
    commands.mkdir()
    program = f'while [[ $1 != ps-vae ]]; do shift; done\nshift\nexec {sys.executable} -m ps_vae "$@"\n'
    control = f'case $1 in show) echo 127.0.0.1; echo node2;; requeue) echo "$2" >>{tmp_path}/requeued;; esac\n'
    for name, text in (("srun", program), ("scontrol", control)):
        (commands / name).write_text(f"#!/usr/bin/env bash\n{text}")
        (commands / name).chmod(0o755)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    job = {"SLURM_JOB_NAME": "digits", "SLURM_JOB_ID": "77", "SLURM_JOB_NODELIST": "node[1-2]"}
    job["SLURM_CPUS_PER_TASK"] = "1"
    ours = {"PS_VAE_KEYS": str(keys), "PS_VAE_PORT": str(port), "PATH": f"{commands}:{os.environ['PATH']}"}
    model = ["--data", "digits", "--hidden", "8", "--latent", "2", "--batch-size", "64"]

    def start() -> subprocess.Popen[str]:
        return subprocess.Popen(
            ["bash", SLURM, *model, "--steps", "4000", "--checkpoint-every", "100", "--json"],
            env={**os.environ, **job, **ours, "PYTHONPATH": str(ROOT)},
            cwd=tmp_path,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    return start


def test_a_job_that_is_out_of_time_stops_with_a_checkpoint_is_requeued_and_goes_on_to_the_end(
    slurm: Callable[[], subprocess.Popen[str]], tmp_path: Path
) -> None:
    first = slurm()
    assert first.stdout is not None
    told = ""
    for line in first.stdout:
        told += line
        if "checkpoint runs/digits/checkpoints/step-00000100" in line:
            first.send_signal(signal.SIGTERM)
    assert first.wait(PATIENCE) == 0, told
    assert (tmp_path / "requeued").read_text() == "77\n"
    stopped = json.loads((tmp_path / "runs" / "digits" / "result.json").read_text())
    assert 100 <= stopped["version"] < 4000, told

    second = slurm()
    told = second.communicate(timeout=PATIENCE)[0]
    assert second.returncode == 0, told
    assert f"continued from version {stopped['version']:,}" in told
    assert json.loads((tmp_path / "runs" / "digits" / "result.json").read_text())["version"] == 4000
    assert (tmp_path / "requeued").read_text() == "77\n"
