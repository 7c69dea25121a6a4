"""A run's configuration: everything that a member has to know, in one frozen value that travels as JSON."""

import dataclasses
import json
import math
from dataclasses import dataclass
from typing import Any

from ps_vae.errors import PeerError, UsageError
from ps_vae.nn.dense import weight_gradient
from ps_vae.optim.schedules import Schedule, beta_at, schedule
from ps_vae.optim.table import optimizer
from ps_vae.ps.aggregation.table import MEAN, MOST_SEPARATE, aggregation_for
from ps_vae.ps.codecs.factors import Products
from ps_vae.ps.codecs.pull import pull_codec_for
from ps_vae.ps.codecs.table import FACTORS, NO_CODEC, codec_for, push_codec_for
from ps_vae.ps.consistency import parse_consistency
from ps_vae.vae.bounds import Objective, bound
from ps_vae.vae.config import ModelConfig, prior_of

__all__ = ["BINARIZATIONS", "UNCONDITIONED", "RunConfig", "default_microbatch", "steps_of"]

BINARIZATIONS = ("none", "static", "dynamic")

UNCONDITIONED = "none"
"""A run's condition where there is none."""

# Rows of a microbatch where the user does not say: small enough to share a batch, large enough for the GEMMs.
_USUAL_MICROBATCH, _FEWEST_ROWS = 64, 16
# What `work` and `push` messages can name.
_MOST_MICROBATCHES = (1 << 20) - 1
# Noise is named by 32 bits of step, and the last three are kept for examples that are binarised once.
_MOST_STEPS = (1 << 32) - 3


@dataclass(frozen=True, slots=True)
class RunConfig:
    """What is trained, on what, how.

    data, split       as `ps_vae.data.load` takes them
    data_fingerprint  of the server's data; a worker whose data differ refuses to start
    train_rows        rows in the training split
    condition         "labels", or a column of a table, that both networks see; "none": nothing
    binarize          none; static: each image once; dynamic: afresh each time (pixels are probabilities)
    bias_from_data    whether the likelihood's bias starts at the data's mean
    bound             of log p(x) that is trained, a name as in ps_vae.vae.bounds
    beta, beta_warmup weight of the KL term, reached after so many steps
    free_bits         nats of each latent dimension's KL that cost nothing
    capacity, capacity_warmup
                      nats that the KL is drawn to, growing from 0 over so many steps; 0: to none
    patience          evaluations in a row without a better validation ELBO that end the run; 0: none do
    batch_size        rows of a step, over all workers
    microbatch        rows of the unit of work; divides batch_size
    steps             of the whole run
    milestone         steps between checkpoints (and evaluations)
    report_every      steps between lines of metrics.jsonl
    push_codec        how gradients are written on their way to the server
    pull_codec        how weights are written on their way to the workers
    local_steps       inner steps of a worker in each step of the run; 0: none, gradients are pushed
    outer_rate, outer_momentum
                      of the server's optimizer where there are local steps
    delay             steps that the weights are old on which a step is computed, in bsp
    aggregate         what a step makes of its microbatches' gradients: their mean, median, or trimmed mean
    clip_norm         longest mean gradient of a microbatch, where longer ones are scaled down; 0: none is

    Raises UsageError for what cannot be.
    """

    data: str
    split: str
    data_fingerprint: str
    train_rows: int
    binarize: str
    model: ModelConfig
    bias_from_data: bool
    beta: float
    beta_warmup: int
    optimizer: str
    learning_rate: float
    schedule: str
    batch_size: int
    microbatch: int
    steps: int
    milestone: int
    report_every: int
    consistency: str
    seed: int
    push_codec: str = NO_CODEC
    pull_codec: str = NO_CODEC
    local_steps: int = 0
    outer_rate: float = 1.0
    outer_momentum: float = 0.0
    delay: int = 0
    clip_norm: float = 0.0
    aggregate: str = MEAN
    bound: str = "elbo"
    free_bits: float = 0.0
    capacity: float = 0.0
    capacity_warmup: int = 0
    patience: int = 0
    condition: str = UNCONDITIONED

    def __post_init__(self) -> None:
        if self.binarize not in BINARIZATIONS:
            raise UsageError(f"--binarize {self.binarize} is not known; choose {', '.join(BINARIZATIONS)}")
        if self.binarize != "none" and self.model.likelihood != "bernoulli":
            raise UsageError(f"--binarize {self.binarize} makes bits; use --likelihood bernoulli with it")
        if (self.condition == UNCONDITIONED) != (self.model.classes == 0):
            raise UsageError(f"--condition {self.condition}: the data were read with {self.model.classes} classes")
        if self.batch_size < 1 or self.microbatch < 1 or self.batch_size % self.microbatch:
            raise UsageError(
                f"--batch-size {self.batch_size} is not a multiple of --microbatch {self.microbatch}; "
                f"give --microbatch {default_microbatch(max(1, self.batch_size))}"
            )
        if self.microbatches > _MOST_MICROBATCHES:
            raise UsageError(
                f"--batch-size {self.batch_size} in --microbatch {self.microbatch} makes {self.microbatches:,} parts; "
                f"{_MOST_MICROBATCHES:,} are possible: give a larger --microbatch"
            )
        self._check_local_steps()
        if not (self.steps >= 1 and self.steps * self.batches_a_step <= _MOST_STEPS):
            raise UsageError(
                f"--steps (or --epochs) makes {self.steps} steps of {self.batches_a_step} batches; "
                f"give at least 1, and at most {_MOST_STEPS} batches"
            )
        for flag, steps in (("--checkpoint-every", self.milestone), ("--report-every", self.report_every)):
            if steps < 1:
                raise UsageError(f"{flag} {steps}: give at least 1 step")
        self._check_objective()
        if self.patience < 0:
            raise UsageError(f"--patience {self.patience}: give a number of evaluations, or 0 to train to the end")
        if not 0 <= self.seed < 1 << 63:
            raise UsageError(f"--seed {self.seed}: give a number from 0 to 2^63 - 1")
        optimizer(self.optimizer)
        self.rates()
        parse_consistency(self.consistency)
        self._check_codec()
        self._check_aggregation()
        self._check_clipping()
        if self.delay not in (0, 1):
            raise UsageError(f"--delay {self.delay}: give 0, or 1 to compute while the exchange is under way")
        if self.delay and not parse_consistency(self.consistency).is_synchronous:
            raise UsageError(f"--delay {self.delay} is for --consistency bsp; {self.consistency} does not wait anyway")

    def _check_objective(self) -> None:
        if not (math.isfinite(self.beta) and self.beta >= 0) or self.beta_warmup < 0:
            raise UsageError(f"--beta {self.beta} with --beta-warmup {self.beta_warmup}: give numbers from 0 up")
        for flag, nats in (("--free-bits", self.free_bits), ("--capacity", self.capacity)):
            if not (math.isfinite(nats) and nats >= 0):
                raise UsageError(f"{flag} {nats}: give nats from 0 up")
        if self.capacity_warmup < 0:
            raise UsageError(f"--capacity-warmup {self.capacity_warmup}: give steps from 0 up")
        trained = bound(self.bound)
        prior = prior_of(self.model)
        said = f"--free-bits {self.free_bits:g}" if self.free_bits else f"--capacity {self.capacity:g}"
        if self.free_bits and self.capacity:
            raise UsageError(f"{said} and --capacity {self.capacity:g} are two penalties on one KL; give one of them")
        if said.split()[-1] != "0" and (trained.weighs or trained.is_path or not prior.is_standard):
            raise UsageError(
                f"{said} needs the KL in closed form, and --bound {self.bound} with --prior {self.model.prior} has it "
                "sampled; use --bound elbo with --prior normal or uniform"
            )
        if self.push_codec == FACTORS and (trained.samples > 1 or prior.beside):
            what = f"--bound {self.bound}" if trained.samples > 1 else f"--prior {self.model.prior}"
            raise UsageError(
                f"--push-codec {FACTORS} sends what gradients are products of, one row for each example, and {what} "
                "has more of them; use another codec"
            )

    def _check_codec(self) -> None:
        try:
            make = push_codec_for(self.push_codec)
        except UsageError as error:
            raise UsageError(f"--push-codec {self.push_codec}: {error}") from None
        if self.push_codec == FACTORS and self.local_steps:
            raise UsageError(
                f"--push-codec {FACTORS} sends what gradients are products of, and --local-steps {self.local_steps} "
                "sends no gradients; use another codec, or no local steps"
            )
        state = set() if make is None else set(make(0, (), Products(self.microbatch, weight_gradient))(1).state)
        if "velocity" in state and (self.optimizer != "sgd" or self.local_steps):
            has = f"--optimizer {self.optimizer}" if self.optimizer != "sgd" else f"--local-steps {self.local_steps}"
            raise UsageError(
                f"--push-codec {self.push_codec} has a momentum in the place of the server's, and {has} has one of "
                "its own; use --optimizer sgd without local steps, or leave the codec's momentum out"
            )
        try:
            pull = pull_codec_for(self.pull_codec)
        except UsageError as error:
            raise UsageError(f"--pull-codec {self.pull_codec}: {error}") from None
        if pull is not None and pull(0, (), 0).is_change and not parse_consistency(self.consistency).is_synchronous:
            raise UsageError(
                f"--pull-codec {self.pull_codec} sends changes, which add up only where all workers see every version; "
                f"use --consistency bsp, or in {self.consistency} --pull-codec int8, fp16 or bf16"
            )

    def _check_clipping(self) -> None:
        if not (math.isfinite(self.clip_norm) and self.clip_norm >= 0):
            raise UsageError(f"--clip-norm {self.clip_norm}: give a length above zero, or 0 for none")
        if self.clip_norm and self.push_codec == FACTORS:
            raise UsageError(
                f"--clip-norm {self.clip_norm:g} needs the gradient's length, and with --push-codec {FACTORS} the "
                "worker does not multiply it out; use another codec"
            )

    def _check_aggregation(self) -> None:
        try:
            aggregation = aggregation_for(self.aggregate)
        except UsageError as error:
            raise UsageError(f"--aggregate {self.aggregate}: {error}") from None
        if aggregation is None:
            return
        said = f"--aggregate {self.aggregate}"
        if not parse_consistency(self.consistency).is_synchronous:
            raise UsageError(f"{said} is of all microbatches of a step together; use --consistency bsp")
        if not aggregation.cut(self.microbatches):
            raise UsageError(
                f"{said} of {self.microbatches} microbatches leaves none of them out; give a smaller --microbatch than "
                f"{self.microbatch}: workers that are to be outvoted must have less than half of the microbatches"
            )
        if self.microbatches > MOST_SEPARATE:
            raise UsageError(
                f"{said} keeps all {self.microbatches:,} microbatches apart, and {MOST_SEPARATE} are possible; "
                f"give a larger --microbatch than {self.microbatch}"
            )
        if _leaves_out(self.push_codec):
            raise UsageError(
                f"{said} drops what a few workers say, and --push-codec {self.push_codec} needs all of it to make up "
                "for what it left out; use factors, fp16, bf16, int8 or none"
            )

    def _check_local_steps(self) -> None:
        if self.local_steps < 0:
            raise UsageError(f"--local-steps {self.local_steps}: give 0 for none, or how many")
        if not (math.isfinite(self.outer_rate) and self.outer_rate > 0 and 0 <= self.outer_momentum < 1):
            raise UsageError(
                f"--outer-rate {self.outer_rate} with --outer-momentum {self.outer_momentum}: "
                "give a rate above 0, and a momentum from 0 up and below 1"
            )

    @property
    def microbatches(self) -> int:
        """Units of work in a step."""
        return self.batch_size // self.microbatch

    @property
    def batches_a_step(self) -> int:
        """Batches that a step of the run sees: one, or that of each local step."""
        return max(1, self.local_steps)

    @property
    def rows_a_step(self) -> int:
        """Rows that a step of the run sees."""
        return self.batch_size * self.batches_a_step

    @property
    def leaves_out(self) -> bool:
        """Whether what a codec of the run leaves out comes with later pushes or pulls."""
        return _leaves_out(self.push_codec) or _leaves_out(self.pull_codec.removeprefix("update:"))

    def rates(self) -> Schedule:
        """The learning-rate schedule, over the batches of the run."""
        return schedule(self.schedule, rate=self.learning_rate, steps=self.steps * self.batches_a_step)

    def beta_at(self, step: int) -> float:
        """The weight of the KL term at a batch of the run, counted from 0."""
        return beta_at(step, beta=self.beta, warmup_steps=self.beta_warmup)

    def objective_at(self, step: int) -> Objective:
        """What is minimised at a batch of the run, counted from 0."""
        capacity = self.capacity * min(1.0, step / self.capacity_warmup) if self.capacity_warmup else self.capacity
        return Objective(bound(self.bound), self.beta_at(step), self.free_bits, capacity)

    def to_json(self) -> dict[str, Any]:
        """As plain data; `from_json` is its inverse."""
        return dataclasses.asdict(self)

    def pack(self) -> bytes:
        """As the bytes that travel."""
        return json.dumps(self.to_json(), separators=(",", ":")).encode()

    @staticmethod
    def from_json(plain: dict[str, Any]) -> "RunConfig":
        """Raises KeyError, TypeError, AttributeError or OverflowError for what to_json never makes, UsageError for
        impossible values.
        """
        values = dict(plain)
        values["model"] = ModelConfig(**values["model"])
        return RunConfig(**values)

    @staticmethod
    def unpack(packed: bytes) -> "RunConfig":
        """What the server sent; PeerError where it makes no sense."""
        try:
            return RunConfig.from_json(json.loads(packed))
        except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
            text = f"the server sent a configuration that this version does not understand: {error}"
            raise PeerError("configuration", text) from None


def default_microbatch(batch_size: int, samples: int = 1) -> int:
    """The largest divisor of the batch size that is at most 64, or where `samples` of z are drawn for each row so many
    fewer, but still 16: the decoder's rows are rows times samples.
    """
    most = min(max(_FEWEST_ROWS, _USUAL_MICROBATCH // samples), batch_size)
    return max(rows for rows in range(1, most + 1) if batch_size % rows == 0)


def steps_of(epochs: float, train_rows: int, batch_size: int) -> int:
    """Steps that visit every row `epochs` times; the last one completes them."""
    return max(1, math.ceil(epochs * train_rows / batch_size))


def _leaves_out(codec: str) -> bool:
    make = None if codec == FACTORS else codec_for(codec)
    return make is not None and "residual" in make(0, ()).state
