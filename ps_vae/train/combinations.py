"""Which of a run's options go together: what one of them needs and another does not give."""

import math
from typing import TYPE_CHECKING

from ps_vae.errors import UsageError
from ps_vae.nn.dense import weight_gradient
from ps_vae.ps.aggregation.table import MOST_SEPARATE, aggregation_for
from ps_vae.ps.codecs.factors import Products
from ps_vae.ps.codecs.pull import pull_codec_for
from ps_vae.ps.codecs.table import FACTORS, codec_for, push_codec_for
from ps_vae.ps.consistency import parse_consistency
from ps_vae.vae.bounds import bound
from ps_vae.vae.config import prior_of

if TYPE_CHECKING:
    from ps_vae.train.config import RunConfig

__all__ = ["check_combinations", "leaves_out"]


def check_combinations(config: "RunConfig") -> None:
    """Raises UsageError, naming the options, where some of them do not go together."""
    for check in (_local_steps, _objective, _codec, _aggregation, _clipping):
        check(config)


def leaves_out(codec: str) -> bool:
    """Whether what a codec leaves out of one message comes with later ones."""
    make = None if codec == FACTORS else codec_for(codec)
    return make is not None and "residual" in make(0, ()).state


def _objective(config: "RunConfig") -> None:
    if not (math.isfinite(config.beta) and config.beta >= 0) or config.beta_warmup < 0:
        raise UsageError(f"--beta {config.beta} with --beta-warmup {config.beta_warmup}: give numbers from 0 up")
    for flag, nats in (("--free-bits", config.free_bits), ("--capacity", config.capacity)):
        if not (math.isfinite(nats) and nats >= 0):
            raise UsageError(f"{flag} {nats}: give nats from 0 up")
    if config.capacity_warmup < 0:
        raise UsageError(f"--capacity-warmup {config.capacity_warmup}: give steps from 0 up")
    trained = bound(config.bound)
    prior = prior_of(config.model)
    said = f"--free-bits {config.free_bits:g}" if config.free_bits else f"--capacity {config.capacity:g}"
    if config.free_bits and config.capacity:
        raise UsageError(f"{said} and --capacity {config.capacity:g} are two penalties on one KL; give one of them")
    if said.split()[-1] != "0" and (trained.weighs or trained.is_path or not prior.is_standard):
        raise UsageError(
            f"{said} needs the KL in closed form, and --bound {config.bound} with --prior {config.model.prior} has it "
            "sampled; use --bound elbo with --prior normal or uniform"
        )
    if config.push_codec == FACTORS and (trained.samples > 1 or prior.beside):
        what = f"--bound {config.bound}" if trained.samples > 1 else f"--prior {config.model.prior}"
        raise UsageError(
            f"--push-codec {FACTORS} sends what gradients are products of, one row for each example, and {what} "
            "has more of them; use another codec"
        )


def _codec(config: "RunConfig") -> None:
    try:
        make = push_codec_for(config.push_codec)
    except UsageError as error:
        raise UsageError(f"--push-codec {config.push_codec}: {error}") from None
    if config.push_codec == FACTORS and config.local_steps:
        raise UsageError(
            f"--push-codec {FACTORS} sends what gradients are products of, and --local-steps {config.local_steps} "
            "sends no gradients; use another codec, or no local steps"
        )
    state = set() if make is None else set(make(0, (), Products(config.microbatch, weight_gradient))(1).state)
    if "velocity" in state and (config.optimizer != "sgd" or config.local_steps):
        has = f"--optimizer {config.optimizer}" if config.optimizer != "sgd" else f"--local-steps {config.local_steps}"
        raise UsageError(
            f"--push-codec {config.push_codec} has a momentum in the place of the server's, and {has} has one of "
            "its own; use --optimizer sgd without local steps, or leave the codec's momentum out"
        )
    try:
        pull = pull_codec_for(config.pull_codec)
    except UsageError as error:
        raise UsageError(f"--pull-codec {config.pull_codec}: {error}") from None
    if pull is not None and pull(0, (), 0).is_change and not parse_consistency(config.consistency).is_synchronous:
        raise UsageError(
            f"--pull-codec {config.pull_codec} sends changes, which add up only where all workers see every version; "
            f"use --consistency bsp, or in {config.consistency} --pull-codec int8, fp16 or bf16"
        )


def _clipping(config: "RunConfig") -> None:
    if not (math.isfinite(config.clip_norm) and config.clip_norm >= 0):
        raise UsageError(f"--clip-norm {config.clip_norm}: give a length above zero, or 0 for none")
    if config.clip_norm and config.push_codec == FACTORS:
        raise UsageError(
            f"--clip-norm {config.clip_norm:g} needs the gradient's length, and with --push-codec {FACTORS} the "
            "worker does not multiply it out; use another codec"
        )


def _aggregation(config: "RunConfig") -> None:
    try:
        aggregation = aggregation_for(config.aggregate)
    except UsageError as error:
        raise UsageError(f"--aggregate {config.aggregate}: {error}") from None
    if aggregation is None:
        return
    said = f"--aggregate {config.aggregate}"
    if not parse_consistency(config.consistency).is_synchronous:
        raise UsageError(f"{said} is of all microbatches of a step together; use --consistency bsp")
    if not aggregation.cut(config.microbatches):
        raise UsageError(
            f"{said} of {config.microbatches} microbatches leaves none of them out; give a smaller --microbatch than "
            f"{config.microbatch}: workers that are to be outvoted must have less than half of the microbatches"
        )
    if config.microbatches > MOST_SEPARATE:
        raise UsageError(
            f"{said} keeps all {config.microbatches:,} microbatches apart, and {MOST_SEPARATE} are possible; "
            f"give a larger --microbatch than {config.microbatch}"
        )
    if leaves_out(config.push_codec):
        raise UsageError(
            f"{said} drops what a few workers say, and --push-codec {config.push_codec} needs all of it to make up "
            "for what it left out; use factors, fp16, bf16, int8 or none"
        )


def _local_steps(config: "RunConfig") -> None:
    if config.local_steps < 0:
        raise UsageError(f"--local-steps {config.local_steps}: give 0 for none, or how many")
    if not (math.isfinite(config.outer_rate) and config.outer_rate > 0 and 0 <= config.outer_momentum < 1):
        raise UsageError(
            f"--outer-rate {config.outer_rate} with --outer-momentum {config.outer_momentum}: "
            "give a rate above 0, and a momentum from 0 up and below 1"
        )
