"""The table of run options says what there is, and what is said arrives."""

import dataclasses
import re

import pytest

from ps_vae.cli import server, train
from ps_vae.cli.main import run
from ps_vae.cli.run_options import RUN_OPTIONS
from ps_vae.data.source import SOURCES
from ps_vae.nn.activations import ACTIVATIONS
from ps_vae.nn.likelihoods import LIKELIHOODS
from ps_vae.optim.schedules import SCHEDULES
from ps_vae.optim.table import OPTIMIZERS
from ps_vae.ps.consistency import parse_consistency
from ps_vae.train import server as train_server
from ps_vae.train.config import BINARIZATIONS
from ps_vae.train.plan import DEFAULTS, Wishes
from ps_vae.train.server_process import flags
from ps_vae.vae.bounds import BOUNDS
from ps_vae.vae.priors import PRIORS

EVERYTHING = Wishes(
    data="digits",
    split="0.5,0.5,0",
    condition="labels",
    binarize="static",
    hidden=(30, 20),
    latent=3,
    activation="tanh",
    likelihood="gaussian",
    sigma=0.5,
    prior="vamp:7",
    bias_from_data=False,
    bound="iwae:5",
    beta=0.5,
    beta_warmup=7,
    free_bits=0.25,
    capacity=2.5,
    capacity_warmup=12,
    optimizer="sgd",
    learning_rate=0.25,
    schedule="cosine:0.02:5",
    batch_size=64,
    microbatch=16,
    epochs=1.5,
    steps=9,
    checkpoint_every=4,
    report_every=3,
    consistency="ssp:3",
    push_codec="int8",
    pull_codec="update:onebit",
    local_steps=8,
    outer_rate=0.5,
    outer_momentum=0.25,
    delay=1,
    clip_norm=2.5,
    aggregate="median",
    patience=4,
    seed=11,
)


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch):
    """The wishes that a command line of `server` makes."""

    def parse(words: list[str]) -> Wishes:
        heard: list[Wishes] = []

        def serve(wishes: Wishes, *arguments: object, **keywords: object) -> dict[str, object]:
            heard.append(wishes)
            return {"failed": False}

        monkeypatch.setattr(train_server, "serve", serve)
        assert run(["server", "--json", *words]) == 0
        return heard[0]

    return parse


def test_every_field_of_wishes_has_one_option() -> None:
    assert sorted(o.field for o in RUN_OPTIONS) == sorted(f.name for f in dataclasses.fields(Wishes))


def test_a_command_line_without_options_says_nothing(said) -> None:
    assert said([]) == Wishes()


def test_what_is_said_arrives(said) -> None:
    assert None not in dataclasses.astuple(EVERYTHING)

    assert said(flags(EVERYTHING)) == EVERYTHING


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--hidden", "400"], Wishes(hidden=(400,))),
        (["--hidden", ""], Wishes(hidden=())),
        (["--hidden", "none"], Wishes(hidden=())),
        (["--no-bias-from-data"], Wishes(bias_from_data=False)),
        (["--bias-from-data"], Wishes(bias_from_data=True)),
        (["--seed", "0"], Wishes(seed=0)),
        (["--beta", "0"], Wishes(beta=0.0)),
    ],
)
def test_none_zero_and_no_are_told_from_silence(said, words: list[str], expected: Wishes) -> None:
    assert said(words) == expected


def test_the_defaults_in_the_help_are_those_of_a_run() -> None:
    shown = {option.field: option.default for option in RUN_OPTIONS}
    for field, value in DEFAULTS.said().items():
        if field == "bias_from_data":
            assert shown[field] == "bias-from-data"
        elif field == "hidden":
            assert shown[field] == ",".join(map(str, value))
        else:
            assert type(value)(shown[field]) == value


@pytest.mark.parametrize(
    ("field", "choices"),
    [
        ("data", [source.says for source in SOURCES.values()]),
        ("binarize", BINARIZATIONS),
        ("activation", list(ACTIVATIONS)),
        ("likelihood", list(LIKELIHOODS)),
        ("prior", list(PRIORS)),
        ("bound", list(BOUNDS)),
        ("optimizer", list(OPTIMIZERS)),
        ("schedule", list(SCHEDULES)),
    ],
)
def test_the_help_names_every_choice(field: str, choices: list[str]) -> None:
    (text,) = [option.help for option in RUN_OPTIONS if option.field == field]

    assert [choice for choice in choices if choice not in text] == []


def test_the_consistency_rules_in_the_help_are_known() -> None:
    (text,) = [option.help for option in RUN_OPTIONS if option.field == "consistency"]
    rules = re.findall(r"(\w+(?::N)?): ", text)

    assert [str(parse_consistency(rule.replace("N", "2"))) for rule in rules] == ["bsp", "ssp:2", "asp"]


def test_train_and_server_have_the_same_run_options() -> None:
    fields = [option.field for option in RUN_OPTIONS]
    for command in (train.train, server.server):
        assert list(command.__annotations__)[: len(fields)] == fields
