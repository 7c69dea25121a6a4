"""Which microbatches every shard has counted, told by the gradients themselves and not by the machines.

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


class Ledger:
    """What was counted, by shard.

    Invariants: counted[shard] holds (step, index) of each microbatch that is in the shard's weights;
                versions[shard][n] and sizes[shard][n] are how many steps, from the first, and how many microbatches
                the weights of number n hold.
    """

    def __init__(self, slices, rules, first):
        if rules.microbatches > LANES or any(piece.size <= WITNESS for piece in slices):
            raise ValueError(f"a ledger takes {LANES} microbatches and slices of more than {WITNESS} numbers")
        self.slices, self.rules, self.first = slices, rules, first
        self.counted = [set() for _ in slices]
        self.versions = [[first] for _ in slices]
        self.sizes = [[0] for _ in slices]

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

    def update(self, shard, update):
        """The update of a shard, which the ledger reads."""

        def watched(weights, parts, state, moment, out):
            update(weights, parts, state, moment, out)
            self._count(shard, functools.reduce(np.add, (part[:WITNESS] for part in parts)))
            out[:WITNESS] = len(self.versions[shard]) - 1

        return watched

    def check_snapshot(self, version, weights):
        """Exactly the steps below `version`, on every shard."""
        for shard in range(len(self.slices)):
            number = self.number(shard, weights)
            steps, size = self.versions[shard][number], self.sizes[shard][number]
            if (steps, size) != (version, (version - self.first) * self.rules.microbatches):
                text = f"{size} microbatches and the first {steps} steps"
                raise ViolationError(f"a snapshot of version {version} has of shard {shard} {text}")

    def steps(self, shard):
        """The steps of which a shard has counted everything."""
        steps = {step for step, _ in self.counted[shard]}
        return sorted(step for step in steps if self._is_whole(shard, step))

    def _is_whole(self, shard, step):
        return all((step, index) in self.counted[shard] for index in range(self.rules.microbatches))

    def _count(self, shard, witness):
        step_of, counts, computed_on = witness[:LANES], witness[LANES : 2 * LANES], witness[2 * LANES :]
        (leaves,) = np.nonzero(counts)
        found = f"shard {shard} adds microbatches {leaves.tolist()} of steps {(step_of[leaves] - 1).tolist()}"
        if (counts[leaves] != 1).any() or len(set(step_of[leaves].tolist())) != 1:
            raise ViolationError(f"{found}, {counts[leaves].tolist()} times")
        step = int(step_of[leaves[0]]) - 1
        version, counted = self.versions[shard][-1], self.counted[shard]
        if any((step, leaf) in counted for leaf in leaves.tolist()):
            raise ViolationError(f"{found}, which it had counted")
        consistency = self.rules.consistency
        if consistency.bound == 0 and (step != version or len(leaves) != self.rules.microbatches):
            raise ViolationError(f"{found}, and not all of step {version}")
        for number in set(computed_on[leaves].tolist()):
            self._check_staleness(shard, step, self.versions[shard][int(number)])
        counted.update((step, leaf) for leaf in leaves.tolist())
        while self._is_whole(shard, version):
            version += 1
        self.versions[shard].append(version)
        self.sizes[shard].append(len(counted))

    def _check_staleness(self, shard, step, version):
        bound, delay = self.rules.consistency.bound, self.rules.consistency.delay
        if bound == 0 and version != max(self.first, step - delay):
            raise ViolationError(f"shard {shard} counts step {step} computed on version {version}, a delay of {delay}")
        if bound and version < step - bound:
            raise ViolationError(f"shard {shard} counts step {step} computed on version {version}, a bound of {bound}")
