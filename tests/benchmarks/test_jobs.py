"""What measured programs have in common: the job, the clock, the floor, and how ours is timed."""

import itertools
from pathlib import Path

import numpy as np
import pytest
from floor import products
from models import DATA, MODELS, write_job
from ours import pace
from peers.job import measure, read_job

from ps_vae.data import load
from ps_vae.train.plan import plan


@pytest.mark.parametrize("name", MODELS)
def test_peers_get_the_data_and_weights_that_a_run_of_ours_starts_from(tmp_path: Path, name: str) -> None:
    model = MODELS[name]

    write_job(tmp_path / "job.npz", model)

    job = read_job(tmp_path / "job.npz")
    config = plan(model.wishes(model.batch, model.batch, "bsp", 10, 10), load(DATA, "1,0,0"))
    assert config.model == model.config
    assert job.rows.shape == (config.train_rows, 784) == (5000, 784)
    assert job.rows.dtype == np.float32
    assert job.rows.min() == 0.0
    assert job.rows.max() == 1.0
    assert job.activation == name
    widths = [784, *model.hidden, 2 * model.latent], [model.latent, *reversed(model.hidden), 784]
    for layers, expected in zip((job.encoder, job.decoder), widths, strict=True):
        shapes = [job.weights[f"{layer}.weight"].shape for layer in layers]
        assert shapes == list(itertools.pairwise(expected))
        assert [job.weights[f"{layer}.bias"].shape for layer in layers] == [(width,) for width in expected[1:]]
    # The bias that makes the mean image that of the data.
    means = 1 / (1 + np.exp(-job.weights["likelihood.bias"].astype(float)))
    assert means == pytest.approx(job.rows.mean(axis=0, dtype=float), abs=2e-3)


@pytest.mark.parametrize("name", MODELS)
def test_the_floor_multiplies_as_often_as_the_gradient_has_to(name: str) -> None:
    model = MODELS[name]
    encoder = [784, *model.hidden, 2 * model.latent]
    decoder = [model.latent, *reversed(model.hidden), 784]
    weights = sum(a * b for widths in (encoder, decoder) for a, b in itertools.pairwise(widths))

    done = sum(left.shape[0] * left.shape[1] * right.shape[1] for left, right, _ in products(model))

    assert done == model.batch * (3 * weights - 784 * encoder[1])
    assert all(out.shape == (left.shape[0], right.shape[1]) for left, right, out in products(model))


def test_time_is_taken_of_all_calls_but_the_first() -> None:
    # Each look at the clock is a second later: the start, then after each call.
    ticks = iter(range(1000))
    calls: list[int] = []

    found = measure(fake_training(calls), 50, 3.0, 0, together=10, clock=lambda: next(ticks))

    assert calls == [10, 10, 10, 10]
    assert found == {"examples_per_second": 3 * 10 * 50 / 3, "seconds": 3, "loss": None}


def test_training_goes_on_until_the_loss_can_be_compared() -> None:
    ticks = iter(range(1000))
    calls: list[int] = []

    found = measure(fake_training(calls), 50, 3.0, 400, together=100, clock=lambda: next(ticks))

    assert sum(calls) == 400
    # Step s has loss s: the mean of steps 300 to 399.
    assert found["loss"] == pytest.approx(349.5)


def test_a_run_is_timed_from_its_first_line_and_its_loss_is_that_of_the_line_of_step_400() -> None:
    # Nothing is known of how long the first 100 steps took; later ones take 10 ms each.
    lines = [training(version, time=1000 + version / 100, elbo=-version / 4) for version in range(100, 700, 100)]
    unfinished = {**training(640, time=2000, elbo=0.0), "kind": "unfinished"}

    found = pace([*lines, unfinished], 256, 400)

    assert found is not None
    assert found["examples_per_second"] == pytest.approx(256 / 0.01)
    assert found["seconds"] == pytest.approx(5.0)
    assert found["loss"] == 100.0


def test_a_run_with_too_few_steps_has_no_figure_yet() -> None:
    lines = [training(version, time=version / 100, elbo=-1.0) for version in (100, 200)]

    assert pace(lines, 256, 400) is None
    assert pace(lines[:1], 256, 0) is None
    few = pace(lines, 256, 0)
    assert few is not None
    assert few["loss"] is None


def training(version: int, *, time: float, elbo: float) -> dict[str, object]:
    return {"kind": "training", "version": version, "time": time, "elbo": elbo}


def fake_training(calls: list[int]):  # type: ignore[no-untyped-def]
    def run(steps: int) -> list[float]:
        first = sum(calls)
        calls.append(steps)
        return [float(step) for step in range(first, first + steps)]

    return run
