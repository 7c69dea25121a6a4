"""The invariants can fail: machines that are broken on purpose are found by some seed."""

import dataclasses
import re

import pytest

from ps_vae.ps import assignments, permits
from ps_vae.ps.arrivals import Arrivals
from ps_vae.ps.assignments import Assignments
from ps_vae.ps.backlog import Backlog
from ps_vae.ps.blocks import Block
from ps_vae.ps.buffers import Buffers, aligned
from ps_vae.ps.consistency import Consistency, Versions
from ps_vae.ps.coordinator import Coordinator
from ps_vae.ps.ending import Ending
from ps_vae.ps.fleet import Fleet
from ps_vae.ps.follower import Follower
from ps_vae.ps.gathering import Found, Gathering
from ps_vae.ps.open_steps import OpenSteps
from ps_vae.ps.published import Published
from ps_vae.ps.reduction import StepSum
from ps_vae.ps.replication import Replication
from ps_vae.ps.shard import Shard
from ps_vae.ps.work import StepWork
from simulation.exploration import run_seed
from simulation.hostility import GRABS, grabbing_world
from simulation.ledger import ViolationError
from simulation.misfortunes import Misfortunes

# More than each of them takes.
SEEDS = 300
SEEDS_FOLLOWED = 1000


def count_what_was_counted_asynchronously(patch):
    patch.setattr(Arrivals, "accepts", lambda self, block: True)


def count_what_was_counted_synchronously(patch):
    patch.setattr(StepSum, "_covers", lambda self, block: False)


def count_a_step_that_is_in_the_weights(patch):
    def push(self, sender, message, now):
        held, block = self._slice, Block(message.start, message.stop)
        held.before, before = min(held.before, message.step), held.before
        outputs = self._count(sender, message, block, self._open.gradient(message), now)
        held.before = max(before, held.before)
        return outputs

    patch.setattr(Shard, "_push", push)


def count_a_block_in_another_place(patch):
    add = StepSum.add

    def misplace(self, block, *words, **options):
        last = self.microbatches - 1
        place = Block(last - block.start, last - block.start + 1) if len(block) == 1 else block
        return add(self, place, *words, **options)

    patch.setattr(StepSum, "add", misplace)


def leave_out_the_last_block(patch):
    patch.setattr(StepSum, "is_complete", property(lambda self: self.missing <= self.microbatches // 2))


def forget_a_lease(patch):
    def lost(self, worker):
        self.release(worker)

    patch.setattr(Backlog, "lost", lost)


def drop_the_work_of_a_lost_lease(patch):
    def orphan(self, ticket):
        self.leases.pop(ticket, None)
        self.backups.pop(ticket, None)
        return 0

    patch.setattr(StepWork, "orphan", orphan)


def forget_who_backs_whom(patch):
    patch.setattr(StepWork, "backup_of", lambda self, ticket: None)


def blame_who_has_work_of_the_same_step(patch):
    in_trouble = Assignments._in_trouble

    def blame(self, worker, ticket, text):
        others = [client for client in self._roster.workers if client.lease is not None and client is not worker]
        for other in others:
            in_trouble(self, other, other.lease, text)
        return in_trouble(self, worker, ticket, text)

    patch.setattr(Assignments, "_in_trouble", blame)


def never_end_a_lease(patch):
    patch.setattr(Backlog, "overdue", lambda self, now: [])


def never_repeat_a_lost_push(patch):
    patch.setattr(Backlog, "reissue_undelivered", lambda self, now: None)


def give_out_lost_blocks_as_larger_ones(patch):
    begin = StepWork.__post_init__

    def merge(self):
        begin(self)
        self.merges = True

    patch.setattr(StepWork, "__post_init__", merge)


def write_to_weights_that_are_published(patch):
    add = Published.add

    def give_back_too_early(self, version, weights, **options):
        add(self, version, weights, **options)
        self._buffers.give(weights)

    patch.setattr(Published, "add", give_back_too_early)


def take_the_arrays_that_others_read(patch):
    patch.setattr(Buffers, "take", lambda self: self._free[-1] if self._free else aligned(self.size))


def take_gradients_of_any_age(patch):
    usable = Consistency.usable
    patch.setattr(Consistency, "usable", lambda self, step: Versions(0, None) if self.bound else usable(self, step))
    patch.setattr(OpenSteps, "check", lambda self, push, version: Block(push.start, push.stop))


def go_on_where_one_shard_is(patch):
    patch.setattr(Fleet, "lowest", property(lambda self: max(shard.before for shard in self.shards)))


def take_the_parts_of_a_snapshot_from_different_versions(patch):
    add = Ending.add

    def confuse(self, snapshot):
        return add(self, dataclasses.replace(snapshot, version=snapshot.version // 2 * 2))

    patch.setattr(Ending, "add", confuse)


def take_a_standstill_for_silence(patch):
    patch.setattr(Coordinator, "_excuse_standstill", lambda self, now: None)


def publish_before_the_follower_has_it(patch):
    patch.setattr(Replication, "is_waited_for", property(lambda self: False))


def rely_on_whoever_follows(patch):
    def can_be_replaced(self, shard):
        return shard.follower is not None and None not in (shard.follower.following, shard.follower.sender)

    patch.setattr(Fleet, "can_be_replaced", can_be_replaced)


def rely_on_who_was_given_up(patch):
    applied = Fleet.applied

    def keep(self, message, now):
        shard = self.shards[message.shard]
        before = shard.relied_on
        outputs = applied(self, message, now)
        shard.relied_on = message.follower or before
        shard.over.clear()
        return outputs

    patch.setattr(Fleet, "applied", keep)


def take_what_an_earlier_following_has(patch):
    replicated = Shard._replicated

    def confuse(self, sender, message, now):
        following = self._replication.following
        if following is None:
            return []
        return replicated(self, sender, dataclasses.replace(message, following=following), now)

    patch.setattr(Shard, "_replicated", confuse)


def apply_a_step_twice(patch):
    apply = Follower._apply

    def again(self, step, now):
        outputs = apply(self, step, now)
        if self.shard is not None and self.version == step.version + 1:
            self.shard.follow(dataclasses.replace(step, version=self.version))
        return outputs

    patch.setattr(Follower, "_apply", again)


def lead_before_other_shards_are_there(patch):
    def can_be_replaced(self, shard):
        follower = shard.follower
        if follower is None or follower.sender is None or follower.following is None:
            return False
        return follower.following == shard.relied_on and follower.following not in shard.over

    patch.setattr(Fleet, "can_be_replaced", can_be_replaced)


def never_follow_anew(patch):
    patch.setattr(Follower, "_follow_anew", lambda self, now: [])


def keep_work_that_the_leader_before_had(patch):
    patch.setattr(Backlog, "reissue_delivered", lambda self: None)
    patch.setattr(Backlog, "reissue_undelivered", lambda self, now: None)


def go_on_without_looking_at_versions(patch):
    patch.setattr(Gathering, "_fit", lambda self, members: True)


def take_who_has_no_copy(patch):
    member = Gathering._member

    def any_of_them(self, number, piece, waited):
        for server in self._servers.values():
            if server.standby is not None and server.standby.following is None:
                server.standby = dataclasses.replace(server.standby, following=bytes(16))
        return member(self, number, piece, waited)

    patch.setattr(Gathering, "_member", any_of_them)


def forget_where_the_run_was(patch):
    lowest = Found.lowest
    patch.setattr(Found, "lowest", property(lambda self: lowest.fget(self) + 1))


def take_any_permit_for_one(patch):
    patch.setattr("ps_vae.ps.shard.is_permitted", lambda secret, push: push.permit is not None)


def make_permits_for_any_block(patch):
    make = permits.permit

    def forgetful(secret, session, ticket, step, block):
        return make(secret, session, ticket, step, Block(0, 1))

    patch.setattr(permits, "permit", forgetful)
    patch.setattr(assignments, "permit", forgetful)


def never_look_at_permits(patch):
    patch.setattr(Shard, "_is_permitted", lambda self, push: None)


BROKEN = {
    count_what_was_counted_asynchronously: "which it had counted",
    count_what_was_counted_synchronously: "times|not all of step",
    count_a_step_that_is_in_the_weights: "which it had counted|not all of step",
    count_a_block_in_another_place: "times|not all of step|Arrays are not equal",
    leave_out_the_last_block: "not all of step",
    forget_a_lease: "nobody holds lease",
    drop_the_work_of_a_lost_lease: "are not all, each once",
    forget_who_backs_whom: "does not do what",
    blame_who_has_work_of_the_same_step: "are blamed",
    never_end_a_lease: "the run hangs",
    never_repeat_a_lost_push: "the run hangs",
    give_out_lost_blocks_as_larger_ones: "the run hangs",
    write_to_weights_that_are_published: "is published",
    take_the_arrays_that_others_read: "is published|times",
    take_gradients_of_any_age: "a bound of",
    go_on_where_one_shard_is: "before some shard",
    take_the_parts_of_a_snapshot_from_different_versions: "a snapshot of version",
    take_a_standstill_for_silence: "is silent for 60 s",
}


# In runs whose shards have followers.
BROKEN_FOLLOWING = {
    publish_before_the_follower_has_it: "is relied on for",
    rely_on_whoever_follows: "is relied on for",
    rely_on_who_was_given_up: "is relied on for|is to lead",
    take_what_an_earlier_following_has: "no follower to rely on",
    apply_a_step_twice: "which it had counted|not all of step",
    lead_before_other_shards_are_there: "the run hangs|cannot be taken up",
    never_follow_anew: "no follower to rely on",
    keep_work_that_the_leader_before_had: "the run hangs",
    go_on_without_looking_at_versions: ".",
    take_who_has_no_copy: ".",
    forget_where_the_run_was: ".",
}


# In runs with an aggregation, and with a worker that pushes what others were given.
BROKEN_PERMITS = {
    never_look_at_permits: GRABS["with none"],
    take_any_permit_for_one: GRABS["with one that is made up"],
    make_permits_for_any_block: GRABS["with a permit of its own"],
}


def followed_seeds():
    return (seed for seed in range(SEEDS_FOLLOWED) if Misfortunes(seed).is_followed)


def first_found(seeds):
    return next(outcome for seed in seeds if (outcome := run_seed(seed)).error is not None)


@pytest.mark.parametrize("broken", [*BROKEN, *BROKEN_FOLLOWING], ids=lambda broken: broken.__name__)
def test_a_broken_machine_is_found(broken, monkeypatch):
    broken(monkeypatch)

    found = first_found(range(SEEDS) if broken in BROKEN else followed_seeds())

    assert re.search({**BROKEN, **BROKEN_FOLLOWING}[broken], str(found.error)), found.text
    assert f"python -m tests.simulation --seed {found.seed}" in found.text


@pytest.mark.parametrize("broken", BROKEN_PERMITS, ids=lambda broken: broken.__name__)
def test_a_machine_that_is_careless_with_permits_is_found(broken, monkeypatch):
    broken(monkeypatch)

    with pytest.raises(ViolationError, match="which was not given it"):
        grabbing_world(BROKEN_PERMITS[broken]).run()
