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
from ps_vae.ps.codecs.factors import Products
from ps_vae.ps.codecs.table import NO_CODEC, push_codec_for
from ps_vae.ps.consistency import parse_consistency
from ps_vae.vae.config import ModelConfig

__all__ = ["BINARIZATIONS", "RunConfig", "default_microbatch", "steps_of"]

BINARIZATIONS = ("none", "static", "dynamic")

# Rows of a microbatch where the user does not say: small enough to share a batch, large enough for the GEMMs.
_USUAL_MICROBATCH = 64
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
    binarize          none; static: each image once; dynamic: afresh each time (pixels are probabilities)
    bias_from_data    whether the likelihood's bias starts at the data's mean
    beta, beta_warmup weight of the KL term, reached after so many steps
    batch_size        rows of a step, over all workers
    microbatch        rows of the unit of work; divides batch_size
    steps             of the whole run
    milestone         steps between checkpoints (and evaluations)
    report_every      steps between lines of metrics.jsonl
    push_codec        how gradients are written on their way to the server

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

    def __post_init__(self) -> None:
        if self.binarize not in BINARIZATIONS:
            raise UsageError(f"--binarize {self.binarize} is not known; choose {', '.join(BINARIZATIONS)}")
        if self.binarize != "none" and self.model.likelihood != "bernoulli":
            raise UsageError(f"--binarize {self.binarize} makes bits; use --likelihood bernoulli with it")
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
        if not 1 <= self.steps <= _MOST_STEPS:
            raise UsageError(f"--steps (or --epochs) makes {self.steps} steps; give at least 1, at most {_MOST_STEPS}")
        for flag, steps in (("--checkpoint-every", self.milestone), ("--report-every", self.report_every)):
            if steps < 1:
                raise UsageError(f"{flag} {steps}: give at least 1 step")
        if not (math.isfinite(self.beta) and self.beta >= 0) or self.beta_warmup < 0:
            raise UsageError(f"--beta {self.beta} with --beta-warmup {self.beta_warmup}: give numbers from 0 up")
        if not 0 <= self.seed < 1 << 63:
            raise UsageError(f"--seed {self.seed}: give a number from 0 to 2^63 - 1")
        optimizer(self.optimizer)
        self.rates()
        parse_consistency(self.consistency)
        self._check_codec()

    def _check_codec(self) -> None:
        try:
            make = push_codec_for(self.push_codec)
        except UsageError as error:
            raise UsageError(f"--push-codec {self.push_codec}: {error}") from None
        products = Products(self.microbatch, weight_gradient)
        if make is not None and "velocity" in make(0, (), products)(1).state and self.optimizer != "sgd":
            raise UsageError(
                f"--push-codec {self.push_codec} has a momentum in the place of the server's, and --optimizer "
                f"{self.optimizer} has one of its own; use --optimizer sgd, or leave the codec's momentum out"
            )

    @property
    def microbatches(self) -> int:
        """Units of work in a step."""
        return self.batch_size // self.microbatch

    def rates(self) -> Schedule:
        """The learning-rate schedule."""
        return schedule(self.schedule, rate=self.learning_rate, steps=self.steps)

    def beta_at(self, step: int) -> float:
        """The weight of the KL term at a step of the server."""
        return beta_at(step, beta=self.beta, warmup_steps=self.beta_warmup)

    def to_json(self) -> dict[str, Any]:
        """As plain data; `from_json` is its inverse."""
        return dataclasses.asdict(self)

    def pack(self) -> bytes:
        """As the bytes that travel."""
        return json.dumps(self.to_json()).encode()

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


def default_microbatch(batch_size: int) -> int:
    """The largest divisor of the batch size that is at most 64."""
    return max(rows for rows in range(1, min(_USUAL_MICROBATCH, batch_size) + 1) if batch_size % rows == 0)


def steps_of(epochs: float, train_rows: int, batch_size: int) -> int:
    """Steps that visit every row `epochs` times; the last one completes them."""
    return max(1, math.ceil(epochs * train_rows / batch_size))
