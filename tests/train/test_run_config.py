"""From words to a configuration, from a configuration to bytes and back, and to that of a resumed run."""

import contextlib
import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_run import SMALL, small_config, small_data

from ps_vae.errors import PeerError, UsageError
from ps_vae.nn.activations import ACTIVATIONS
from ps_vae.nn.likelihoods import LIKELIHOODS, Variable
from ps_vae.optim.table import OPTIMIZERS
from ps_vae.train.config import BINARIZATIONS, RunConfig, default_microbatch, steps_of
from ps_vae.train.data import load_as
from ps_vae.train.plan import DEFAULTS, Wishes, check_examples, plan, resumed
from ps_vae.vae.config import ModelConfig

FIELDS = [field.name for field in dataclasses.fields(Wishes)]
# Wishes that are in the configuration under another name, or not as they were said.
TRANSLATED = {"epochs", "checkpoint_every"}
# What a resumed run may change.
FREE = {
    *("data", "epochs", "steps", "checkpoint_every", "report_every", "learning_rate", "schedule"),
    *("push_codec", "pull_codec", "outer_rate", "outer_momentum", "delay", "clip_norm", "patience"),
}


@st.composite
def run_configs(draw: st.DrawFn) -> RunConfig:
    positive = st.floats(1e-30, 1e30)
    likelihood = draw(st.sampled_from(list(LIKELIHOODS)))
    microbatch = draw(st.integers(1, 512))
    inputs = draw(st.integers(1, 1 << 20))
    variables = draw(st.sampled_from([(), (Variable("a", "categorical", inputs, True),)]))
    classes = draw(st.integers(0, 3))
    return RunConfig(
        data=draw(st.text()),
        split=draw(st.text()),
        data_fingerprint=draw(st.text()),
        train_rows=draw(st.integers(1, 1 << 40)),
        binarize=draw(st.sampled_from(BINARIZATIONS)) if likelihood == "bernoulli" else "none",
        model=ModelConfig(
            inputs=inputs,
            variables=variables,
            classes=classes,
            hidden=tuple(draw(st.lists(st.integers(1, 4096), max_size=4))),
            latent=draw(st.integers(1, 512)),
            activation=draw(st.sampled_from(list(ACTIVATIONS))),
            likelihood=likelihood,
            sigma=draw(st.floats(1e-15, 1e15)),
            prior=draw(st.sampled_from(["normal", "uniform", "mixture:3", "vamp:50"])),
        ),
        bias_from_data=draw(st.booleans()),
        beta=draw(st.floats(0, 1e30)),
        beta_warmup=draw(st.integers(0, 1 << 40)),
        optimizer=draw(st.sampled_from(list(OPTIMIZERS))),
        learning_rate=draw(positive),
        schedule=draw(st.sampled_from(["constant", "stages", "cosine", "cosine:0.1"])),
        batch_size=microbatch * draw(st.integers(1, 64)),
        microbatch=microbatch,
        steps=draw(st.integers(1, 1 << 30)),
        milestone=draw(st.integers(1, 1 << 40)),
        report_every=draw(st.integers(1, 1 << 40)),
        consistency=draw(st.sampled_from(["bsp", "asp", "ssp:0", "ssp:17"])),
        seed=draw(st.integers(0, (1 << 63) - 1)),
        push_codec=draw(st.sampled_from(["none", "int8", "onebit"])),
        pull_codec=draw(st.sampled_from(["none", "int8", "fp16"])),
        local_steps=draw(st.integers(0, 2)),
        outer_rate=draw(positive),
        outer_momentum=draw(st.floats(0, 0.999)),
        delay=0,
        clip_norm=draw(st.floats(0, 1e30)),
        aggregate="mean",
        bound=draw(st.sampled_from(["elbo", "elbo:2", "iwae:50", "stl", "dreg:3"])),
        capacity_warmup=draw(st.integers(0, 1 << 40)),
        patience=draw(st.integers(0, 1 << 40)),
        condition="city" if classes else "none",
    )


json_values: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.just(10**400),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)


@settings(deadline=None)
@given(run_configs())
def test_a_configuration_comes_back_from_its_bytes(config: RunConfig) -> None:
    assert RunConfig.unpack(config.pack()) == config
    assert RunConfig.from_json(json.loads(json.dumps(config.to_json()))) == config


@settings(deadline=None)
@given(st.sampled_from([field.name for field in dataclasses.fields(RunConfig)]), json_values)
def test_a_configuration_with_anything_in_a_field_is_understood_or_refused(name: str, value: Any) -> None:
    packed = json.dumps(small_config().to_json() | {name: value}).encode()
    with contextlib.suppress(PeerError):
        assert isinstance(RunConfig.unpack(packed), RunConfig)


@pytest.mark.parametrize(
    "packed",
    [b"", b"{", b"\xff", b"null", b"[]", b"{}", b'{"model": 1}', b"[" * 30_000, b'"' + b"x" * 100],
)
def test_bytes_that_are_no_configuration_are_the_peers_fault(packed: bytes) -> None:
    with pytest.raises(PeerError) as caught:
        RunConfig.unpack(packed)
    assert caught.value.code == "configuration"


@pytest.mark.parametrize("change", ["missing", "unknown"])
def test_a_configuration_of_another_version_is_refused(change: str) -> None:
    plain = small_config().to_json()
    if change == "missing":
        del plain["beta"]
    else:
        plain["gamma"] = 1.0
    with pytest.raises(PeerError, match=r"beta|gamma"):
        RunConfig.unpack(json.dumps(plain).encode())


@settings(deadline=None)
@given(st.integers(1, 3_000))
def test_the_default_microbatch_is_the_largest_divisor_up_to_64(batch_size: int) -> None:
    divisors = {d for d in range(1, batch_size + 1) if batch_size % d == 0}
    assert default_microbatch(batch_size) == max(divisors & set(range(65)))
    assert default_microbatch(batch_size, 2) == max(divisors & set(range(33)))
    assert default_microbatch(batch_size, 50) == max(divisors & set(range(17)))


@settings(deadline=None)
@given(st.floats(0.01, 100), st.integers(1, 10_000), st.integers(1, 1_000))
def test_steps_are_the_fewest_that_visit_every_row_so_often(epochs: float, rows: int, batch_size: int) -> None:
    steps = steps_of(epochs, rows, batch_size)
    wanted = epochs * rows / batch_size
    assert steps >= 1
    assert wanted <= steps < max(1.0, wanted + 1)


def test_nothing_said_gives_the_defaults_that_the_help_promises() -> None:
    data = small_data()
    config = plan(Wishes(), data)
    assert len(data.train) == 1439
    assert config == RunConfig(
        data="mnist-5k",
        split="auto",
        data_fingerprint=data.fingerprint,
        train_rows=1439,
        binarize="none",
        model=ModelConfig(inputs=64, hidden=(400,), latent=20, activation="relu", likelihood="bernoulli", sigma=1.0),
        bias_from_data=True,
        beta=1.0,
        beta_warmup=0,
        optimizer="adam",
        learning_rate=1e-3,
        schedule="constant",
        batch_size=128,
        microbatch=64,
        steps=563,  # 50 epochs of 1,439 rows in batches of 128: 562.1
        milestone=29,  # a twentieth of the run; an epoch is 12 steps
        report_every=2,
        consistency="bsp",
        seed=0,
    )


@pytest.mark.parametrize(
    ("wishes", "expected"),
    [
        (Wishes(local_steps=4), (1.0, 0.0)),
        (Wishes(local_steps=16), (0.7, 0.9)),
        (Wishes(local_steps=16, push_codec="int8", pull_codec="update:int8"), (0.7, 0.9)),
        (Wishes(local_steps=16, push_codec="onebit"), (1.0, 0.0)),
        (Wishes(local_steps=16, pull_codec="update:topk:0.1"), (1.0, 0.0)),
        (Wishes(local_steps=16, push_codec="onebit", outer_momentum=0.5), (0.7, 0.5)),
        (Wishes(local_steps=16, outer_momentum=0.0), (1.0, 0.0)),
        (Wishes(local_steps=16, outer_rate=1.0), (1.0, 0.9)),
        (Wishes(local_steps=4, outer_momentum=0.5), (0.7, 0.5)),
    ],
)
def test_the_outer_optimizer_has_momentum_by_default_where_that_is_stable(
    wishes: Wishes, expected: tuple[float, float]
) -> None:
    config = plan(dataclasses.replace(wishes, epochs=1.0), small_data())
    assert (config.outer_rate, config.outer_momentum) == expected


def test_the_objective_of_a_step_grows_into_what_was_said() -> None:
    config = small_config(bound="elbo:2", beta=0.5, beta_warmup=10, capacity=8.0, capacity_warmup=4)
    assert [config.objective_at(step).capacity for step in (0, 1, 4, 9)] == [0.0, 2.0, 8.0, 8.0]
    assert config.objective_at(9).beta == config.beta_at(9) < config.objective_at(10).beta == 0.5
    assert config.objective_at(0).bound.samples == 2


def test_a_run_of_local_steps_sees_as_many_rows_in_fewer_steps() -> None:
    config = plan(Wishes(epochs=10.0, local_steps=4, batch_size=8), small_data())
    assert config.rows_a_step == 32
    assert config.steps == 450  # 10 x 1,439 rows in rounds of 32: 449.7
    assert config.rates().rate_at(4 * 450 - 1) > 0
    assert resumed(config, Wishes(epochs=20.0)).steps == 900


def test_a_short_run_is_checkpointed_every_epoch_and_reported_every_step() -> None:
    config = plan(Wishes(epochs=3.0), small_data())
    assert (config.steps, config.milestone, config.report_every) == (34, 12, 1)


# Every wish that a user can have, as another than SMALL's or the default.
def test_a_codec_with_momentum_takes_an_optimizer_without() -> None:
    small_config(push_codec="topk:0.1:0.9", optimizer="sgd")
    small_config(push_codec="topk:0.1", optimizer="adam")
    with pytest.raises(UsageError, match="use --optimizer sgd"):
        small_config(push_codec="topk:0.1:0.9", optimizer="adam")


OTHER: dict[str, Any] = {
    "data": "mnist",
    "split": "0.5,0.3,0.2",
    "condition": "labels",
    "binarize": "static",
    "hidden": (9, 8),
    "latent": 3,
    "activation": "tanh",
    "likelihood": "gaussian",
    "sigma": 0.5,
    "prior": "uniform",
    "bias_from_data": False,
    "bound": "iwae:5",
    "beta": 0.25,
    "beta_warmup": 10,
    "free_bits": 0.5,
    "capacity": 2.5,
    "capacity_warmup": 20,
    "optimizer": "sgd",
    "learning_rate": 0.5,
    "schedule": "stages",
    "batch_size": 16,
    "microbatch": 4,
    "steps": 9,
    "epochs": 2.0,
    "checkpoint_every": 3,
    "report_every": 2,
    "consistency": "ssp:2",
    "push_codec": "int8",
    "pull_codec": "int8",
    "local_steps": 4,
    "outer_rate": 1.0,
    "outer_momentum": 0.5,
    "delay": 1,
    "clip_norm": 2.5,
    "aggregate": "median",
    "patience": 3,
    "seed": 7,
}


# What has no effect alone.
NEEDED = {"sigma": {"likelihood": "gaussian"}, "capacity_warmup": {"capacity": 2.0}}


def test_the_table_of_other_wishes_has_them_all() -> None:
    assert sorted(OTHER) == sorted(FIELDS)


@pytest.mark.parametrize("name", sorted(set(FIELDS) - TRANSLATED - {"data", "split", "condition"}))
def test_a_wish_is_in_the_configuration(name: str) -> None:
    needed = {"local_steps": 2} if name.startswith("outer") else NEEDED.get(name, {})
    config = small_config(**{name: OTHER[name]}, **needed)
    assert getattr(config if hasattr(config, name) else config.model, name) == OTHER[name]


@pytest.mark.parametrize("name", sorted(set(FIELDS) - FREE))
def test_a_resumed_run_cannot_become_another_run(name: str) -> None:
    with pytest.raises(UsageError) as caught:
        resumed(small_config(), Wishes(**{name: OTHER[name]}))
    assert f"--{name.replace('_', '-')} {OTHER[name]} was " in str(caught.value)


@pytest.mark.parametrize("name", sorted(set(FIELDS) - TRANSLATED))
def test_a_resumed_run_may_be_told_again_what_it_is(name: str) -> None:
    config = small_config()
    same = getattr(config if hasattr(config, name) else config.model, name)
    assert resumed(config, Wishes(**{name: same})) == config


def test_a_resumed_run_of_which_nothing_is_said_stays_as_it_was() -> None:
    config = small_config(checkpoint_every=5, report_every=4)
    assert resumed(config, Wishes()) == config


@pytest.mark.parametrize(
    ("wishes", "change"),
    [
        (Wishes(data="elsewhere/digits.npy"), {"data": "elsewhere/digits.npy"}),
        (Wishes(steps=100), {"steps": 100}),
        (Wishes(epochs=2.0), {"steps": 360}),  # 2 x 1,439 rows in batches of 8: 359.75
        (Wishes(checkpoint_every=3), {"milestone": 3}),
        (Wishes(report_every=2), {"report_every": 2}),
        (Wishes(learning_rate=1e-4), {"learning_rate": 1e-4}),
        (Wishes(schedule="cosine"), {"schedule": "cosine"}),
        (Wishes(push_codec="onebit"), {"push_codec": "onebit"}),
        (Wishes(pull_codec="fp16"), {"pull_codec": "fp16"}),
        (Wishes(delay=1), {"delay": 1}),
        (Wishes(clip_norm=2.5), {"clip_norm": 2.5}),
        (Wishes(patience=3), {"patience": 3}),
    ],
)
def test_a_resumed_run_may_end_later_write_at_other_times_and_take_other_strides(
    wishes: Wishes, change: dict[str, Any]
) -> None:
    config = small_config()
    assert resumed(config, wishes) == dataclasses.replace(config, **change)


def test_the_outer_optimizer_may_change_where_there_is_one() -> None:
    config = small_config(local_steps=2)
    changed = resumed(config, Wishes(outer_rate=0.5, outer_momentum=0.25))
    assert changed == dataclasses.replace(config, outer_rate=0.5, outer_momentum=0.25)
    with pytest.raises(UsageError, match=r"--outer-rate 0\.5 is of the server"):
        resumed(small_config(), Wishes(outer_rate=0.5))
    with pytest.raises(UsageError, match=r"--outer-momentum 0\.5 is of the server"):
        small_config(outer_momentum=0.5)


IMPOSSIBLE: list[tuple[dict[str, Any], list[str]]] = [
    ({"batch_size": 0}, ["--batch-size 0"]),
    ({"batch_size": -8}, ["--batch-size -8"]),
    ({"batch_size": 10, "microbatch": 4}, ["--batch-size 10", "--microbatch 4", "give --microbatch 10"]),
    ({"microbatch": 0}, ["--microbatch 0"]),
    ({"microbatch": 16}, ["--batch-size 8", "--microbatch 16"]),
    ({"batch_size": 1 << 20, "microbatch": 1}, ["--batch-size 1048576", "--microbatch 1"]),
    ({"steps": 0}, ["--steps 0"]),
    ({"steps": 1 << 32}, ["--steps", "4294967296"]),
    ({"steps": None, "epochs": 0.0}, ["--epochs 0"]),
    ({"steps": None, "epochs": math.nan}, ["--epochs nan"]),
    ({"steps": None, "epochs": math.inf}, ["--epochs inf"]),
    ({"steps": None, "epochs": 1e300}, ["--epochs"]),
    ({"steps": 5, "epochs": 2.0}, ["--epochs 2", "--steps 5"]),
    ({"checkpoint_every": 0}, ["--checkpoint-every 0"]),
    ({"report_every": -1}, ["--report-every -1"]),
    ({"beta": -1.0}, ["--beta -1"]),
    ({"beta": math.nan}, ["--beta nan"]),
    ({"beta_warmup": -3}, ["--beta-warmup -3"]),
    ({"bound": "iwae"}, ["bound 'iwae'", "iwae:K"]),
    ({"prior": "vamp"}, ["prior 'vamp'", "vamp:K"]),
    ({"free_bits": -0.5}, ["--free-bits -0.5"]),
    ({"capacity": math.inf}, ["--capacity inf"]),
    ({"capacity_warmup": -1}, ["--capacity-warmup -1"]),
    ({"patience": -1}, ["--patience -1"]),
    ({"patience": 2, "split": "0.8,0,0.2"}, ["--patience 2", "validation rows", "--split"]),
    ({"free_bits": 0.5, "capacity": 2.0}, ["--free-bits 0.5", "--capacity 2"]),
    ({"free_bits": 0.5, "bound": "stl"}, ["--free-bits 0.5", "--bound stl", "--bound elbo"]),
    ({"capacity": 5.0, "prior": "mixture:3"}, ["--capacity 5", "--prior mixture:3", "--prior normal"]),
    ({"push_codec": "factors", "bound": "dreg:5"}, ["--push-codec factors", "--bound dreg:5"]),
    ({"push_codec": "factors", "prior": "vamp:5"}, ["--push-codec factors", "--prior vamp:5"]),
    ({"seed": -1}, ["--seed -1"]),
    ({"seed": 1 << 63}, ["--seed 9223372036854775808"]),
    ({"binarize": "maybe"}, ["--binarize maybe", "static"]),
    ({"binarize": "static", "likelihood": "gaussian"}, ["--binarize static", "--likelihood bernoulli"]),
    ({"hidden": (8, 0)}, ["hidden", "8, 0"]),
    ({"latent": 0}, ["latent", "0"]),
    ({"activation": "step"}, ["activation", "'step'", "relu"]),
    ({"likelihood": "cauchy"}, ["likelihood", "'cauchy'", "gaussian"]),
    ({"sigma": 0.0}, ["sigma", "0.0"]),
    ({"optimizer": "adamant"}, ["optimizer", "'adamant'", "adam"]),
    ({"learning_rate": 0.0}, ["learning rate", "0.0"]),
    ({"learning_rate": math.inf}, ["learning rate", "inf"]),
    ({"schedule": "sine"}, ["schedule", "'sine'", "cosine"]),
    ({"local_steps": -1}, ["--local-steps -1"]),
    ({"local_steps": 1 << 31, "steps": 4}, ["--steps", "2147483648"]),
    ({"outer_rate": 0.0, "local_steps": 2}, ["--outer-rate 0.0"]),
    ({"outer_momentum": 1.0, "local_steps": 2}, ["--outer-momentum 1.0"]),
    ({"delay": 2}, ["--delay 2"]),
    ({"delay": 1, "consistency": "asp"}, ["--delay 1", "bsp", "asp"]),
    ({"clip_norm": -1.0}, ["--clip-norm -1"]),
    ({"clip_norm": math.inf}, ["--clip-norm inf"]),
    ({"clip_norm": 1.0, "push_codec": "factors"}, ["--clip-norm 1", "--push-codec factors"]),
    ({"aggregate": "mode"}, ["--aggregate mode", "median"]),
    ({"aggregate": "median:2"}, ["--aggregate median:2", "write median"]),
    ({"aggregate": "trimmed"}, ["--aggregate trimmed", "trimmed:0.2"]),
    ({"aggregate": "trimmed:x"}, ["--aggregate trimmed:x", "trimmed:0.2"]),
    ({"aggregate": "trimmed:0.5"}, ["--aggregate trimmed:0.5", "less than 0.5"]),
    ({"aggregate": "trimmed:0"}, ["--aggregate trimmed:0", "more than 0"]),
    ({"aggregate": "trimmed:0.2"}, ["--aggregate trimmed:0.2", "4 microbatches", "--microbatch than 2"]),
    ({"aggregate": "median", "microbatch": 4}, ["--aggregate median", "2 microbatches", "--microbatch than 4"]),
    ({"aggregate": "median", "batch_size": 257, "microbatch": 1}, ["--aggregate median", "257", "256"]),
    ({"aggregate": "median", "consistency": "ssp:1"}, ["--aggregate median", "--consistency bsp"]),
    ({"aggregate": "median", "push_codec": "topk:0.1"}, ["--aggregate median", "--push-codec topk:0.1", "factors"]),
    ({"push_codec": "zip"}, ["--push-codec zip", "powersgd"]),
    ({"pull_codec": "zip"}, ["--pull-codec zip", "powersgd"]),
    ({"pull_codec": "update:factors"}, ["--pull-codec update:factors", "for pushes alone"]),
    ({"push_codec": "factors", "local_steps": 4}, ["--push-codec factors", "--local-steps 4"]),
    ({"pull_codec": "onebit"}, ["--pull-codec onebit", "update:onebit"]),
    ({"pull_codec": "update:none"}, ["--pull-codec update:none"]),
    ({"pull_codec": "update:topk:0.1:0.9"}, ["--pull-codec update:topk:0.1:0.9", "momentum"]),
    ({"pull_codec": "update:int8", "consistency": "asp"}, ["--pull-codec update:int8", "bsp", "asp"]),
    ({"push_codec": "topk:0.1:0.9", "optimizer": "sgd", "local_steps": 2}, ["--push-codec topk", "--local-steps 2"]),
    ({"consistency": "ssp:-1"}, ["consistency", "ssp:-1", "bsp"]),
]


@pytest.mark.parametrize(("wish", "words"), IMPOSSIBLE, ids=lambda value: str(value) if isinstance(value, dict) else "")
def test_an_impossible_wish_is_refused_with_its_option_and_value(wish: dict[str, Any], words: list[str]) -> None:
    with pytest.raises(UsageError) as caught:
        small_config(**wish)
    assert [word for word in words if word not in str(caught.value)] == [], str(caught.value)


@pytest.mark.parametrize(
    ("wish", "words"),
    [
        ({"sigma": 0.1}, ["--sigma 0.1 would do nothing", "--likelihood bernoulli", "gaussian"]),
        ({"sigma": 0.1, "likelihood": "gaussian-feature"}, ["--sigma 0.1 would do nothing", "gaussian-feature"]),
        ({"activation": "tanh", "hidden": ()}, ["--activation tanh would do nothing", "--hidden"]),
        ({"beta": 0.0, "beta_warmup": 10}, ["--beta-warmup 10 would do nothing", "--beta 0"]),
        ({"beta": 0.0, "free_bits": 0.5}, ["--free-bits 0.5 would do nothing", "--beta 0"]),
        ({"beta": 0.0, "capacity": 2.0}, ["--capacity 2 would do nothing", "--beta 0"]),
        ({"capacity_warmup": 1000}, ["--capacity-warmup 1000 would do nothing", "give --capacity"]),
        ({"outer_rate": 0.5}, ["--outer-rate 0.5", "--local-steps"]),
    ],
)
def test_an_option_that_would_do_nothing_is_refused(wish: dict[str, Any], words: list[str]) -> None:
    with pytest.raises(UsageError) as caught:
        small_config(**wish)
    assert [word for word in words if word not in str(caught.value)] == [], str(caught.value)


def test_one_gaussian_column_is_enough_for_a_deviation(tmp_path: Path) -> None:
    (tmp_path / "table.csv").write_text("a,b\n" + "1.5,2\n3,4.5\n" * 20)

    def sigma(likelihood: str) -> float:
        wishes = Wishes(data=str(tmp_path / "table.csv"), likelihood=likelihood, sigma=0.1, steps=1)
        return plan(wishes, load_as(wishes.data, "auto", likelihood, "none")).model.sigma

    assert sigma("a:gaussian,b:gaussian-feature") == 0.1
    with pytest.raises(UsageError, match=r"--sigma 0\.1 would do nothing"):
        sigma("*:gaussian-feature")


def test_what_is_said_as_it_is_by_default_is_no_matter() -> None:
    """The estimator says all of it."""
    defaults = {name: getattr(DEFAULTS, name) for name in ("sigma", "activation", "beta_warmup", "capacity_warmup")}
    assert small_config(**defaults, hidden=()) == small_config(hidden=())


def test_a_run_that_was_begun_with_an_option_that_does_nothing_goes_on() -> None:
    config = dataclasses.replace(small_config(), capacity_warmup=1000)
    assert resumed(RunConfig.unpack(config.pack()), Wishes(capacity_warmup=1000)) == config


@pytest.mark.parametrize(
    "wishes", [Wishes(steps=0), Wishes(epochs=math.inf), Wishes(checkpoint_every=0), Wishes(steps=1, epochs=1.0)]
)
def test_what_a_new_run_may_not_have_a_resumed_one_may_not_have_either(wishes: Wishes) -> None:
    with pytest.raises(UsageError, match="--"):
        resumed(small_config(), wishes)


def test_rows_that_the_likelihood_cannot_take_are_found_wherever_they_are() -> None:
    train = small_data().train
    check_examples(small_config(), train)
    table = train.array.copy()
    table[-1, 5] = 17  # of 16 grey values
    with pytest.raises(ValueError, match=r"1\.0625"):
        check_examples(small_config(), dataclasses.replace(train, array=table))


def test_said_has_what_was_said_and_nothing_else() -> None:
    assert Wishes().said() == {}
    assert Wishes(hidden=(), bias_from_data=False, seed=0).said() == {"hidden": (), "bias_from_data": False, "seed": 0}
    assert set(SMALL.said()) == {"data", "hidden", "latent", "batch_size", "microbatch", "steps"}
