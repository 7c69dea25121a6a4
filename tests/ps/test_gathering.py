"""A coordinator that was started again: whom it asks, whom it believes, and when the run goes on."""

import pytest

from ps_vae.errors import PeerError
from ps_vae.ps.consistency import Consistency
from ps_vae.ps.gathering import Gathering
from ps_vae.ps.messages import (
    PROTOCOL,
    Applied,
    Bye,
    Error,
    Hello,
    Join,
    Present,
    Push,
    Ready,
    Report,
    Snapshot,
    Standby,
    Status,
    Trouble,
    Who,
)
from ps_vae.ps.outbox import RunEnded, Send
from ps_vae.ps.partition import partition
from ps_vae.ps.rules import RunRules

RUN, OTHER_RUN = b"r" * 16, b"x" * 16
FOUND = RunEnded(False, "found")


def identity(name):
    return name.encode().ljust(16)


def hello(name):
    return Hello(PROTOCOL, identity(name), "worker", name, "same")


def refusal(search, message):
    with pytest.raises(PeerError) as refused:
        search.machine.handle("x", message, 0.0)
    return refused.value.code


class Server:
    """A server that was there before the coordinator was; it speaks from the connection of its name."""

    def __init__(self, name, shard, *, leads=True, incarnation=0, leader="", following="following", run=RUN):
        self.name, self.session, self.shard, self.leads, self.run = name, identity(name), shard, leads, run
        self.incarnation, self.leader = incarnation, leader
        self.following = None if following is None else identity(following)

    def present(self):
        address = f"tcp://{self.name}:1"
        return Present(self.run, self.shard, self.session, address, self.leads, self.incarnation, self.leader)

    def word(self, version=0, *, beyond=(), relies_on=None, since=0):
        """What it says each second."""
        if not self.leads:
            return Standby(self.run, self.shard, self.session, self.following, since, version)
        follower = None if relies_on is None else identity(relies_on)
        return Applied(
            run=self.run,
            shard=self.shard,
            before=version,
            beyond=beyond,
            pushed=0,
            pulled=0,
            shared=0,
            dense=0,
            incarnation=self.incarnation,
            follower=follower,
            leaving=None,
            session=self.session,
        )


def follower(name, shard, leader="", **words):
    return Server(name, shard, leads=False, leader=leader, **words)


class Search:
    """A machine that looks for the servers of a run of so many shards, and how often it was called."""

    def __init__(self, shards, consistency=None, least=0):
        rules = RunRules(RUN, 2, 100, consistency or Consistency(0), 50, metrics=1)
        self.machine = Gathering(rules, partition(16 * shards, shards), least)
        self.ticks = 0

    def say(self, server, version=0, **words):
        return self.machine.handle(server.name, server.word(version, **words), self.ticks / 10)

    def know(self, server, version=0, **words):
        """The whole dialogue with a server."""
        self.say(server, version, **words)
        self.machine.handle(server.name, server.present(), self.ticks / 10)
        assert self.say(server, version, **words) == []

    def until(self, now):
        """Tick ten times a second up to then, the first time at 0; what comes of it, with the time of each."""
        came = []
        while self.ticks <= round(10 * now):
            came += [(self.ticks / 10, output) for output in self.machine.tick(self.ticks / 10)]
            self.ticks += 1
        return came

    def goes_on(self):
        """The run as it was found, at once."""
        assert [output for _, output in self.until(self.ticks / 10)] == [FOUND]
        return self.machine.found


def test_a_server_that_is_not_known_is_asked_who_it_is_and_one_that_is_known_is_not():
    search = Search(2)
    for server in (Server("one", 0), follower("two", 1)):
        for _ in range(2):
            assert search.say(server) == [Send(server.name, Who(RUN))]
        assert search.machine.handle(server.name, server.present(), 0.0) == []
        assert search.say(server) == []


@pytest.mark.parametrize(
    "before",
    [Server("it", 0), follower("it", 1)],
    ids=["it had another shard", "it followed, and was told to lead before the coordinator was gone"],
)
def test_a_server_that_is_not_what_it_was_is_asked_again(before):
    search = Search(2)
    search.know(before)

    assert search.say(Server("it", 1, incarnation=1)) == [Send("it", Who(RUN))]


def test_the_run_goes_on_when_every_shard_has_a_leader():
    search = Search(3)
    search.know(Server("zero", 0, incarnation=2), 7)
    search.know(Server("one", 1), 8, relies_on="the heir's")
    assert search.until(0.5) == []
    search.know(follower("heir", 1, "tcp://one:1", following="the heir's"), 8, since=3)
    search.know(Server("two", 2), 7)

    found = search.goes_on()

    assert [(member.session, member.address) for member in found.members] == [
        (identity(name), f"tcp://{name}:1") for name in ("zero", "one", "two")
    ]
    assert [(member.before, member.incarnation) for member in found.members] == [(7, 2), (8, 0), (7, 0)]
    assert [(member.slice.start, member.slice.stop) for member in found.members] == [(0, 16), (16, 32), (32, 48)]
    assert all(member.is_up for member in found.members)
    assert found.lowest == 7
    assert [member.follower is None for member in found.members] == [True, False, True]
    heir = found.members[1].follower
    assert (heir.session, heir.address, heir.sender) == (identity("heir"), "tcp://heir:1", "heir")
    assert (heir.following, heir.since, heir.version) == (identity("the heir's"), 3, 8)
    assert found.members[1].relied_on == identity("the heir's")


def test_who_has_said_who_it_is_and_not_yet_how_far_it_is_does_not_count():
    search = Search(1)
    server = Server("one", 0)
    search.machine.handle("one", server.present(), 0.0)
    assert search.until(1.0) == []

    search.say(server, 4)

    assert search.goes_on().lowest == 4


def test_the_last_word_of_a_server_counts_and_it_is_answered_where_it_spoke_last():
    search = Search(2)
    search.know(Server("one", 1), 3)
    heir = follower("heir", 0)
    search.know(heir, 3)
    search.say(Server("one", 1), 4)
    search.machine.handle("another connection", heir.word(4), 0.0)

    found = search.goes_on()

    assert [member.before for member in found.members] == [4, 4]
    assert found.members[0].follower.sender == "another connection"


def test_the_follower_of_the_coordinators_own_shard_leads_at_once():
    search = Search(2)
    search.know(Server("one", 1), 5)
    search.know(follower("heir", 0, leader="", incarnation=0), 5)

    member = search.goes_on().members[0]

    assert (member.session, member.is_up, member.before) == (None, False, 5)
    assert member.follower.session == identity("heir")
    # What is told to lead, leads as the next one.
    assert member.incarnation == 0


def test_the_follower_of_another_leader_waits_five_seconds_for_it():
    search = Search(2)
    search.know(Server("zero", 0), 5)
    search.know(follower("heir", 1, "tcp://leader:1", incarnation=3), 5)

    ((when, output),) = search.until(14.0)

    assert output == FOUND
    assert when == 5.1
    member = search.machine.found.members[1]
    assert (member.session, member.incarnation, member.address) == (None, 3, "tcp://leader:1")


def test_a_leader_that_comes_in_time_leads_and_its_follower_follows():
    search = Search(1)
    search.know(follower("heir", 0, "tcp://leader:1"), 5)
    search.until(4.5)
    search.know(Server("leader", 0), 5, relies_on="following")

    member = search.goes_on().members[0]

    assert (member.session, member.follower.session) == (identity("leader"), identity("heir"))


def test_a_follower_without_a_copy_does_not_lead():
    search = Search(1)
    search.know(follower("heir", 0, following=None))

    assert search.until(14.0) == []


@pytest.mark.parametrize("order", [(0, 1), (1, 0)], ids=["the old one first", "the new one first"])
def test_of_two_leaders_of_a_shard_the_one_of_the_higher_incarnation_counts(order):
    """The one before was cut off when its follower was told to lead; it is even further."""
    search = Search(1)
    leaders = [Server("old", 0, incarnation=1), Server("new", 0, incarnation=2)]
    for number in order:
        search.know(leaders[number], (9, 8)[number])

    member = search.goes_on().members[0]

    assert (member.session, member.incarnation, member.before) == (identity("new"), 2, 8)


@pytest.mark.parametrize("delay", [0, 2])
def test_shards_that_are_further_apart_than_a_step_can_be_are_not_taken_together(delay):
    search = Search(2, Consistency(0, delay))
    search.know(Server("zero", 0), 10)
    search.know(Server("one", 1), 10 + 2 + delay)
    assert search.until(1.0) == []

    search.say(Server("zero", 0), 11)

    assert search.goes_on().lowest == 11


def test_where_the_shards_stay_too_far_apart_the_search_ends_and_says_so():
    search = Search(2)
    search.know(Server("zero", 0), 10)
    search.know(Server("one", 1), 12)

    ((_, ended),) = search.until(15.1)

    assert ended == RunEnded(True, "the shards are at versions [10, 12], too far apart to go on together")


def test_why_a_young_copy_cannot_lead_is_said():
    search = Search(1)
    search.know(follower("heir", 0), 9, since=10)

    ended = [output for _, output in search.until(15.2)]

    why = "a follower that has to lead has no version as old as the run at version 9 needs"
    assert ended[0] == RunEnded(True, why)
    assert search.machine.found is None


@pytest.mark.parametrize(("delay", "since", "leads"), [(0, 6, False), (0, 5, True), (2, 4, False), (2, 3, True)])
def test_a_heir_leads_only_if_it_has_the_version_that_the_next_step_is_computed_on(delay, since, leads):
    """The lowest shard is at 5: the next step is computed on 5 - delay."""
    search = Search(2, Consistency(0, delay))
    search.know(Server("one", 1), 5)
    search.know(follower("heir", 0), 6, since=since)

    assert (search.until(10.0) != []) is leads


def test_a_heir_whose_copy_is_too_new_leads_once_the_others_have_come_as_far():
    search = Search(2)
    one = Server("one", 1)
    search.know(one, 5)
    search.know(follower("heir", 0), 6, since=6)
    assert search.until(1.0) == []

    search.say(one, 6)

    assert search.goes_on().lowest == 6


def test_where_nobody_is_there_the_search_ends_after_three_seconds():
    search = Search(2)

    ((when, ended),) = search.until(3.1)

    assert when == 3.1
    assert ended == RunEnded(True, "none of the other servers is there")


def test_where_somebody_is_missing_the_search_ends_after_fifteen_seconds_and_says_who():
    search = Search(3)
    search.know(Server("one", 1), 5)

    ((when, ended),) = search.until(15.1)

    assert when == 15.1
    assert ended == RunEnded(True, "nobody has shard 1, 3 of 3")


@pytest.mark.parametrize("heard", ["a word", "who it is"])
def test_somebody_who_was_there_once_is_waited_for_as_long_though_it_is_gone(heard):
    search = Search(1)
    server = follower("heir", 0, "tcp://leader:1")
    search.say(server) if heard == "a word" else search.know(server)
    search.machine.forget("heir", 0.0)

    ((when, ended),) = search.until(15.1)

    assert (when, ended) == (15.1, RunEnded(True, "nobody has shard 1 of 1"))


def test_time_in_which_the_process_stood_still_does_not_count():
    search = Search(1)
    search.know(follower("heir", 0, "tcp://leader:1"), 5)
    assert search.until(2.0) == []
    search.ticks += 600

    ((when, output),) = search.until(70.0)

    # More than 5 s, and from one tick to the next there were 60.1 s.
    assert (when, output) == (65.2, FOUND)


def test_clients_that_came_early_are_let_in_with_the_run():
    search = Search(1)
    assert search.machine.handle("a", hello("ann"), 0.0)[0].message.code == "starting"
    search.machine.handle("b", hello("bob"), 0.0)
    search.machine.handle("a2", hello("ann"), 0.0)
    search.know(Server("one", 0), 5)

    found = search.goes_on()

    assert found.early == {identity("ann"): ("a2", hello("ann")), identity("bob"): ("b", hello("bob"))}


def test_one_that_says_bye_is_not_let_in():
    search = Search(1)
    search.machine.handle("a", hello("ann"), 0.0)
    assert search.machine.handle("a", Bye(identity("ann")), 0.0) == []
    assert search.machine.handle("x", Bye(identity("nobody")), 0.0) == []
    search.know(Server("one", 0), 5)

    assert search.goes_on().early == {}


def test_a_client_or_server_whose_connection_ends_is_forgotten():
    search = Search(2)
    for name in ("ann", "bob"):
        search.machine.handle(name, hello(name), 0.0)
    search.know(Server("zero", 0), 5)
    search.know(Server("one", 1), 5)

    for sender in ("ann", "one", "nobody"):
        assert search.machine.forget(sender, 0.0) == []

    assert search.until(1.0) == []
    # It is there again, and asked who it is.
    assert search.say(Server("one", 1), 5) == [Send("one", Who(RUN))]
    search.know(Server("one", 1), 5)
    assert list(search.goes_on().early) == [identity("bob")]


@pytest.mark.parametrize("leads", [True, False])
def test_servers_of_another_run_are_refused(leads):
    search = Search(1)
    server = Server("one", 0, leads=leads, run=OTHER_RUN)

    assert refusal(search, server.present()) == refusal(search, server.word()) == "wrong-run"
    assert [output for _, output in search.until(3.1)] == [RunEnded(True, "none of the other servers is there")]


@pytest.mark.parametrize("leads", [True, False])
def test_servers_of_a_shard_that_the_run_does_not_have_are_refused(leads):
    search = Search(2)
    server = Server("one", 2, leads=leads)

    assert refusal(search, server.present()) == refusal(search, server.word()) == "bad-shard"


@pytest.mark.parametrize(
    "message",
    [
        Ready(identity("ann"), 1, 0, 0, 0, 0),
        Report(identity("ann"), None, (), 0),
        Trouble(identity("ann"), 1, "no"),
    ],
    ids=lambda message: message.KIND,
)
def test_clients_of_before_learn_that_they_are_not_known(message):
    """They say hello, and are kept for when the run goes on."""
    search = Search(1)
    search.machine.handle("a", hello("ann"), 0.0)

    assert refusal(search, message) == "unknown-session"


@pytest.mark.parametrize("message", [Join(PROTOCOL, identity("new"), "tcp://new:1", True), Status()])
def test_who_comes_too_early_is_told_to_wait(message):
    (answer,) = Search(1).machine.handle("x", message, 0.0)

    assert answer.to == "x"
    assert isinstance(answer.message, Error)
    assert answer.message.code == "starting"


def test_what_does_not_come_here_is_refused_and_snapshots_are_left():
    search = Search(1)

    assert refusal(search, Push(RUN, 0, identity("ann"), 1, 0, 0, 1, 0, (), None, ())) == "unknown-message"
    assert search.machine.handle("one", Snapshot(RUN, 0, 5, (), (), ()), 0.0) == []


def test_the_run_is_found_once():
    search = Search(1)
    search.know(Server("one", 0), 5)
    found = search.goes_on()
    search.know(Server("another", 0, incarnation=9), 50)

    assert search.until(20.0) == []
    assert search.machine.found is found
    assert found.lowest == 5


def test_who_is_behind_what_can_be_had_without_it_is_of_no_use():
    search = Search(1, least=50)
    search.know(follower("old", 0), 49)
    assert search.until(1.0) == []

    search.know(follower("new", 0), 50)

    assert search.goes_on().members[0].follower.session == identity("new")


def test_where_all_are_behind_that_the_search_is_over_in_time():
    search = Search(1, least=50)
    search.know(Server("old", 0), 49)

    ended = [output for _, output in search.until(15.2)]

    assert ended[0] == RunEnded(True, "nobody has shard 1 of 1 at version 50 or later")
