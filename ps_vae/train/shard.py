"""One shard of a run, with everything that its configuration says of it."""

from dataclasses import replace

from ps_vae.ps.aggregation.table import aggregation_for
from ps_vae.ps.buffers import Buffers
from ps_vae.ps.consistency import parse_consistency
from ps_vae.ps.identity import FIRST, ServerIdentity
from ps_vae.ps.partition import Slice
from ps_vae.ps.rules import RunRules
from ps_vae.ps.shard import Shard
from ps_vae.ps.sharing.segment import Segment
from ps_vae.ps.state import ShardState
from ps_vae.ps.transport import PUBLISHED, open_segment
from ps_vae.train.config import RunConfig
from ps_vae.train.encoding import pull_codecs, push_codecs
from ps_vae.train.facts import keeping_facts
from ps_vae.train.gradient import METRICS, is_finite
from ps_vae.train.update import look_ahead_rule, shard_rule
from ps_vae.vae.layout import ParameterLayout

__all__ = ["rules_of", "shard_of"]


def rules_of(config: RunConfig, run: bytes, version: int, secret: bytes) -> RunRules:
    """What the members of the run agree on, where its servers begin at `version`.

    secret  of the run's servers; left out of the rules where there is no aggregation, and so nothing to use it for
    """
    aggregation = aggregation_for(config.aggregate)
    return RunRules(
        run=run,
        microbatches=config.microbatches,
        steps=config.steps,
        consistency=replace(parse_consistency(config.consistency), delay=config.delay, first=version),
        milestone=config.milestone,
        metrics=len(METRICS),
        batches=config.batches_a_step,
        aggregation=aggregation,
        secret=b"" if aggregation is None else secret,
    )


def shard_of(
    config: RunConfig,
    rules: RunRules,
    number: int,
    piece: Slice,
    state: ShardState,
    transport: str,
    identity: ServerIdentity = FIRST,
) -> tuple[Shard, Segment | None]:
    """The shard, and the memory that its published weights lie in where memory is shared.

    state      of the slice alone
    transport  how tensors travel between processes of this host: one of ps_vae.ps.transport.TRANSPORTS
    identity   of the server
    """
    segment = open_segment(PUBLISHED, piece.size, transport)
    published = Buffers(piece.size, segment.arrays() if segment is not None else ())
    push, pull = next(iter(push_codecs(config, [piece])), None), next(iter(pull_codecs(config, [piece])), None)
    layout = ParameterLayout(config.model)
    rule, ahead = keeping_facts(shard_rule(config), layout, piece), look_ahead_rule(config)

    def name_of(element: int) -> str:
        return f"{layout.tensor_at(piece.start + element)} (element {element})"

    return Shard(number, rules, state, rule, published, is_finite, ahead, push, pull, name_of, identity), segment
