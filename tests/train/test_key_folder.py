"""Keys on the disk: for their owner alone, never written over, and an allow-list that is read again as it changes."""

import os
import stat
import threading

import pytest

from ps_vae.errors import UsageError
from ps_vae.ps.security.door import new_pair, pair_of
from ps_vae.train import allow_list
from ps_vae.train.allow_list import AllowList
from ps_vae.train.key_folder import KeyFolder, KnownKey, check_open


@pytest.fixture
def folder(tmp_path):
    return KeyFolder(tmp_path / "keys")


@pytest.fixture
def at_once(monkeypatch):
    """An allow-list looks each time that it is asked."""
    monkeypatch.setattr(allow_list, "_LOOK_SECONDS", 0.0)


def modes(folder):
    files = {path.relative_to(folder.path.parent).as_posix(): path for path in folder.path.parent.rglob("*")}
    return {name: stat.S_IMODE(path.stat().st_mode) for name, path in files.items()}


def test_whatever_the_umask_all_is_for_the_owner_alone(folder):
    before = os.umask(0)
    try:
        folder.create("server")
        folder.create("w")
        folder.allow("w")
    finally:
        os.umask(before)

    files = ("server.secret", "server.public", "w.secret", "w.public", "allowed/w.public")
    assert modes(folder) == {"keys": 0o700, "keys/allowed": 0o700, **{f"keys/{name}": 0o600 for name in files}}


def test_a_secret_is_its_owner_s_from_the_moment_that_it_is_there(folder, monkeypatch):
    opened = []
    real = os.open

    def watch(path, flags, mode=0o777, **more):
        opened.append((str(path), flags, mode))
        return real(path, flags, mode, **more)

    monkeypatch.setattr(os, "open", watch)
    folder.create("w")

    ((flags, mode),) = [(flags, mode) for path, flags, mode in opened if path.endswith("w.secret")]
    assert flags & os.O_CREAT
    assert flags & os.O_EXCL
    assert mode == 0o600


def test_a_pair_is_never_written_over(folder):
    pair = folder.create("w")

    with pytest.raises(UsageError, match="exists"):
        folder.create("w")
    (folder.path / "w.public").unlink()
    with pytest.raises(UsageError, match="exists"):
        folder.create("w")
    assert (folder.path / "w.secret").read_text() == pair.secret + "\n"


def test_a_secret_that_could_not_be_written_whole_is_not_there(folder, monkeypatch):
    def fail(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="No space"):
        folder.create("w")

    assert list(folder.path.iterdir()) == []


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o610, 0o666])
def test_a_secret_that_is_open_to_others_is_not_used(folder, mode):
    folder.create("server")
    folder.create("w")
    for name, use in (("w", folder.client_keys), ("server", lambda: folder.server_keys(print))):
        path = folder.path / f"{name}.secret"
        path.chmod(mode)
        with pytest.raises(UsageError, match=f"chmod 600 {path}"):
            use()


@pytest.mark.parametrize("below", [".", "allowed"])
def test_a_folder_that_others_can_write_to_is_not_used(folder, below):
    folder.create("server")
    folder.create("w")
    folder.allow("w")
    (folder.path / below).chmod(0o770)

    with pytest.raises(UsageError, match="chmod 700"):
        folder.server_keys(print)


def test_servers_and_clients_of_one_folder_know_each_other(folder):
    folder.create("server")
    worker = folder.create("worker")
    folder.allow("worker")

    server, client = folder.server_keys(print), folder.client_keys()

    assert client.server == server.own.public
    assert client.own == worker == pair_of(worker.secret)
    assert server.admits(client.own.public) == "worker"
    assert server.admits(new_pair().public) is None


def test_a_client_has_the_key_that_is_named_or_worker_or_the_only_one(folder):
    folder.create("server")
    ann = folder.create("ann")
    assert folder.client_keys().own == ann

    folder.create("bob")
    with pytest.raises(UsageError, match="say --key and one of ann, bob"):
        folder.client_keys()
    assert folder.client_keys("ann").own == ann

    worker = folder.create("worker")
    assert folder.client_keys().own == worker


def test_a_client_without_the_server_s_public_key_says_where_to_get_it(folder):
    folder.create("ann")

    assert not folder.has_client
    with pytest.raises(UsageError, match=r"has no server.public: copy it"):
        folder.client_keys()


def test_what_is_allowed_and_revoked_while_a_server_runs_holds_from_then_on(folder, at_once):
    folder.create("server")
    ann = folder.create("ann").public
    server = folder.server_keys(print)
    assert server.admits(ann) is None

    folder.allow("ann")
    assert server.admits(ann) == "ann"
    folder.revoke("ann")
    assert server.admits(ann) is None
    folder.allow("ann")
    assert server.admits(ann) == "ann"


def test_a_key_may_come_from_any_file(folder, tmp_path):
    elsewhere = KeyFolder(tmp_path / "elsewhere")
    ann = elsewhere.create("ann").public
    folder.allow("ann.from.afar", elsewhere.path / "ann.public")

    assert folder.known() == [KnownKey("ann.from.afar", ann, False, True)]


def test_one_key_has_one_name_and_one_name_has_one_key(folder):
    folder.create("ann")
    folder.create("bob")
    folder.allow("ann")
    folder.allow("ann")

    with pytest.raises(UsageError, match=r"ann is allowed with .*; revoke that first"):
        folder.allow("ann2", folder.path / "ann.public")
    with pytest.raises(UsageError, match=r"ann is allowed with .*; revoke that first"):
        folder.allow("ann", folder.path / "bob.public")


@pytest.mark.parametrize("name", ["", "../x", "a/b", ".hidden", "a b", "a\n", "x" * 65, "-x"])
@pytest.mark.parametrize("act", [KeyFolder.create, KeyFolder.allow, KeyFolder.revoke, KeyFolder.client_keys])
def test_a_name_cannot_lead_out_of_the_folder(folder, act, name):
    with pytest.raises(UsageError, match="is no name for a key"):
        act(folder, name)


def test_the_servers_key_is_no_client_s(folder):
    folder.create("server")
    with pytest.raises(UsageError, match="let in anyway"):
        folder.allow("server")
    with pytest.raises(UsageError, match="no key to come in with"):
        folder.client_keys()


def test_who_is_not_allowed_cannot_be_revoked_and_the_allowed_are_told(folder):
    folder.create("ann")
    folder.allow("ann")
    with pytest.raises(UsageError, match=r"bob is not allowed in .*; allowed are: ann"):
        folder.revoke("bob")


@pytest.mark.parametrize("content", [b"", b"too short", b"\xff" * 40, b"#" * 40, b"a" * 100_000])
def test_a_file_that_is_no_key_lets_in_nobody_and_is_told_of_once(folder, at_once, content):
    folder.create("ann")
    folder.allow("ann")
    ann = (folder.path / "ann.public").read_text().strip()
    said = []
    known = AllowList(folder.allowed, said.append)
    (folder.allowed / "bob.public").write_bytes(content)

    for _ in range(3):
        assert known.name_of(ann) == "ann"
        assert known.name_of("#" * 40) is None
    assert len(said) == 1
    assert "bob.public" in said[0]


def test_a_list_that_cannot_be_read_for_now_holds_as_it_was(folder, at_once, monkeypatch):
    folder.create("ann")
    folder.allow("ann")
    ann = (folder.path / "ann.public").read_text().strip()
    said = []
    known = AllowList(folder.allowed, said.append)
    assert known.name_of(ann) == "ann"

    def fail(path):
        raise OSError(5, "Input/output error", str(path))

    monkeypatch.setattr(os, "scandir", fail)

    assert [known.name_of(ann) for _ in range(3)] == ["ann"] * 3
    assert len(said) == 1
    assert "Input/output error" in said[0]


def test_a_folder_that_is_not_there_allows_nobody(tmp_path):
    assert AllowList(tmp_path / "nowhere", print).name_of(new_pair().public) is None


def test_many_threads_may_ask_while_the_folder_changes(folder, at_once):
    folder.create("ann")
    folder.create("bob")
    folder.allow("ann")
    ann = (folder.path / "ann.public").read_text().strip()
    known = AllowList(folder.allowed, print)
    answers, stop = [], threading.Event()

    def ask():
        while not stop.is_set():
            answers.append(known.name_of(ann))

    threads = [threading.Thread(target=ask) for _ in range(3)]
    for thread in threads:
        thread.start()
    for _ in range(20):
        folder.allow("bob")
        folder.revoke("bob")
    stop.set()
    for thread in threads:
        thread.join()

    assert set(answers) == {"ann"}


@pytest.mark.parametrize(
    "address",
    [
        "tcp://0.0.0.0:5555",
        "tcp://*:5555",
        "tcp://[::]:5555",
        "tcp://10.0.0.1:5555",
        "tcp://node7:5555",
        "tcp://[fe80::1]:5555",
        "tcp://[broken:5555",
        "tcp://127.evil.example:5555",
        "tcp://localhost.example:5555",
    ],
)
def test_an_address_for_other_hosts_is_open_only_where_that_is_said(address, tmp_path):
    with pytest.raises(UsageError, match="say --insecure"):
        check_open(address, None, is_insecure=False)
    check_open(address, None, is_insecure=True)
    check_open(address, tmp_path, is_insecure=False)


@pytest.mark.parametrize(
    "address",
    [
        "ipc:///tmp/run",
        "tcp://127.0.0.1:5555",
        "tcp://127.1.2.3:*",
        "tcp://localhost:5555",
        "tcp://[::1]:5555",
        "tcp://[::ffff:127.0.0.1]:5555",
    ],
)
def test_on_this_host_alone_there_need_be_no_keys(address):
    check_open(address, None, is_insecure=False)
