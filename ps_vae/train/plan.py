"""From the user's words to a run's configuration."""

import dataclasses
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ps_vae.data import Dataset, Split, gather
from ps_vae.errors import DataError, UsageError
from ps_vae.ps.aggregation.table import MEAN
from ps_vae.ps.codecs.table import NO_CODEC
from ps_vae.ps.messages.values import CONFIG
from ps_vae.train.config import UNCONDITIONED, RunConfig, default_microbatch, steps_of
from ps_vae.train.data import variables_of
from ps_vae.train.effects import check_effects
from ps_vae.vae.bounds import bound
from ps_vae.vae.config import ModelConfig, family_of

__all__ = ["CHOSEN", "DEFAULTS", "Wishes", "check_examples", "check_patience", "in_rounds", "plan", "resumed"]

# A run has about this many lines in metrics.jsonl, and at most this many checkpoints.
_REPORTS = 200
_CHECKPOINTS = 20

_MODEL = ("hidden", "latent", "activation", "likelihood", "sigma", "prior")
# What a resumed run may change: where its data lie, when it ends, what it writes, and how far it steps.
_FREE = (
    *("data", "epochs", "steps", "checkpoint_every", "report_every", "learning_rate", "schedule"),
    *("push_codec", "pull_codec", "outer_rate", "outer_momentum", "delay", "clip_norm", "patience"),
)

# Local steps from which the outer optimizer has the rate and momentum of DiLoCo by default. They move the weights seven
# times as far as the workers have come: after few steps that is too far (MNIST, Adam 1e-3, 20 epochs, test ELBO:
# 4 steps -160.9, with 1.0 and 0.0 -105.3; 8 steps -104.6; 32 steps -102.5). What a codec leaves out comes late, and the
# momentum makes too much of it (32 steps in topk:0.1 -152.6, with 1.0 and 0.0 -105.5; onebit diverges, and -105.6).
_LONG_ROUND = 16
_OUTER = ("outer_rate", "outer_momentum")
_DILOCO_RATE, _DILOCO_MOMENTUM = 0.7, 0.9

# What `--communication auto` chooses.
CHOSEN = ("push_codec", "pull_codec", "local_steps", "outer_rate", "outer_momentum")

_CHUNK = 4096

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Wishes:
    """What the user said about a run; None where nothing was said. Units and meaning as in RunConfig."""

    data: str | None = None
    split: str | None = None
    condition: str | None = None
    binarize: str | None = None
    hidden: tuple[int, ...] | None = None
    latent: int | None = None
    activation: str | None = None
    likelihood: str | None = None
    sigma: float | None = None
    prior: str | None = None
    bias_from_data: bool | None = None
    bound: str | None = None
    beta: float | None = None
    beta_warmup: int | None = None
    free_bits: float | None = None
    capacity: float | None = None
    capacity_warmup: int | None = None
    optimizer: str | None = None
    learning_rate: float | None = None
    schedule: str | None = None
    batch_size: int | None = None
    microbatch: int | None = None
    epochs: float | None = None
    steps: int | None = None
    checkpoint_every: int | None = None
    report_every: int | None = None
    consistency: str | None = None
    push_codec: str | None = None
    pull_codec: str | None = None
    local_steps: int | None = None
    outer_rate: float | None = None
    outer_momentum: float | None = None
    delay: int | None = None
    clip_norm: float | None = None
    aggregate: str | None = None
    patience: int | None = None
    seed: int | None = None

    def said(self) -> dict[str, Any]:
        """Only what was said."""
        return {name: value for name, value in _values(self).items() if value is not None}


DEFAULTS = Wishes(
    data="mnist-5k",
    split="auto",
    condition=UNCONDITIONED,
    binarize="none",
    hidden=(400,),
    latent=20,
    activation="relu",
    likelihood="bernoulli",
    sigma=1.0,
    prior="normal",
    bias_from_data=True,
    bound="elbo",
    beta=1.0,
    beta_warmup=0,
    free_bits=0.0,
    capacity=0.0,
    capacity_warmup=0,
    optimizer="adam",
    learning_rate=1e-3,
    schedule="constant",
    batch_size=128,
    epochs=50.0,
    consistency="bsp",
    push_codec=NO_CODEC,
    pull_codec=NO_CODEC,
    local_steps=0,
    delay=0,
    clip_norm=0.0,
    aggregate=MEAN,
    patience=0,
    seed=0,
)


def plan(wishes: Wishes, data: Dataset) -> RunConfig:
    """The configuration of a new run. Raises UsageError for words that make none."""
    if wishes.epochs is not None and wishes.steps is not None:
        raise UsageError(f"--epochs {wishes.epochs:g} and --steps {wishes.steps} both say how long; give one of them")
    said = DEFAULTS.said() | wishes.said()
    batch_size = _positive("batch-size", said["batch_size"])
    _check_outer(said["local_steps"], {name: said[name] for name in _OUTER if name in said})
    rows = batch_size * max(1, said["local_steps"])
    epoch = steps_of(1.0, len(data.train), rows)
    if wishes.steps is not None:
        steps = _positive("steps", wishes.steps)
    else:
        steps = steps_of(_positive("epochs", said["epochs"]), len(data.train), rows)
    config = RunConfig(
        data=said["data"],
        split=said["split"],
        data_fingerprint=data.fingerprint,
        train_rows=len(data.train),
        condition=said["condition"],
        binarize=said["binarize"],
        model=ModelConfig(
            inputs=data.features,
            variables=variables_of(said["likelihood"], data),
            classes=len(data.classes),
            **{name: said[name] for name in _MODEL},
        ),
        bias_from_data=said["bias_from_data"],
        bound=said["bound"],
        beta=said["beta"],
        beta_warmup=said["beta_warmup"],
        free_bits=said["free_bits"],
        capacity=said["capacity"],
        capacity_warmup=said["capacity_warmup"],
        optimizer=said["optimizer"],
        learning_rate=said["learning_rate"],
        schedule=said["schedule"],
        batch_size=batch_size,
        microbatch=said.get("microbatch", default_microbatch(batch_size, bound(said["bound"]).samples)),
        steps=steps,
        milestone=said.get("checkpoint_every", max(epoch, -(-steps // _CHECKPOINTS))),
        report_every=said.get("report_every", max(1, steps // _REPORTS)),
        consistency=said["consistency"],
        push_codec=said["push_codec"],
        pull_codec=said["pull_codec"],
        local_steps=said["local_steps"],
        delay=said["delay"],
        clip_norm=said["clip_norm"],
        aggregate=said["aggregate"],
        patience=said["patience"],
        seed=said["seed"],
    )
    check_effects(config, [name for name, wish in wishes.said().items() if wish != getattr(DEFAULTS, name)])
    check_patience(config, data)
    size = len(config.pack())
    if size > CONFIG.at_most:
        raise UsageError(
            f"--likelihood for each of {len(config.model.variables):,} columns makes {size:,} bytes of configuration, "
            f"and {CONFIG.at_most:,} are possible; name fewer columns, or give one likelihood for all of them"
        )
    is_stable = config.local_steps >= _LONG_ROUND and not config.leaves_out
    momentum = said.get("outer_momentum", _DILOCO_MOMENTUM if is_stable else 0.0)
    rate = said.get("outer_rate", _DILOCO_RATE if momentum else 1.0)
    return dataclasses.replace(config, outer_rate=rate, outer_momentum=momentum)


def in_rounds(wishes: Wishes) -> Wishes:
    """Steps that were said when a step was one batch, as steps of so many local ones: the run sees as many rows."""
    count = max(1, wishes.local_steps or 1)
    said = {name: getattr(wishes, name) for name in ("steps", "checkpoint_every", "report_every")}
    return dataclasses.replace(wishes, **{name: n and max(1, math.ceil(n / count)) for name, n in said.items()})


def resumed(config: RunConfig, wishes: Wishes) -> RunConfig:
    """The configuration of a run that goes on. Raises UsageError where the user asks for another run than it was.

    Where its data lie may change; that they are the same is the caller's to see, by their fingerprint.
    """
    if wishes.epochs is not None and wishes.steps is not None:
        raise UsageError(f"--epochs {wishes.epochs:g} and --steps {wishes.steps} both say how long; give one of them")
    was = {**_fields(config), **_fields(config.model)}
    for name, wish in wishes.said().items():
        if name not in _FREE and wish != was[name]:
            flag = "--" + name.replace("_", "-")
            raise UsageError(
                f"{flag} {wish} was {was[name]} when the run began; leave it out or start another --run-dir"
            )
    said = wishes.said()
    _check_outer(config.local_steps, {name: said[name] for name in _OUTER if said.get(name, was[name]) != was[name]})
    changes: dict[str, Any] = {}
    if wishes.steps is not None:
        changes["steps"] = _positive("steps", wishes.steps)
    if wishes.epochs is not None:
        changes["steps"] = steps_of(_positive("epochs", wishes.epochs), config.train_rows, config.rows_a_step)
    for name, wish in (
        ("data", wishes.data),
        ("milestone", wishes.checkpoint_every),
        ("report_every", wishes.report_every),
        ("learning_rate", wishes.learning_rate),
        ("schedule", wishes.schedule),
        ("push_codec", wishes.push_codec),
        ("pull_codec", wishes.pull_codec),
        ("outer_rate", wishes.outer_rate),
        ("outer_momentum", wishes.outer_momentum),
        ("delay", wishes.delay),
        ("clip_norm", wishes.clip_norm),
        ("patience", wishes.patience),
    ):
        if wish is not None:
            changes[name] = wish
    return dataclasses.replace(config, **changes)


def check_patience(config: RunConfig, data: Dataset) -> None:
    """Raise UsageError where the run waits for figures of rows that are not there."""
    if config.patience and not len(data.validation):
        raise UsageError(
            f"--patience {config.patience} waits for a better ELBO of validation rows, and there are none; leave it "
            "out, or begin a run with --split that has a part for them, such as 0.9,0.1,0"
        )


def check_examples(config: RunConfig, split: Split) -> None:
    """Raise DataError where the likelihood cannot take the split's rows; reads them in chunks."""
    rules = family_of(config.model)
    for start in range(0, len(split), _CHUNK):
        rows = np.arange(start, min(start + _CHUNK, len(split)), dtype=np.int64)
        examples = gather(split, rows, np.empty((len(rows), split.width), np.float32))[:, : split.features]
        if (fault := rules.fault(examples)) is not None:
            place = int(split.where(rows[fault.row : fault.row + 1])[0])
            raise DataError(fault.text(f"row {place:,} of the data (counted from 0)"))


def _check_outer(local_steps: int, said: dict[str, float]) -> None:
    if said and not local_steps:
        name, value = next(iter(said.items()))
        raise UsageError(
            f"--{name.replace('_', '-')} {value} is of the server's optimizer where there are --local-steps"
        )


def _positive(name: str, value: Any) -> Any:
    if not 0 < value < math.inf:
        raise UsageError(f"--{name} {value}: give a number above zero")
    return value


def _values(wishes: Wishes) -> dict[str, Any]:
    return {field.name: getattr(wishes, field.name) for field in dataclasses.fields(wishes)}


def _fields(value: Any) -> dict[str, Any]:
    return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
