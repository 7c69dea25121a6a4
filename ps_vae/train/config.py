"""A run's configuration: everything that a member has to know, in one frozen value that travels as JSON."""

import dataclasses
import json
import math
from dataclasses import dataclass
from typing import Any

from ps_vae.errors import PeerError, UsageError
from ps_vae.optim.schedules import Schedule, beta_at, schedule
from ps_vae.optim.table import optimizer
from ps_vae.ps.aggregation.table import MEAN
from ps_vae.ps.codecs.table import NO_CODEC
from ps_vae.ps.consistency import parse_consistency
from ps_vae.train.combinations import check_combinations, leaves_out
from ps_vae.vae.bounds import Objective, bound
from ps_vae.vae.config import ModelConfig

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
            raise UsageError(
                f"--binarize {self.binarize} makes bits; use --likelihood bernoulli, of all features, with it"
            )
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
        if not (self.steps >= 1 and self.steps * self.batches_a_step <= _MOST_STEPS):
            raise UsageError(
                f"--steps (or --epochs) makes {self.steps} steps of {self.batches_a_step} batches; "
                f"give at least 1, and at most {_MOST_STEPS} batches"
            )
        for flag, steps in (("--checkpoint-every", self.milestone), ("--report-every", self.report_every)):
            if steps < 1:
                raise UsageError(f"{flag} {steps}: give at least 1 step")
        if self.patience < 0:
            raise UsageError(f"--patience {self.patience}: give a number of evaluations, or 0 to train to the end")
        if not 0 <= self.seed < 1 << 63:
            raise UsageError(f"--seed {self.seed}: give a number from 0 to 2^63 - 1")
        optimizer(self.optimizer)
        self.rates()
        parse_consistency(self.consistency)
        check_combinations(self)
        if self.delay not in (0, 1):
            raise UsageError(f"--delay {self.delay}: give 0, or 1 to compute while the exchange is under way")
        if self.delay and not parse_consistency(self.consistency).is_synchronous:
            raise UsageError(f"--delay {self.delay} is for --consistency bsp; {self.consistency} does not wait anyway")

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
        return leaves_out(self.push_codec) or leaves_out(self.pull_codec.removeprefix("update:"))

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
