"""A coordinator that goes on with a run whose servers it has found, the first shard's among them."""

import json

import numpy as np
import pytest

from ps_vae.errors import PeerError
from ps_vae.ps.consistency import Consistency
from ps_vae.ps.coordinator import Coordinator
from ps_vae.ps.gathering import Found
from ps_vae.ps.identity import FIRST
from ps_vae.ps.members import FollowerMember, ShardMember
from ps_vae.ps.messages import (
    PROTOCOL,
    Applied,
    Error,
    Hello,
    Join,
    Lead,
    Milestone,
    Moved,
    Present,
    Ready,
    Standby,
    State,
    Status,
    Welcome,
    Who,
    Work,
)
from ps_vae.ps.outbox import COORDINATOR, Member, RunEnded, Send, StepApplied
from ps_vae.ps.partition import partition
from ps_vae.ps.rules import RunRules
from ps_vae.ps.state import ShardState

RUN = b"r" * 16
BEGAN = 100.0


def session(name):
    return name.encode().ljust(16)


def hello(name, role="worker", protocol=PROTOCOL):
    return Hello(protocol, session(name), role, name, "same")


def applied(name, shard, version, *, incarnation=0, follower=None, metrics=()):
    return Applied(
        run=RUN,
        shard=shard,
        before=version,
        beyond=(),
        pushed=0,
        pulled=0,
        shared=0,
        dense=0,
        incarnation=incarnation,
        follower=follower,
        leaving=None,
        session=session(name) if name else FIRST.session,
        metrics=metrics,
    )


def standby(name, shard, version, *, following=b"f" * 16):
    return Standby(RUN, shard, session(name), following, 0, version)


def present(name, shard, *, leads=False, incarnation=0):
    return Present(RUN, shard, session(name), f"tcp://{name}:1", leads, incarnation, "")


def follower(name, version, following=b"f" * 16):
    return FollowerMember(session(name), f"tcp://{name}:1", 0.0, sender=name, following=following, version=version)


def sent(outputs, kind):
    return [output.message for output in outputs if isinstance(output, Send) and isinstance(output.message, kind)]


def members(versions, *, heir=None, followed=None):
    """Shards that are led by servers "zero", "one" ...; the first by nobody, where it has a heir."""
    found = []
    for number, (piece, version) in enumerate(zip(partition(32, len(versions)), versions, strict=True)):
        name = ("zero", "one", "two")[number]
        member = ShardMember(number, piece, f"tcp://{name}:1", session(name), heard=0.0, before=version)
        found.append(member)
    found[0].follower = followed
    if heir is not None:
        found[0].session, found[0].heard, found[0].address, found[0].follower = None, None, "", heir
    return tuple(found)


class Run:
    """A run that is taken up at these versions of its shards, 100 s after the clock began."""

    def __init__(self, versions=(5, 5), *, heir=None, followed=None, early=(), tickets=0, first=0):
        self.machine = Coordinator(
            RunRules(RUN, 2, 50, Consistency(0, first=first), 10, metrics=1),
            partition(32, len(versions)),
            "tcp://first:1",
            b"{}",
            ShardState(0, np.zeros(32, np.float32), {}),
            found=Found(
                members(versions, heir=heir, followed=followed),
                {hello.session: (sender, hello) for sender, hello in early},
            ),
            tickets=tickets,
        )
        self.began = self.machine.begin(BEGAN)

    def say(self, sender, message, now=BEGAN):
        return self.machine.handle(sender, message, now)

    def work(self, name="w"):
        self.say(name, hello(name))
        return sent(self.say(name, Ready(session(name), 0, 0, 0, 0, 0)), Work)

    def refusal(self, message, now=BEGAN):
        with pytest.raises(PeerError) as refused:
            self.say("x", message, now)
        return refused.value.code


def test_work_goes_on_at_the_version_that_every_shard_has():
    run = Run((6, 5))

    assert run.machine.phase == "training"
    assert [work.step for work in run.work()] == [5]


def test_tickets_go_on_after_those_of_before():
    """A worker drops what is not newer than the newest that it has seen."""
    run = Run(tickets=1 << 32)

    assert [work.ticket for work in run.work()] == [(1 << 32) + 1]
    assert [work.ticket for work in Run().work()] == [1]


def test_clients_that_came_early_are_let_in_when_the_run_goes_on():
    early = [("a", hello("ann")), ("e", hello("eva", "evaluator")), ("o", hello("old", protocol=PROTOCOL - 1))]
    run = Run((25, 25), early=early)

    assert [(output.to, output.message.KIND) for output in run.began if isinstance(output, Send)] == [
        ("a", "welcome"),
        ("e", "welcome"),
        ("e", "milestone"),
        ("o", "error"),
    ]
    assert [error.code for error in sent(run.began, Error)] == ["protocol"]
    assert sent(run.began, Milestone) == [Milestone(20, False)]
    (welcome, _) = sent(run.began, Welcome)
    assert welcome.shards == (("tcp://zero:1", 0, 16), ("tcp://one:1", 16, 32))
    assert (welcome.version, welcome.moves) == (25, 0)


@pytest.mark.parametrize(("versions", "milestone"), [((19, 20), 12), ((20, 20), 20), ((25, 24), 20), ((50, 50), 50)])
def test_evaluators_are_sent_to_a_milestone_that_the_shards_keep(versions, milestone):
    """The servers began at 12, and keep that until the first milestone, 20."""
    run = Run(versions, first=12)

    outputs = run.say("e", hello("eva", "evaluator"))

    assert sent(outputs, Milestone) == [Milestone(milestone, milestone == 50)]


def test_clients_of_before_are_not_known():
    assert Run().refusal(Ready(session("ann"), 7, 0, 0, 0, 0)) == "unknown-session"


def test_the_follower_of_the_shard_that_nobody_leads_is_told_to():
    run = Run(heir=follower("heir", 5), early=[("a", hello("ann"))])

    assert Send("heir", Lead(RUN, 0, 1, None)) in run.began
    (welcome,) = sent(run.began, Welcome)
    assert (welcome.shards[0][0], welcome.moves) == ("tcp://heir:1", 1)
    assert sent(run.began, Moved) == []
    # Until it speaks as the leader.
    assert sent(run.say("heir", standby("heir", 0, 5)), Lead) == [Lead(RUN, 0, 1, None)]
    assert run.say("heir", applied("heir", 0, 5, incarnation=1)) == []


def test_shards_that_are_led_are_left_alone():
    run = Run(followed=follower("heir", 5))

    assert sent(run.began, Lead) == []
    assert run.machine.servers.keys() == {session("zero"), session("one"), session("heir")}


@pytest.mark.parametrize(
    "message",
    [
        applied("", 0, 6),
        applied("another", 0, 6),
        applied("another", 0, 6, incarnation=1),
        applied("another", 1, 6, incarnation=7),
        present("another", 0, leads=True, incarnation=1),
    ],
    ids=[
        "the coordinator's own",
        "of before",
        "under the same incarnation",
        "under a higher one",
        "that says who it is",
    ],
)
def test_a_leader_that_was_not_found_is_deposed(message):
    run = Run(heir=follower("heir", 5))

    assert run.refusal(message) == "deposed"
    assert [shard["version"] for shard in run.machine.state(BEGAN)["shards"]] == [5, 5]


def test_each_step_is_reported_once_with_the_metrics_that_the_first_shard_says():
    run = Run()
    events = []
    for name, shard, version, metrics in [
        ("zero", 0, 5, (9.0,)),
        ("zero", 0, 6, (1.5,)),
        ("one", 1, 6, (7.0,)),
        ("zero", 0, 6, (1.5,)),
        ("one", 1, 7, (7.0,)),
        ("zero", 0, 7, (2.5,)),
    ]:
        events += run.say(name, applied(name, shard, version, metrics=metrics))

    steps = [event for event in events if isinstance(event, StepApplied)]
    assert steps == [StepApplied(5, 6, 0, (1.5,)), StepApplied(6, 7, 0, (2.5,))]


def test_metrics_of_another_number_than_the_runs_are_refused_and_none_are_no_report():
    run = Run()

    assert run.refusal(applied("zero", 0, 6, metrics=(1.0, 2.0))) == "bad-size"
    assert run.machine.state(BEGAN)["shards"][0]["version"] == 5
    outputs = run.say("zero", applied("zero", 0, 6))
    assert not any(isinstance(output, StepApplied) for output in outputs)


def test_the_first_shard_of_a_run_that_was_never_interrupted_reports_its_steps_itself():
    initial = ShardState(0, np.zeros(32, np.float32), {})
    rules = RunRules(RUN, 2, 50, Consistency(0), 10, metrics=1)
    machine = Coordinator(rules, partition(32, 1), "tcp://first:1", b"{}", initial)

    outputs = machine.handle(COORDINATOR, applied("", 0, 1, metrics=(1.5,)), 0.0)

    assert not any(isinstance(output, StepApplied) for output in outputs)


def test_a_follower_that_comes_after_its_leader_is_asked_who_it_is_and_followed_by_the_run():
    run = Run()
    assert run.say("heir", standby("heir", 1, 5)) == [Send("heir", Who(RUN))]
    assert run.say("heir", present("heir", 1)) == []
    assert [event.change for event in run.say("heir", standby("heir", 1, 5))] == ["joined"]

    run.say("one", applied("one", 1, 5, follower=b"f" * 16))

    assert run.machine.state(BEGAN)["shards"][1]["follower"] == "ready"
    outputs = run.machine.lost_server(session("one"), BEGAN + 1)
    assert Send("heir", Lead(RUN, 1, 1, None)) in outputs


def test_followers_that_come_within_ten_seconds_are_taken_and_later_ones_join_again():
    for late, codes in ((9.9, []), (10.0, ["bad-shard", "bad-shard"])):
        run, refused = Run(), []
        for message in (standby("heir", 1, 5), present("heir", 1)):
            try:
                run.say("heir", message, BEGAN + late)
            except PeerError as error:
                refused.append(error.code)
        assert refused == codes
        assert (session("heir") in run.machine.servers) is (codes == [])


def test_a_shard_takes_one_of_two_followers():
    run = Run()
    run.say("heir", present("heir", 1))

    assert run.refusal(present("another", 1)) == "bad-shard"
    assert run.refusal(standby("another", 1, 5)) == "bad-shard"
    assert run.say("heir", present("heir", 1)) == []


def test_who_is_known_may_say_again_who_it_is():
    run = Run(heir=follower("heir", 5))
    before = run.machine.state(BEGAN)["shards"]

    assert run.say("one", present("one", 1, leads=True)) == []
    # It did not know yet that it leads.
    assert run.say("heir", present("heir", 0)) == []
    assert run.machine.state(BEGAN)["shards"] == before


def test_a_first_shard_in_another_process_that_falls_silent_ends_the_run_as_any_other():
    run = Run()
    ended = []
    for tenth in range(1, 620):
        run.say("one", applied("one", 1, 5), BEGAN + tenth / 10)
        ended += [output for output in run.machine.tick(BEGAN + tenth / 10) if isinstance(output, RunEnded)]

    assert [output.reason.split(";")[0] for output in ended] == ["shard 1 of 2 at tcp://zero:1 is silent for 60 s"]


def test_a_process_that_stood_still_as_soon_as_the_run_went_on_takes_nobody_for_silent():
    run = Run(followed=follower("heir", 5))

    assert run.machine.tick(BEGAN + 60.0) == []


def test_servers_that_were_found_have_as_long_as_ever_to_be_heard_of():
    run = Run(heir=follower("heir", 5))
    ended = []
    for tenth in range(1, 620):
        ended += [(tenth / 10, o) for o in run.machine.tick(BEGAN + tenth / 10) if isinstance(o, RunEnded)]

    assert [(when, end.failed) for when, end in ended] == [(60.1, True)]


def test_a_new_server_finds_no_free_shard_but_may_follow():
    run = Run()

    assert run.refusal(Join(PROTOCOL, session("new"), "tcp://new:1", False)) == "full"
    (admitted,) = run.say("new", Join(PROTOCOL, session("new"), "tcp://new:1", True))
    assert (admitted.message.shard, admitted.message.leader) == (0, "tcp://zero:1")


def test_refusals_of_a_server_without_a_shard_are_counted_too():
    run = Run()
    run.machine.refusals.count("not-here")
    run.machine.refusals.count("gone")
    run.say("zero", Applied(RUN, 0, 5, (), 0, 0, 0, 0, 0, None, None, (("gone", 2),), session=session("zero")))

    (answer,) = run.say("x", Status())

    assert isinstance(answer.message, State)
    assert json.loads(answer.message.json)["refused"] == {"gone": 3, "not-here": 1}


def test_the_move_is_told_with_the_name_of_the_server_that_is_gone():
    (event,) = [event for event in Run(heir=follower("heir", 5)).began if isinstance(event, Member)]

    assert (event.name, event.change) == ("shard 1 of 2", "moved")
    assert event.why == "the server at tcp://first:1 is gone; its follower at tcp://heir:1 leads"


def test_a_run_that_is_stopped_before_anything_is_handed_out_finishes_the_step_that_one_shard_has():
    run = Run((5, 5))
    run.machine.stop(BEGAN)
    # It had summed step 5 and was waiting for its follower when the coordinator was lost.
    run.say("one", applied("one", 1, 6))
    run.machine.tick(BEGAN + 0.1)

    (work,) = run.work()

    assert (work.step, run.machine.backlog.limit) == (5, 6)
