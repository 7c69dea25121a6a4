"""What a row of a batch becomes follows from its name: seed, step, place in the batch."""

import dataclasses
from itertools import pairwise

import numpy as np
import pytest
from small_run import Floats, small_config, small_data

from ps_vae.data import gather, rows_of
from ps_vae.train.config import BINARIZATIONS, RunConfig
from ps_vae.train.examples import Batches, fixed_rows

# 35 rows to train on: batches of 8 run from one epoch into the next.
FEW = "0.02,0.02,0.02"


def whole_batch(config: RunConfig, step: int) -> tuple[Floats, Floats]:
    """Examples and noise of a step, microbatch by microbatch."""
    train = small_data(config.split).train
    batches = Batches(config, train)
    examples = np.full((config.batch_size, train.features), np.nan, np.float32)
    noise = np.full((config.batch_size, config.model.latent), np.nan, np.float32)
    for index in range(config.microbatches):
        part = slice(index * config.microbatch, (index + 1) * config.microbatch)
        batches.fill(step, index, examples[part], noise[part])
    return examples, noise


def stream(config: RunConfig, epochs: int) -> tuple[Floats, np.ndarray[tuple[int], np.dtype[np.int64]]]:
    """The examples of so many epochs in their order, and the rows that they are."""
    count = epochs * config.train_rows
    steps = -(-count // config.batch_size)
    rows = rows_of(config.seed, 0, config.train_rows, np.empty(count, np.int64))
    return np.concatenate([whole_batch(config, step)[0] for step in range(steps)])[:count], rows


@pytest.mark.parametrize("binarize", BINARIZATIONS)
def test_a_row_is_the_same_in_microbatches_of_any_size(binarize: str) -> None:
    for step in (0, 4, 1_000_000):
        batches = [
            whole_batch(small_config(split=FEW, binarize=binarize, batch_size=12, microbatch=rows, seed=3), step)
            for rows in (1, 2, 3, 4, 6, 12)
        ]
        for (examples, noise), (same_examples, same_noise) in pairwise(batches):
            np.testing.assert_array_equal(examples, same_examples)
            np.testing.assert_array_equal(noise, same_noise)


@pytest.mark.parametrize("binarize", BINARIZATIONS)
def test_the_order_in_which_microbatches_are_filled_does_not_matter(binarize: str) -> None:
    config = small_config(split=FEW, binarize=binarize)
    examples, noise = whole_batch(config, 2)
    batches = Batches(config, small_data(FEW).train)
    batch, normals = np.empty((2, 64), np.float32), np.empty((2, 2), np.float32)
    for index in (3, 0, 2, 1, 3):
        batches.fill(2, index, batch, normals)
        np.testing.assert_array_equal(batch, examples[2 * index : 2 * index + 2])
        np.testing.assert_array_equal(normals, noise[2 * index : 2 * index + 2])


def test_an_epoch_shows_every_row_exactly_once() -> None:
    config = small_config(split=FEW)
    shown, _ = stream(config, 3)
    train = small_data(FEW).train
    expected = sorted(row.tobytes() for row in gather(train, np.arange(35), np.empty((35, 64), np.float32)))
    epochs = [[row.tobytes() for row in shown[at : at + 35]] for at in (0, 35, 70)]
    for epoch in epochs:
        assert sorted(epoch) == expected
    assert epochs[0] != epochs[1] != epochs[2]


def test_static_bits_are_the_same_in_every_epoch_and_in_every_evaluation() -> None:
    config = small_config(split=FEW, binarize="static")
    shown, rows = stream(config, 3)
    fixed = fixed_rows(config, small_data(FEW), "train", 0, 35)
    assert set(np.unique(shown)) == {0.0, 1.0}
    np.testing.assert_array_equal(shown, fixed[rows])


def test_dynamic_bits_are_others_each_time_and_have_the_pixels_as_their_means() -> None:
    config = small_config(split=FEW, binarize="dynamic", batch_size=35, microbatch=35)
    epochs = []
    for epoch in range(200):
        shown = whole_batch(config, epoch)[0]
        rows = rows_of(config.seed, 35 * epoch, 35, np.empty(35, np.int64))
        epochs.append(shown[np.argsort(rows)])
    draws = np.stack(epochs)
    assert set(np.unique(draws)) == {0.0, 1.0}
    # Every row has grey pixels, so two draws of it are the same with a probability below 2^-10.
    assert all((first != second).any(axis=1).all() for first, second in pairwise(draws[:10]))
    pixels = gather(small_data(FEW).train, np.arange(35), np.empty((35, 64), np.float32)).astype(np.float64)
    z = (draws.mean(axis=0) - pixels) / np.sqrt(np.maximum(pixels * (1 - pixels), 1e-12) / 200)
    assert np.abs(z).max() < 5.5  # of 2,240 standard normals, and exactly 0 for black and white


def test_the_noise_of_a_step_is_standard_normal_and_no_row_or_step_has_that_of_another() -> None:
    config = small_config(batch_size=512, microbatch=64, latent=8)
    first, second = (whole_batch(config, step)[1] for step in (0, 1))
    both = np.concatenate([first, second]).astype(np.float64)
    assert np.unique(both).size == both.size
    assert abs(both.mean()) < 5 / np.sqrt(both.size)
    assert abs(both.var() - 1) < 5 * np.sqrt(2 / both.size)


def test_another_seed_gives_another_order_other_bits_and_other_noise() -> None:
    batches = [whole_batch(small_config(binarize=how, seed=seed), 0) for how in ("none", "static") for seed in (0, 1)]
    (plain, noise), (other_plain, other_noise), (bits, _), (other_bits, _) = batches
    assert not np.array_equal(plain, other_plain)
    assert not np.array_equal(bits, other_bits)
    assert not np.any(noise == other_noise)


@pytest.mark.parametrize("binarize", BINARIZATIONS)
@pytest.mark.parametrize("split", ["train", "validation", "test"])
def test_fixed_rows_are_the_same_in_chunks_of_any_size(binarize: str, split: str) -> None:
    config, data = small_config(split=FEW, binarize=binarize), small_data(FEW)
    whole = fixed_rows(config, data, split, 0, 35)
    for size in (1, 4, 34):
        chunks = [fixed_rows(config, data, split, at, min(at + size, 35)) for at in range(0, 35, size)]
        np.testing.assert_array_equal(np.concatenate(chunks), whole)
    is_binary = set(np.unique(whole)) == {0.0, 1.0}
    assert is_binary == (binarize != "none")


def test_two_splits_have_different_fixed_bits_for_the_same_pixels() -> None:
    """Bits are named after the split too: rows 0 of train and test do not share their noise."""
    config, data = small_config(split=FEW, binarize="static"), small_data(FEW)
    same_pixels = dataclasses.replace(data, validation=data.train, test=data.train)
    bits = [fixed_rows(config, same_pixels, split, 0, 35) for split in ("train", "validation", "test")]
    assert all(not np.array_equal(one, other) for one, other in [*pairwise(bits), (bits[0], bits[2])])
