"""What the programs around workers and evaluators do: store weights, compute, measure. Computing takes virtual time."""

from ps_vae.ps.actions import Compute, Joined, Measure, Result, ShardsMoved, Spent, Stopped, Store, StoreWords
from ps_vae.ps.blocks import Block, root
from ps_vae.ps.messages import Push
from ps_vae.ps.outbox import Send, ShardAddress
from ps_vae.ps.publication import Want
from ps_vae.ps.reduction import add_metrics
from ps_vae.ps.worker import Worker

from .ledger import ViolationError


class Programs:
    """Carries out what clients' machines ask for, in a world."""

    def __init__(self, world):
        self._world = world

    def perform(self, client, actions):
        """Do what a client's machine asked for."""
        for action in actions:
            match action:
                case Send():
                    self._world.delivery.send_from(client, action)
                case Store():
                    client.weights[action.start : action.start + action.weights.size] = action.weights
                case StoreWords():
                    client.reader.take(action.shard, action.words, client.weights, is_change=action.is_change)
                case ShardsMoved():
                    self._connect(client, action.addresses)
                case Joined():
                    self._connect(client, [address for address, _, _ in action.welcome.shards])
                    if isinstance(client.machine, Worker):
                        self.perform(client, client.machine.prepared(self._world.clock(client)))
                case Compute():
                    self._compute(client, action)
                case Measure():
                    self._measure(client, action)
                case Stopped():
                    client.stopped = action

    def _connect(self, client, addresses):
        """To the shards that are elsewhere; what the server there says after that does not come any more."""
        addresses = [address or self._world.servers[0].name for address in addresses]
        for address in set(client.shards) - set(addresses):
            client.reconnect(address)
        client.shards = addresses

    def _compute(self, client, work):
        world = self._world
        versions = tuple(client.machine._held)
        self._check_replica(client, work.step)
        results = [self._block(client, work.step, block) for block in work.blocks]
        parts = None
        if client.encoder is not None:
            parts = [
                client.encoder.parts(client.encoder.encode(work.step, result), len(result.block)) for result in results
            ]
        client.computed += [(work.step, block, versions) for block in work.blocks]
        if client.grabs is not None:
            self._grab(client, results)
        size = sum(len(block) for block in work.blocks)
        seconds = client.seconds * size * world.random.uniform(0.9, 1.1)
        spent = Spent(round(seconds * 1e9))
        self._after(
            client,
            world.now + seconds,
            lambda: client.machine.computed(results, spent, world.clock(client), parts),
        )

    def _grab(self, client, results):
        """At once, what it would make of the microbatches that it was not given, with a permit that it has."""
        machine, gradient = client.machine, results[0].gradient
        work, welcome = machine._work, machine._welcome
        for shard, (_, start, stop) in enumerate(welcome.shards):
            for index in range(welcome.microbatches):
                if (index, index + 1) not in work.blocks:
                    push = Push(
                        run=welcome.run,
                        shard=shard,
                        session=machine._session,
                        ticket=work.ticket,
                        step=work.step,
                        start=index,
                        stop=index + 1,
                        version=machine._held[shard],
                        metrics=results[0].metrics,
                        then=None,
                        payload=(gradient[start:stop],),
                        permit=work.permits[0],
                    )
                    self.perform(client, [Send(ShardAddress(shard), client.grabs(push))])

    def _measure(self, client, measure):
        world = self._world
        client.measured.append((measure.version, client.weights.copy()))
        values = [("version", float(measure.version))]
        self._after(client, world.now + client.seconds, lambda: client.machine.measured(values, world.clock(client)))

    def _after(self, client, time, finish):
        """Finish at `time`, or when the process is awake again, if it lives; then read what has come meanwhile."""
        life = client.life

        def act():
            if client.life != life:
                return
            if client.asleep_until > self._world.now:
                self._world.at(client.asleep_until, act)
                return
            self.perform(client, finish())
            client.read(self._world.now)

        self._world.at(time, act)

    def _check_replica(self, client, step):
        """In a synchronous run whoever computes holds the bits that the shards hold for it."""
        world = self._world
        if not world.checked or not world.rules.consistency.is_synchronous:
            return
        for shard, piece in zip(world.shards, world.slices, strict=True):
            found = shard._slice.published.find(Want(world.rules.consistency.usable(step)))
            if found is not None:
                held = client.weights[piece.start : piece.stop]
                if held.tobytes() != found.payload[0].tobytes():
                    raise ViolationError(
                        f"{client.name} computes step {step} on weights that shard {shard.number} has not"
                    )

    def _block(self, client, step, block):
        """The tree sum of the block, by recursion: independent of how shards sum."""
        gradient, metrics = self._tree(client, step, root(self._world.rules.microbatches), block)
        return Result(block, gradient, metrics)

    def _tree(self, client, step, node, block):
        if len(node) == 1:
            gradient = self._world.gradient(client.weights, step, node.start).copy()
            return client.spoils(gradient, step, node.start) if client.spoils else gradient, (1.0, float(step))
        middle = node.start + (1 << (len(node) - 1).bit_length() - 1)
        parts = []
        for child in (Block(node.start, middle), Block(middle, node.stop)):
            if child.start < block.stop and block.start < child.stop:
                parts.append(self._tree(client, step, child, block))
        if len(parts) == 1:
            return parts[0]
        return parts[0][0] + parts[1][0], add_metrics(parts[0][1], parts[1][1])
