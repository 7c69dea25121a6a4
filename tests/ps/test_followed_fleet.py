"""Whom the coordinator relies on, and who leads when a leader is gone."""

import dataclasses

import numpy as np
import pytest

from ps_vae.errors import PeerError
from ps_vae.ps.consistency import Consistency
from ps_vae.ps.coordinator import Coordinator
from ps_vae.ps.identity import FIRST
from ps_vae.ps.messages import PROTOCOL, Admit, Applied, Error, Hello, Join, Lead, Moved, Ready, Standby, Stop, Work
from ps_vae.ps.outbox import Member, RunEnded, Send, ShardAddress
from ps_vae.ps.partition import partition
from ps_vae.ps.rules import RunRules
from ps_vae.ps.state import ShardState

RUN, SECOND, HEIR = b"r" * 16, b"server-1".ljust(16), b"heir".ljust(16)
FIRST_TIME, SECOND_TIME = b"1" * 16, b"2" * 16


def applied(shard, version, *, incarnation=0, follower=None, leaving=None):
    """What the first shard says, or the second one's leader of that incarnation."""
    session = (SECOND, HEIR)[incarnation] if shard else FIRST.session
    return Applied(RUN, shard, version, (), 0, 0, 0, 0, incarnation, follower, leaving, session=session)


def standby(version=0, *, following=FIRST_TIME, since=0):
    return Standby(RUN, 1, HEIR, following, since, version)


def sent(outputs, kind):
    return [output.message for output in outputs if isinstance(output, Send) and isinstance(output.message, kind)]


class Run:
    """Two shards that are up, the second one led from another process."""

    def __init__(self, delay=0, bound=0):
        rules = RunRules(RUN, 2, 50, Consistency(bound, delay), 50, metrics=0)
        initial = ShardState(0, np.zeros(32, np.float32), {"m": np.zeros(32, np.float32)})
        self.machine = Coordinator(rules, partition(32, 2), "tcp://*:1", b"{}", initial)
        self.say("second", Join(PROTOCOL, SECOND, "tcp://second:1", False))
        for shard in (0, 1):
            self.say("second", applied(shard, 0))

    def say(self, sender, message, now=0.0):
        return self.machine.handle(sender, message, now)

    def follow(self):
        """A follower of each shard; the second one's is relied on."""
        self.say("other", Join(PROTOCOL, b"other".ljust(16), "tcp://other:1", True))
        (admit,) = sent(self.say("heir", Join(PROTOCOL, HEIR, "tcp://heir:1", True)), Admit)
        self.say("heir", standby())
        self.say("second", applied(1, 0, follower=FIRST_TIME))
        return admit

    def work(self, name="w"):
        self.say(name, Hello(PROTOCOL, name.encode().ljust(16), "worker", name, "same"))
        return self.ready(name)

    def ready(self, name="w", ticket=0, moves=0):
        return self.say(name, Ready(name.encode().ljust(16), ticket, 0, 0, 0, moves))

    def follower(self):
        return self.machine.state(0.0)["shards"][1]["follower"]


def test_a_follower_is_told_whom_to_follow_and_gets_no_weights():
    admit = Run().follow()

    assert (admit.shard, admit.leader, admit.start, admit.stop) == (1, "tcp://second:1", 16, 32)
    assert (admit.names, admit.payload) == ((), ())


def test_a_shard_has_one_follower():
    run = Run()
    run.follow()

    (error,) = sent(run.say("third", Join(PROTOCOL, b"third".ljust(16), "tcp://third:1", True)), Error)
    assert (error.code, error.text[:43]) == ("full", "each of the run's 2 shards has its follower")
    assert sent(run.say("heir", Join(PROTOCOL, HEIR, "tcp://heir:1", True)), Admit)[0].shard == 1


def test_a_server_that_nobody_needs_yet_follows_when_one_is_lost_or_hears_of_the_end():
    run, ask = Run(), Join(PROTOCOL, b"third".ljust(16), "tcp://third:1", True)
    run.follow()
    run.say("third", ask)
    assert "third" in [output.to for output in run.machine.end(False, "done", 1.0) if isinstance(output, Send)]

    run = Run()
    run.follow()
    run.say("third", ask)
    run.machine.lost_server(HEIR, 1.0)
    assert sent(run.say("third", ask), Admit)[0].shard == 1


def test_under_ssp_and_asp_nobody_follows():
    for bound in (3, None):
        with pytest.raises(PeerError, match=r"under (asp|ssp:3) nobody can follow a shard") as refusal:
            Run(bound=bound).say("heir", Join(PROTOCOL, HEIR, "tcp://heir:1", True))
        assert refusal.value.code == "bad-role"


def test_followers_wait_until_every_shard_is_there():
    rules = RunRules(RUN, 2, 50, Consistency(0), 50, metrics=0)
    initial = ShardState(0, np.zeros(32, np.float32), {})
    machine = Coordinator(rules, partition(32, 2), "tcp://*:1", b"{}", initial)

    with pytest.raises(PeerError) as refusal:
        machine.handle("heir", Join(PROTOCOL, HEIR, "tcp://heir:1", True), 0.0)
    assert refusal.value.code == "starting"


def test_the_follower_of_a_leader_that_is_gone_leads_under_the_next_incarnation():
    run = Run()
    run.follow()
    run.work()

    outputs = run.machine.lost_server(SECOND, 1.0)

    assert Send("heir", Lead(RUN, 1, 1, None)) in outputs
    assert sent(outputs, Moved) == [Moved(1, ("", "tcp://heir:1"))]
    assert [output.change for output in outputs if isinstance(output, Member)] == ["moved"]
    assert run.machine.servers[HEIR] == "tcp://heir:1"
    assert SECOND not in run.machine.servers
    assert run.machine.state(1.0)["shards"][1]["incarnation"] == 1


def test_it_is_told_again_until_it_speaks_as_the_leader():
    run = Run()
    run.follow()
    run.machine.lost_server(SECOND, 1.0)

    assert run.say("heir", standby()) == [Send("heir", Lead(RUN, 1, 1, None))]
    assert sent(run.say("heir", applied(1, 1, incarnation=1)), Lead) == []


def test_the_leader_before_is_deposed():
    run = Run()
    run.follow()
    run.machine.lost_server(SECOND, 1.0)

    with pytest.raises(PeerError, match="another server leads shard 2") as refusal:
        run.say("second", applied(1, 1))
    assert refusal.value.code == "deposed"


def test_work_that_was_pushed_to_the_leader_before_is_given_out_again():
    run = Run()
    run.follow()
    (first,) = sent(run.work(), Work)
    (ahead,) = sent(run.ready(ticket=first.ticket), Work)
    assert (first.step, ahead.step) == (0, 1)

    (again,) = sent(run.machine.lost_server(SECOND, 1.0), Work)

    assert (again.step, again.blocks) == (0, first.blocks)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda run: run.say("second", applied(1, 0, leaving=FIRST_TIME)),
        lambda run: run.say("heir", standby(following=None)),
        lambda run: run.say("heir", standby(following=SECOND_TIME)),
        lambda run: run.say("heir", standby(since=1)),
    ],
    ids=["the leader has given it up", "no copy", "another copy", "older versions may be asked for"],
)
def test_a_follower_that_may_lack_something_does_not_lead(spoil):
    run = Run()
    run.follow()
    assert run.follower() == "ready"
    spoil(run)
    assert run.follower() == "joining"

    assert run.machine.lost_server(SECOND, 1.0) == []


def test_a_follower_that_its_leader_has_not_waited_for_yet_does_not_lead():
    run = Run()
    run.say("other", Join(PROTOCOL, b"other".ljust(16), "tcp://other:1", True))
    run.say("heir", Join(PROTOCOL, HEIR, "tcp://heir:1", True))
    run.say("heir", standby())
    run.say("second", applied(1, 0))

    assert run.machine.lost_server(SECOND, 1.0) == []


def test_what_a_leader_said_before_it_relied_on_its_follower_may_come_after_that():
    run = Run()
    run.follow()
    run.say("second", applied(1, 0))

    assert sent(run.machine.lost_server(SECOND, 1.0), Lead) == [Lead(RUN, 1, 1, None)]


def test_it_leads_once_every_shard_has_reached_its_first_version():
    run = Run()
    run.follow()
    run.say("heir", standby(since=1))
    for shard in (0, 1):
        run.say("second", applied(shard, 1, follower=FIRST_TIME if shard else None))

    assert sent(run.machine.lost_server(SECOND, 1.0), Lead) == [Lead(RUN, 1, 1, None)]


def test_with_a_delay_it_leads_once_no_step_is_computed_on_a_version_before_its_first():
    run = Run(delay=1)
    run.follow()
    run.say("heir", standby(since=1))
    for version, leads in ((1, False), (2, True)):
        for shard in (0, 1):
            run.say("second", applied(shard, version, follower=FIRST_TIME if shard else None))
        assert (run.follower() == "ready") is leads

    assert sent(run.machine.lost_server(SECOND, 1.0), Lead) == [Lead(RUN, 1, 1, None)]


def pass_silence(run, first, last, speakers):
    """Tenths of seconds in which only these speak; returns what the coordinator does by itself."""
    outputs = []
    for tenth in range(10 * first, 10 * last):
        now = tenth / 10
        run.say("here", applied(0, 0), now)
        if "leader" in speakers:
            run.say("second", applied(1, 0, follower=FIRST_TIME), now)
        if "follower" in speakers:
            run.say("heir", standby(), now)
        outputs += run.machine.tick(now)
    return outputs


def test_where_both_are_silent_the_follower_leads_if_it_speaks_first():
    run = Run()
    run.follow()

    assert sent(pass_silence(run, 0, 12, []), Lead) == []
    assert sent(run.machine.lost_server(SECOND, 12.0), Lead) == []
    assert sent(pass_silence(run, 12, 13, ["follower"]), Lead)[:1] == [Lead(RUN, 1, 1, None)]


def test_where_both_are_silent_the_leader_goes_on_if_it_speaks_first():
    run = Run()
    run.follow()
    pass_silence(run, 0, 12, [])

    outputs = pass_silence(run, 12, 13, ["leader"])

    assert set(sent(outputs, Lead)) == {Lead(RUN, 1, 0, FIRST_TIME)}
    assert run.machine.servers[SECOND] == "tcp://second:1"


def test_nobody_relies_on_a_follower_that_its_leader_was_told_to_be_over():
    run = Run()
    run.follow()

    outputs = run.say("second", applied(1, 0, leaving=FIRST_TIME))
    assert outputs == [Send(ShardAddress(1), Lead(RUN, 1, 0, FIRST_TIME))]
    # One that was overtaken.
    run.say("second", applied(1, 0, follower=FIRST_TIME))

    assert run.follower() == "joining"
    assert run.machine.lost_server(SECOND, 1.0) == []


def test_a_leader_is_told_that_its_follower_is_gone():
    run = Run()
    run.follow()

    outputs = run.machine.lost_server(HEIR, 1.0)

    assert sent(outputs, Lead) == [Lead(RUN, 1, 0, FIRST_TIME)]
    assert run.follower() == "none"
    with pytest.raises(PeerError) as refusal:
        run.say("heir", standby())
    assert refusal.value.code == "bad-shard"
    assert sent(run.say("heir", Join(PROTOCOL, HEIR, "tcp://heir:1", True)), Admit)[0].leader == "tcp://second:1"


def test_what_was_pushed_to_where_the_shard_was_is_given_out_again():
    """The worker was computing when the shard moved, and pushed before it heard of that."""
    run = Run()
    run.follow()
    (work,) = sent(run.work(), Work)
    run.machine.lost_server(SECOND, 1.0)

    (again,) = sent(run.ready(ticket=work.ticket, moves=0), Work)[-1:]

    assert (again.step, again.blocks) == (0, work.blocks)
    assert sent(run.ready(ticket=again.ticket, moves=1), Work)[-1].step == 1


def test_bytes_and_refusals_of_the_leader_before_still_count():
    run = Run()
    run.follow()
    run.say("second", Applied(RUN, 1, 0, (), 10, 20, 5, 40, 0, FIRST_TIME, None, (("stale", 4),), session=SECOND))
    run.machine.lost_server(SECOND, 1.0)
    counts = (("gone", 1), ("stale", 2))
    run.say("heir", Applied(RUN, 1, 1, (), 1, 2, 3, 4, 1, None, None, counts, session=HEIR))

    state = run.machine.state(1.0)
    assert [state[f"bytes_{name}"] for name in ("pushed", "pulled", "shared", "dense")] == [11, 22, 8, 44]
    assert state["refused"] == {"gone": 1, "stale": 6}


def test_a_client_that_missed_the_move_is_told_when_it_speaks():
    run = Run()
    run.follow()
    run.work()
    run.machine.lost_server(SECOND, 1.0)

    assert sent(run.ready(moves=0), Moved) == [Moved(1, ("", "tcp://heir:1"))]
    assert sent(run.ready(moves=1), Moved) == []


def test_a_silent_leader_is_replaced_and_a_silent_one_without_a_follower_ends_the_run():
    run = Run()
    run.follow()

    def pass_time(run, first, last):
        outputs = []
        for tenth in range(10 * first, 10 * last):
            now = tenth / 10
            run.say("here", applied(0, 0), now)
            if HEIR in run.machine.servers:
                run.say("heir", standby(), now)
            outputs += run.machine.tick(now)
        return outputs

    assert sent(pass_time(run, 0, 5), Lead) == []
    assert sent(pass_time(run, 5, 6), Lead)[:1] == [Lead(RUN, 1, 1, None)]

    ended = [output for output in pass_time(Run(), 0, 70) if isinstance(output, RunEnded)]
    assert [output.failed for output in ended] == [True]


def test_followers_are_told_that_the_run_is_over():
    run = Run()
    run.follow()

    assert Send("heir", Stop(True, "why")) in run.machine.end(True, "why", 1.0)


def test_the_state_tells_how_far_a_follower_is_behind_its_leader():
    run = Run()

    def told(now):
        shard = run.machine.state(now)["shards"][1]
        return shard["follower"], shard["lag"], shard["lag_seconds"], shard["follower_silent_seconds"]

    assert told(0.0) == ("none", None, None, None)
    run.say("other", Join(PROTOCOL, b"other".ljust(16), "tcp://other:1", True))
    run.say("heir", Join(PROTOCOL, HEIR, "tcp://heir:1", True))
    assert told(0.25) == ("joining", None, None, 0.25)

    run.say("heir", standby())
    for version in (2, 4, 6, 8):
        for shard in (0, 1):
            run.say("second", applied(shard, version), now=version / 2)
    # Two versions a second.
    assert told(4.0) == ("joining", 8, 4.0, 4.0)

    run.say("heir", standby(5), now=4.0)
    assert told(4.0) == ("joining", 3, 1.5, 0.0)

    # What it said last is a second old; its leader has not published since what it has not said to have.
    run.say("second", applied(1, 8, follower=FIRST_TIME), now=4.5)
    assert told(5.0) == ("ready", 0, 0.0, 1.0)


def test_what_nobody_makes_takes_no_time_that_is_known():
    run = Run()
    run.say("other", Join(PROTOCOL, b"other".ljust(16), "tcp://other:1", True))
    run.say("heir", Join(PROTOCOL, HEIR, "tcp://heir:1", True))
    run.say("heir", standby())
    run.say("second", applied(1, 8), now=1.0)

    shard = run.machine.state(60.0)["shards"][1]

    assert (shard["lag"], shard["lag_seconds"]) == (8, None)


def test_pushes_that_were_counted_already_are_those_of_all_shards_and_of_leaders_that_are_gone():
    run = Run()
    run.follow()
    for shard, duplicates in ((0, 3), (1, 4)):
        told = applied(shard, 0, follower=FIRST_TIME if shard else None)
        run.say("second", dataclasses.replace(told, duplicates=duplicates))
    assert run.machine.state(0.0)["duplicates"] == 7

    run.machine.lost_server(SECOND, 0.0)
    run.say("heir", dataclasses.replace(applied(1, 0, incarnation=1), duplicates=5))

    assert run.machine.state(0.0)["duplicates"] == 3 + 4 + 5
