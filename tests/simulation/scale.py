"""Many workers: what the coordinator has to do for a step, in messages and in time of this machine's processor."""


def run_at_scale(workers, shards, steps):
    raise NotImplementedError
