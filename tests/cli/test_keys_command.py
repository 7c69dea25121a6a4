"""`ps-vae keys`, and when the other commands want keys."""

import json

import pytest

from ps_vae.cli.key_options import client_keys, default_folder, key_words, server_folder
from ps_vae.cli.main import run
from ps_vae.errors import UsageError
from ps_vae.train.key_folder import KeyFolder

OPEN, HERE = "tcp://0.0.0.0:5555", "tcp://127.0.0.1:5555"


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


def listed(capsys, *words):
    capsys.readouterr()
    assert run(["keys", "list", "--json", *words]) == 0
    return {key["name"]: (key["secret_here"], key["allowed"]) for key in json.loads(capsys.readouterr().out)["keys"]}


def test_new_once_is_all_where_machines_share_the_folder(home, capsys):
    assert run(["keys", "new"]) == 0

    assert listed(capsys) == {"server": (True, False), "worker": (True, True)}
    folder = home / ".config" / "ps-vae" / "keys"
    assert server_folder(None, False, OPEN) == folder
    shown = client_keys(None, None, False, "tcp://node7:5555")
    assert shown == KeyFolder(folder).client_keys()
    assert KeyFolder(folder).server_keys(print).admits(shown.own.public) == "worker"
    assert run(["keys", "new"]) == 2


def test_two_machines_that_share_nothing_know_each_other_by_public_keys(home, capsys):
    one, two = home / "one", home / "two"
    assert run(["keys", "new", "server", "--keys", str(one)]) == 0
    assert run(["keys", "new", "ann", "--keys", str(two)]) == 0
    (two / "server.public").write_text((one / "server.public").read_text())
    assert run(["keys", "allow", "ann", str(two / "ann.public"), "--keys", str(one)]) == 0

    assert listed(capsys, "--keys", str(one)) == {"ann": (False, True), "server": (True, False)}
    assert listed(capsys, "--keys", str(two)) == {"ann": (True, False), "server": (False, False)}
    client, server = KeyFolder(two).client_keys(), KeyFolder(one).server_keys(print)
    assert server.admits(client.own.public) == "ann"
    assert client.server == server.own.public

    assert run(["keys", "revoke", "ann", "--keys", str(one)]) == 0
    assert listed(capsys, "--keys", str(one)) == {"server": (True, False)}
    assert run(["keys", "revoke", "ann", "--keys", str(one)]) == 2


def test_no_command_shows_a_secret(home, capsys):
    for words in (["new"], ["list"], ["list", "--json"], ["new", "ann"], ["allow", "ann"]):
        assert run(["keys", *words]) == 0
    shown = "".join(capsys.readouterr())

    folder = default_folder()
    secrets = [path.read_text().strip() for path in folder.glob("*.secret")]
    assert len(secrets) == 3
    assert not any(secret in shown for secret in secrets)
    assert (folder / "ann.public").read_text().strip() in shown


def test_keys_alone_shows_the_help(capsys):
    assert run(["keys"]) == 0
    assert "Example: ps-vae keys new" in capsys.readouterr().out


def test_another_place_for_configuration_is_respected(home, monkeypatch):
    monkeypatch.setenv("XDG_CONFIG_HOME", str(home / "elsewhere"))

    assert default_folder() == home / "elsewhere" / "ps-vae" / "keys"


@pytest.mark.parametrize(
    "words",
    [
        ["server", "--listen", OPEN],
        ["server", "--listen", "tcp://node7:5555"],
        ["server", "--join", "tcp://node7:5555"],
        ["server", "--join", HERE, "--listen", OPEN],
        ["train", "--listen", OPEN],
        ["worker", "--server", "tcp://node7:5555"],
        ["worker", "--server", "tcp://node7:5555", "--as-one"],
        ["evaluator", "--server", "tcp://node7:5555"],
        ["status", "tcp://node7:5555"],
    ],
)
def test_between_machines_every_command_wants_keys_or_the_word_that_there_are_none(capsys, words):
    assert run(words) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert "ps-vae keys new" in err
    assert "--insecure" in err


def test_on_one_machine_there_need_be_none():
    assert server_folder(None, False, HERE, "ipc:///tmp/run") is None
    for address in (HERE, "ipc:///tmp/run"):
        assert client_keys(None, None, False, address) is None


def test_on_one_machine_keys_that_are_there_are_for_the_case_that_the_server_wants_some():
    run(["keys", "new"])

    assert client_keys(None, None, False, HERE).if_asked
    assert client_keys(None, None, False, "ipc:///tmp/run") is None
    assert not client_keys(None, None, False, "tcp://node7:5555").if_asked
    # Whoever names a folder or a key means it.
    assert not client_keys(default_folder(), None, False, HERE).if_asked
    assert not client_keys(None, "worker", False, HERE).if_asked
    assert server_folder(default_folder(), False, HERE) == default_folder()


def test_insecure_is_without_keys_even_where_there_are_some():
    run(["keys", "new"])

    assert server_folder(None, True, OPEN) is None
    assert client_keys(None, None, True, "tcp://node7:5555") is None


def test_insecure_and_a_folder_of_keys_contradict_each_other(home):
    for ask in (lambda: server_folder(home, True, OPEN), lambda: client_keys(home, None, True, HERE)):
        with pytest.raises(UsageError, match="leave one of the two out"):
            ask()


def test_processes_that_are_started_hear_the_same_words(home):
    assert key_words(home, "ann", False) == ["--keys", str(home), "--key", "ann"]
    assert key_words(None, None, True) == ["--insecure"]
    assert key_words(None, None, False) == []
