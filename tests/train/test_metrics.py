"""What Prometheus is told is the run's state, in a form that its own parser takes."""

import re
import selectors
import socket
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from ps_vae.errors import Unreachable, UsageError
from ps_vae.train import metrics_server
from ps_vae.train.counts import OTHER, Counts
from ps_vae.train.metrics import exposition
from ps_vae.train.metrics_server import MetricsServer


def worker(name: str, **changes: Any) -> dict[str, Any]:
    plain = {
        "name": name,
        "microbatches_per_second": 12.5,
        "state": "working",
        "step": 250,
        "microbatches": 4,
        "lease_seconds": 8.25,
        "silent_seconds": 0.5,
        "refused": 2,
    }
    return plain | changes


def follower(how: str, lag: int | None, seconds: float | None, silent: float | None) -> dict[str, Any]:
    return {"follower": how, "lag": lag, "lag_seconds": seconds, "follower_silent_seconds": silent}


STATE: dict[str, Any] = {
    "run": "00ff",
    "run_dir": "runs/a",
    "version": 250,
    "steps": 500,
    "consistency": "bsp",
    "phase": "training",
    "steps_per_second": 2.0,
    "reissued_blocks": 3,
    "backed_up_blocks": 6,
    "bytes_pushed": 12_000_000,
    "bytes_pulled": 13_000_000,
    "bytes_shared": 7,
    "bytes_dense": 25_000_000,
    "time": {"computing": 0.75, "waiting": 0.25},
    "worker_count": 2,
    "workers": [worker("host:17"), worker("host:18", step=None, lease_seconds=None, microbatches_per_second=None)],
    "evaluators": [],
    "shards": [
        {"address": "a", "up": True, "version": 250, "incarnation": 2, **follower("ready", 0, 0.0, 0.25)},
        {"address": "b", "up": False, "version": 0, "incarnation": 0, **follower("joining", 40, 20.0, 1.5)},
        {"address": "c", "up": True, "version": 250, "incarnation": 0, **follower("none", None, None, None)},
    ],
    "elbo": -106.5,
    "validation": {},
    "examples_per_second": 256.0,
    "duplicates": 1,
    "refused": {"stale": 4, "not-finite": 1},
    "changes": {"joined": 2},
    "checkpoint": None,
    "checkpoint_failures": 1,
}

README = Path(__file__).resolve().parents[2] / "README.md"

Series = dict[tuple[str, tuple[tuple[str, str], ...]], float]


def parsed(text: str) -> Series:
    """By name and labels. Two series of one name and labels, which Prometheus would refuse, are an error here, too."""
    samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
    series = {(sample.name, tuple(sorted(sample.labels.items()))): sample.value for sample in samples}
    assert len(series) == len(samples)
    return series


def test_each_figure_of_the_state_is_a_series() -> None:
    series = parsed(exposition(STATE, 0.25).decode())
    expected = {
        "ps_vae_state_age_seconds": 0.25,
        "ps_vae_version": 250,
        "ps_vae_steps": 500,
        "ps_vae_elbo_nats": -106.5,
        "ps_vae_pushed_bytes_total": 12e6,
        "ps_vae_pulled_bytes_total": 13e6,
        "ps_vae_shared_bytes_total": 7,
        "ps_vae_dense_bytes_total": 25e6,
        "ps_vae_reissued_blocks_total": 3,
        "ps_vae_backed_up_blocks_total": 6,
        "ps_vae_duplicate_pushes_total": 1,
        "ps_vae_checkpoint_failures_total": 1,
        "ps_vae_workers": 2,
        "ps_vae_evaluators": 0,
    }
    assert {name: series[name, ()] for name in expected} == expected
    labelled = {
        ("ps_vae_phase", "phase", "training"): 1,
        ("ps_vae_phase", "phase", "stopping"): 0,
        ("ps_vae_time_ratio", "activity", "computing"): 0.75,
        ("ps_vae_refused_messages_total", "code", "stale"): 4,
        ("ps_vae_member_changes_total", "change", "joined"): 2,
        ("ps_vae_worker_microbatches_per_second", "worker", "host:17"): 12.5,
        ("ps_vae_worker_step", "worker", "host:17"): 250,
        ("ps_vae_worker_lease_seconds", "worker", "host:17"): 8.25,
        ("ps_vae_worker_silent_seconds", "worker", "host:18"): 0.5,
        ("ps_vae_worker_refused", "worker", "host:17"): 2,
        ("ps_vae_shard_up", "shard", "1"): 1,
        ("ps_vae_shard_up", "shard", "2"): 0,
        ("ps_vae_shard_version", "shard", "1"): 250,
        ("ps_vae_shard_incarnation", "shard", "1"): 2,
        ("ps_vae_shard_follower_ready", "shard", "1"): 1,
        ("ps_vae_shard_follower_ready", "shard", "2"): 0,
        ("ps_vae_shard_follower_lag_versions", "shard", "1"): 0,
        ("ps_vae_shard_follower_lag_versions", "shard", "2"): 40,
        ("ps_vae_shard_follower_lag_seconds", "shard", "2"): 20,
        ("ps_vae_shard_follower_silent_seconds", "shard", "2"): 1.5,
    }
    found = {(name, label, kind): series[name, ((label, kind),)] for name, label, kind in labelled}
    assert found == labelled
    assert series["ps_vae_run_info", (("consistency", "bsp"), ("run", "00ff"), ("run_dir", "runs/a"))] == 1


def test_every_metric_is_in_the_table_of_the_readme_with_its_type() -> None:
    rows = [line.split("|") for line in README.read_text().splitlines() if line.startswith("| `ps_vae_")]
    table = {(name, row[2].strip()) for row in rows for name in re.findall(r"ps_vae_\w+", row[1])}
    text = exposition(STATE, 0.0).decode()
    told = set(re.findall(r"^# TYPE (\S+) (\S+)$", text, flags=re.MULTILINE))
    # In this format an info is a gauge that is always 1.
    assert {(name, "gauge" if kind == "info" else kind) for name, kind in table} == told


def test_what_is_not_known_is_left_out() -> None:
    series = parsed(exposition(STATE, 0.0).decode())
    assert ("ps_vae_validation_elbo_nats", ()) not in series
    assert ("ps_vae_checkpoint_version", ()) not in series
    for name in ("lag_versions", "lag_seconds", "silent_seconds"):
        assert (f"ps_vae_shard_follower_{name}", (("shard", "3"),)) not in series
    for name in ("ps_vae_worker_step", "ps_vae_worker_lease_seconds", "ps_vae_worker_microbatches_per_second"):
        assert (name, (("worker", "host:18"),)) not in series


def test_workers_of_one_name_and_of_hostile_names_are_series_of_their_own() -> None:
    hostile = 'a"} 1\nps_vae_version 7\n# \\'
    names = ["host:1", "host:1", "host:1 (2)", hostile, "host:1"]
    series = parsed(exposition(STATE | {"workers": [worker(name) for name in names]}, 0.0).decode())
    told = {labels[0][1] for name, labels in series if name == "ps_vae_worker_step"}
    assert len(told) == len(names)
    assert {"host:1", "host:1 (2)", hostile} < told
    assert series["ps_vae_version", ()] == 250


def test_kinds_that_peers_make_up_are_counted_together() -> None:
    counts = Counts()
    for number in range(1_000):
        counts.add(f"made up {number}")
        counts.add("made up 3")
    kinds = counts.by_kind()
    assert len(kinds) < 50
    assert kinds["made up 3"] == 1_001
    assert kinds[OTHER] + len(kinds) - 1 + 1_000 == 2_000
    assert list(kinds) == sorted(kinds)


@pytest.fixture
def server() -> Iterator[MetricsServer]:
    with closing(MetricsServer("0")) as served:
        yield served


def scraped(url: str) -> tuple[int, str, str]:
    try:
        with urllib.request.urlopen(url, timeout=30) as answer:
            return answer.status, answer.headers["Content-Type"], answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, "", error.reason


def test_a_scrape_gets_what_was_shown_last(server: MetricsServer) -> None:
    assert scraped(server.url)[0] == 503
    assert server.is_due
    for version in (1, 2):
        server.show(STATE | {"version": version})
        status, kind, text = scraped(server.url)
        assert (status, kind) == (200, "text/plain; version=0.0.4; charset=utf-8")
        assert parsed(text)["ps_vae_version", ()] == version
    assert not server.is_due
    assert scraped(server.url.replace("/metrics", "/"))[0] == 404


def test_it_is_served_on_the_loopback_unless_another_host_is_said(server: MetricsServer) -> None:
    assert server.url.startswith("http://127.0.0.1:")
    with closing(MetricsServer("[::1]:0")) as other:
        other.show(STATE)
        assert other.url.startswith("http://[::1]:")
        assert scraped(other.url)[0] == 200


def test_of_many_clients_at_once_a_few_are_heard_and_the_others_sent_away(
    server: MetricsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.show(STATE)
    monkeypatch.setattr(metrics_server._Request, "timeout", 600)
    with ExitStack() as stack, selectors.DefaultSelector() as heard:
        for connection in silent_clients(server.url, stack, 50):
            heard.register(connection, selectors.EVENT_READ)
        while len(heard.get_map()) > metrics_server._AT_ONCE:
            ended = heard.select(timeout=30)
            assert ended, "more clients are being heard than may be at once"
            for key, _ in ended:
                assert isinstance(key.fileobj, socket.socket)
                assert receive(key.fileobj) == b""
                heard.unregister(key.fileobj)
        assert len(heard.get_map()) == metrics_server._AT_ONCE


def test_clients_that_say_nothing_are_sent_away_and_hold_up_nobody(
    server: MetricsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.show(STATE)
    monkeypatch.setattr(metrics_server._Request, "timeout", 0.2)
    with ExitStack() as stack:
        for connection in silent_clients(server.url, stack, 50):
            connection.settimeout(30)
            # Closed by the other side, at once or after its patience.
            assert receive(connection) == b""
        assert scraped(server.url)[0] == 200


def silent_clients(url: str, stack: ExitStack, count: int) -> list[socket.socket]:
    """That many connections, which say nothing and end with the stack."""
    port = int(url.split(":")[2].split("/")[0])
    return [stack.enter_context(socket.create_connection(("127.0.0.1", port))) for _ in range(count)]


def receive(connection: socket.socket) -> bytes:
    try:
        return connection.recv(1)
    except ConnectionResetError:
        return b""


def test_a_state_that_cannot_be_told_is_an_error_to_who_asks(server: MetricsServer) -> None:
    server.show({})
    assert scraped(server.url)[0] == 500


@pytest.mark.parametrize("address", ["", "port", "-1", "65536", "host:", "1.5", "٣"])
def test_an_address_that_is_none_is_the_users_fault(address: str) -> None:
    with pytest.raises(UsageError, match="--metrics-port"):
        MetricsServer(address)


def test_an_address_that_is_taken_is_told(server: MetricsServer) -> None:
    taken = server.url.removeprefix("http://").removesuffix("/metrics")
    with pytest.raises(Unreachable, match=f"{taken}.*in use.*--metrics-port"):
        MetricsServer(taken)


def test_without_the_library_it_is_told_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics_server, "find_spec", lambda name: None)
    with pytest.raises(UsageError, match=r"pip install 'ps_vae\[metrics\]'"):
        MetricsServer("0")


def test_a_server_that_was_closed_lets_go_of_its_address() -> None:
    with closing(MetricsServer("0")) as first:
        address = first.url.removeprefix("http://").removesuffix("/metrics")
    with closing(MetricsServer(address)) as second:
        assert second.url == first.url
