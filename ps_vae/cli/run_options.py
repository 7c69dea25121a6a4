"""The options that say what is trained and how: one table, the same for `train` and `server`.

What is not said on the command line stays None in `Wishes`: only whoever plans the run knows whether it is a new one,
which takes the default, or a resumed one, which keeps what it had. So the table says the defaults in words, for the
help, and `ps_vae.train.plan.DEFAULTS` is what holds; they are kept apart because it costs NumPy and Numba to import
that, and the help has to be quick.
"""

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ps_vae.cli.options import CLUSTER, DATA, MODEL, OUTPUT, TRAINING, with_default
from ps_vae.errors import UsageError

if TYPE_CHECKING:
    from ps_vae.train.plan import Wishes

__all__ = ["RUN_OPTIONS", "RunOption", "takes_run_options"]


@dataclass(frozen=True, slots=True)
class RunOption:
    """One option.

    field    of Wishes
    type     what typer reads
    metavar  what stands for the value in the help; "" for a switch
    flag     where it is not the field's name
    default  in words
    read     from what typer read to what Wishes holds
    """

    field: str
    type: type
    metavar: str
    panel: str
    default: str
    help: str
    flag: str = ""
    read: Callable[[Any], Any] = lambda value: value

    @property
    def name(self) -> str:
        return self.flag or "--" + self.field.replace("_", "-")


def _widths(text: str) -> tuple[int, ...]:
    """400,200 -> (400, 200); nothing, or the word none -> ()"""
    if text.strip() in ("", "none"):
        return ()
    try:
        return tuple(int(width) for width in text.split(","))
    except ValueError:
        raise UsageError(f"--hidden {text!r}: give widths such as 400 or 400,200, or none for a linear model") from None


RUN_OPTIONS: tuple[RunOption, ...] = (
    RunOption(
        "data", str, "NAME|PATH", DATA, "mnist-5k",
        "digits, mnist-5k, mnist, gaussian:NxD, or a file or folder: CSV, Parquet, .npy, .npz, IDX.",
    ),
    RunOption(
        "split", str, "A,B,C", DATA, "auto",
        "Fractions to train on, validate on and test on; auto keeps what the data bring.",
    ),
    RunOption(
        "condition", str, "WHAT", DATA, "none",
        "What both networks are told of a row: none, labels (of the data), or the name of a table's column.",
    ),
    RunOption(
        "binarize", str, "HOW", DATA, "none",
        "none, static (each image once) or dynamic (afresh each time): pixels become 0 or 1.",
    ),
    RunOption(
        "hidden", str, "WIDTHS", MODEL, "400",
        "Hidden layers of the encoder, such as 400,200; none: a linear model.", read=_widths,
    ),
    RunOption("latent", int, "N", MODEL, "20", "Latent dimensions."),
    RunOption("activation", str, "NAME", MODEL, "relu", "relu, tanh, softplus, sigmoid or identity."),
    RunOption(
        "likelihood", str, "NAME", MODEL, "bernoulli",
        "0 to 1: bernoulli, continuous-bernoulli, logistic; numbers: gaussian, gaussian-shared, gaussian-feature, "
        "gaussian-decoder; counts: poisson, negative-binomial, multinomial; categorical. "
        'Tables: COLUMN:NAME,"A, B":none,*:NAME.',
    ),
    RunOption("sigma", float, "X", MODEL, "1.0", "Deviation of the gaussian likelihood; COLUMN:gaussian: in its own."),
    RunOption(
        "prior", str, "NAME", MODEL, "normal",
        "normal, uniform (on the unit cube), mixture:K of learned Gaussians, or vamp:K (the VampPrior).",
    ),
    RunOption(
        "bias_from_data", bool, "", MODEL, "bias-from-data",
        "Start the last layer's bias at the data's mean, or at zero.",
        flag="--bias-from-data/--no-bias-from-data",
    ),
    RunOption(
        "bound", str, "NAME", TRAINING, "elbo",
        "What is trained: elbo, iwae:K (K importance samples), or by path derivatives stl, dreg:K.",
    ),
    RunOption("beta", float, "X", TRAINING, "1.0", "Weight of the KL term."),
    RunOption("beta_warmup", int, "STEPS", TRAINING, "0", "The weight grows from 0 to --beta over so many batches."),
    RunOption("free_bits", float, "NATS", TRAINING, "0", "Nats of each latent dimension's KL that cost nothing."),
    RunOption("capacity", float, "NATS", TRAINING, "0", "Draw the KL to so many nats, from both sides; 0: to none."),
    RunOption(
        "capacity_warmup", int, "STEPS", TRAINING, "0", "The capacity grows from 0 to --capacity over so many batches."
    ),
    RunOption("optimizer", str, "NAME", TRAINING, "adam", "sgd, momentum, nesterov, adam, adagrad or rmsprop."),
    RunOption("learning_rate", float, "X", TRAINING, "0.001", "Learning rate, the highest of the schedule."),
    RunOption(
        "schedule", str, "NAME", TRAINING, "constant",
        "constant, cosine, cosine:FINAL, cosine:FINAL:WARMUP or stages.",
    ),
    RunOption(
        "patience", int, "N", TRAINING, "0",
        "End when N evaluations in a row had no better validation ELBO; the best checkpoint stays. 0: train on.",
    ),
    RunOption(
        "clip_norm", float, "X", TRAINING, "0",
        "Scale each microbatch's mean gradient to an L2 norm of at most this, before it is summed; 0: leave it.",
    ),
    RunOption("batch_size", int, "ROWS", TRAINING, "128", "Rows of a step, over all workers together."),
    RunOption(
        "microbatch", int, "ROWS", TRAINING, "largest divisor up to 64; less with K samples",
        "Rows of the unit of work; divides the batch size.",
    ),
    RunOption("epochs", float, "N", TRAINING, "50", "How often each row is seen."),
    RunOption("steps", int, "N", TRAINING, "from --epochs", "How many updates of the server; instead of --epochs."),
    RunOption("seed", int, "N", TRAINING, "0", "Another seed gives another start, order and noise."),
    RunOption(
        "consistency", str, "RULE", CLUSTER, "bsp",
        "bsp: workers in step, the same bits whatever their number; ssp:N: at most N steps apart; asp: no bound.",
    ),
    RunOption(
        "aggregate", str, "HOW", CLUSTER, "mean",
        "mean; or, of the microbatches' gradients in bsp, median or trimmed:F, without the F smallest and F largest: "
        "a minority that sends nonsense is outvoted. Each microbatch is pushed by itself then.",
    ),
    RunOption(
        "push_codec", str, "CODEC", CLUSTER, "none",
        "How gradients are sent: none (the same bits whatever the number of workers), fp16, bf16, int8, onebit, "
        "topk:RATIO, topk:RATIO:MOMENTUM, powersgd:RANK, or the same bits in fewer bytes: factors.",
    ),
    RunOption(
        "pull_codec", str, "CODEC", CLUSTER, "none",
        "How weights are sent: none, fp16, bf16, int8, or what has changed, in bsp: update:CODEC of those for pushes.",
    ),
    RunOption(
        "local_steps", int, "H", CLUSTER, "0",
        "Workers take so many steps by themselves and push the difference, once a step of the run; 0: gradients.",
    ),
    RunOption(
        "outer_rate", float, "X", CLUSTER, "0.7, or 1 without momentum",
        "With --local-steps: how far the server follows the workers' mean.",
    ),
    RunOption(
        "outer_momentum", float, "X", CLUSTER, "0.9; 0 below H = 16 and with residuals",
        "With --local-steps: the server's Nesterov momentum; 0: none.",
    ),
    RunOption(
        "delay", int, "0|1", CLUSTER, "0",
        "1: compute each step on the weights of the step before, while the exchange is under way; bsp.",
    ),
    RunOption(
        "checkpoint_every", int, "STEPS", OUTPUT, "an epoch, or 1/20 of a longer run",
        "Steps between checkpoints; an evaluator measures each.",
    ),
    RunOption("report_every", int, "STEPS", OUTPUT, "1/200 of the run", "Steps between lines of metrics.jsonl."),
)  # fmt: skip


def takes_run_options(command: Callable[..., None]) -> Callable[..., None]:
    """Give `command(wishes, …)` the run options in place of `wishes`.

    In the help each group of options stands where the first of it stands, so the run's come first.
    """
    own = list(inspect.signature(command).parameters.values())[1:]

    def wrapped(**values: Any) -> None:
        command(_wishes({option.field: values.pop(option.field) for option in RUN_OPTIONS}), **values)

    parameters = [_parameter(option) for option in RUN_OPTIONS] + [
        parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY) for parameter in own
    ]
    wrapped.__name__, wrapped.__doc__ = command.__name__, command.__doc__
    wrapped.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    wrapped.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return wrapped


def _wishes(values: dict[str, Any]) -> "Wishes":
    from ps_vae.train.plan import Wishes

    said = {o.field: o.read(values[o.field]) for o in RUN_OPTIONS if values[o.field] is not None}
    return Wishes(**said)


def _parameter(option: RunOption) -> inspect.Parameter:
    shown = typer.Option(
        option.name,
        help=with_default(option.help, option.default),
        metavar=option.metavar or None,
        rich_help_panel=option.panel,
        show_default=False,
    )
    return inspect.Parameter(
        option.field,
        inspect.Parameter.KEYWORD_ONLY,
        default=None,
        annotation=Annotated[option.type | None, shown],
    )
