"""Which microbatches every machine of a shard has counted, told by the gradients themselves and not by the machines.

The first 48 numbers of each slice are not trained but written: 16 for the step, 16 for the count, 16 for the weights.
The gradient of microbatch i of step s has at place i of each 16

    s + 1      1      the number of the weights that it was computed on

and zeros elsewhere, so that a sum tells which leaves are in it, how often, of which step and computed on what. Every
update writes its own number into all 48, so that weights say which they are, and torn ones show.
"""

import functools

import numpy as np

LANES = 16
WITNESS = 3 * LANES


class ViolationError(AssertionError):
    """A promise was broken."""


class Tally:
    """What one machine of a shard has counted: a leader's, or a follower's.

    Invariants: counted holds (step, index) of each microbatch that is in the machine's weights;
                versions[n] and sizes[n] are how many steps, from the first, and how many microbatches the weights of
                number n hold.

    version  that it begins at
    sums     of the shard's steps, by number of the weights before; all its machines have the same
    """

    def __init__(self, shard, rules, version, sums):
        self.shard, self.rules = shard, rules
        first, microbatches = rules.consistency.first, rules.microbatches
        self.counted = {(step, index) for step in range(first, version) for index in range(microbatches)}
        self.versions = list(range(first, version + 1))
        self.sizes = [(known - first) * microbatches for known in self.versions]
        self._sums = sums

    def update(self, update):
        """The machine's update, which is read."""

        def watched(weights, parts, state, moment, out):
            update(weights, parts, state, moment, out)
            self._count(functools.reduce(np.add, (part[:WITNESS] for part in parts)))
            if self.rules.consistency.is_synchronous:
                self._compare(functools.reduce(np.add, parts))
            out[:WITNESS] = len(self.versions) - 1

        return watched

    @property
    def steps(self):
        """The steps of which everything is counted."""
        return sorted(step for step in {step for step, _ in self.counted} if self._is_whole(step))

    def _is_whole(self, step):
        return all((step, index) in self.counted for index in range(self.rules.microbatches))

    def _count(self, witness):
        step_of, counts, computed_on = witness[:LANES], witness[LANES : 2 * LANES], witness[2 * LANES :]
        (leaves,) = np.nonzero(counts)
        found = f"shard {self.shard} adds microbatches {leaves.tolist()} of steps {(step_of[leaves] - 1).tolist()}"
        if (counts[leaves] != 1).any() or len(set(step_of[leaves].tolist())) != 1:
            raise ViolationError(f"{found}, {counts[leaves].tolist()} times")
        step = int(step_of[leaves[0]]) - 1
        version = self.versions[-1]
        if any((step, leaf) in self.counted for leaf in leaves.tolist()):
            raise ViolationError(f"{found}, which it had counted")
        consistency = self.rules.consistency
        if consistency.bound == 0 and (step != version or len(leaves) != self.rules.microbatches):
            raise ViolationError(f"{found}, and not all of step {version}")
        for number in {int(number) for number in computed_on[leaves].tolist()}:
            if number >= len(self.versions):
                raise ViolationError(f"{found}, computed on weights {number}, which it has not")
            self._check_staleness(step, self.versions[number])
        self.counted.update((step, leaf) for leaf in leaves.tolist())
        while self._is_whole(version):
            version += 1
        self.versions.append(version)
        self.sizes.append(len(self.counted))

    def _compare(self, total):
        number = len(self.versions) - 2
        if self._sums.setdefault(number, total.tobytes()) != total.tobytes():
            raise ViolationError(
                f"shard {self.shard} counts other gradients of step {self.versions[number]} than it did"
            )

    def _check_staleness(self, step, version):
        consistency = self.rules.consistency
        bound, delay = consistency.bound, consistency.delay
        found = f"shard {self.shard} counts step {step} computed on version {version}"
        if bound == 0 and version != max(consistency.first, step - delay):
            raise ViolationError(f"{found}, a delay of {delay}")
        if bound and version < step - bound:
            raise ViolationError(f"{found}, a bound of {bound}")


class Ledger:
    """What was counted by whom.

    leading  of each shard, the tally of the machine that leads it
    """

    def __init__(self, slices, rules, first):
        if rules.microbatches > LANES or any(piece.size <= WITNESS for piece in slices):
            raise ValueError(f"a ledger takes {LANES} microbatches and slices of more than {WITNESS} numbers")
        self.slices, self.rules, self.first = slices, rules, first
        self._sums = [{} for _ in slices]
        self.leading = [self.tally(shard, first) for shard in range(len(slices))]

    def tally(self, shard, version):
        """Of another machine of a shard, that begins at a version."""
        return Tally(shard, self.rules, version, self._sums[shard])

    @property
    def trained(self):
        """Which elements of the vector are no witnesses."""
        mask = np.ones(self.slices[-1].stop, bool)
        for piece in self.slices:
            mask[piece.start : piece.start + WITNESS] = False
        return mask

    def initial(self, weights):
        """The weights to begin with: those of number 0."""
        weights = weights.copy()
        weights[~self.trained] = 0
        return weights

    def number(self, shard, weights):
        """Which weights of a shard these are; a ViolationError where they are not all of one."""
        witness = weights[self.slices[shard].start :][:WITNESS]
        if witness.min() != witness.max():
            raise ViolationError(f"torn: weights of shard {shard} are of updates {sorted(set(witness.tolist()))}")
        return int(witness[0])

    def gradient(self, gradient):
        """The gradient with its witnesses."""

        def witnessed(weights, step, index):
            out = gradient(weights, step, index)
            for shard, piece in enumerate(self.slices):
                witness = out[piece.start : piece.start + WITNESS]
                witness.fill(0)
                witness[index::LANES] = step + 1, 1, self.number(shard, weights)
            return out

        return witnessed

    def check_snapshot(self, version, weights):
        """Exactly the steps below `version`, on every shard."""
        for shard, tally in enumerate(self.leading):
            number = self.number(shard, weights)
            steps, size = tally.versions[number], tally.sizes[number]
            if (steps, size) != (version, (version - self.first) * self.rules.microbatches):
                text = f"{size} microbatches and the first {steps} steps"
                raise ViolationError(f"a snapshot of version {version} has of shard {shard} {text}")
