"""JAX on one process: one jitted call a step, or many steps in one `lax.scan`.

    python -m peers.jax_vae --job job.npz --batch 128 --form step|scan

As its documentation says: the outermost function is jitted, losses are fetched after many steps so that dispatch is
asynchronous (docs.jax.dev, "Benchmarking and profiling", "Asynchronous dispatch"); the state is donated, so that
updates happen in place ("Buffer donation"); loops are scans ("Control flow"); keys are split inside of the function
(jax.random) and of the default kind, which is also the fastest on a CPU. Data live on the device. Adam is written out
in jax.tree.map; optax.adam in its place takes the same time to 1%.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from peers.job import Job, answer, measure, parser, read_job

_RATE, _BETA1, _BETA2, _EPSILON = 1e-3, 0.9, 0.999, 1e-8
_SCANNED = 100

Weights = dict[str, jax.Array]


class State(NamedTuple):
    """What a step starts from and ends with."""

    weights: Weights
    first: Weights
    second: Weights
    updates: jax.Array
    key: jax.Array


def elbo_loss(job: Job, weights: Weights, batch: jax.Array, key: jax.Array) -> jax.Array:
    """Mean of -ELBO over the rows of `batch`, which are 0 and 1."""
    activation = {"relu": jax.nn.relu, "tanh": jnp.tanh}[job.activation]

    def network(x: jax.Array, layers: list[str]) -> jax.Array:
        for layer in layers:
            x = x @ weights[f"{layer}.weight"] + weights[f"{layer}.bias"]
            x = activation(x) if layer != layers[-1] else x
        return x

    mean, log_variance = jnp.split(network(batch, job.encoder), 2, axis=1)
    z = mean + jnp.exp(0.5 * log_variance) * jax.random.normal(key, mean.shape)
    logits = network(z, job.decoder)
    reconstruction = jnp.sum(jax.nn.softplus(logits) - logits * batch)
    divergence = 0.5 * jnp.sum(mean**2 + jnp.exp(log_variance) - 1 - log_variance)
    return (reconstruction + divergence) / len(batch)


def one_step(job: Job, rows: jax.Array, state: State, chosen: jax.Array) -> tuple[State, jax.Array]:
    """One Adam update on the rows `chosen` (batch,); returns the loss before it."""
    key, for_pixels, for_z = jax.random.split(state.key, 3)
    batch = jax.random.bernoulli(for_pixels, rows[chosen]).astype(jnp.float32)
    loss, gradient = jax.value_and_grad(partial(elbo_loss, job))(state.weights, batch, for_z)
    t = state.updates + 1
    first = jax.tree.map(lambda m, g: _BETA1 * m + (1 - _BETA1) * g, state.first, gradient)
    second = jax.tree.map(lambda v, g: _BETA2 * v + (1 - _BETA2) * g**2, state.second, gradient)
    rate, correction = _RATE / (1 - _BETA1**t), 1 / (1 - _BETA2**t)
    weights = jax.tree.map(
        lambda w, m, v: w - rate * m / (jnp.sqrt(correction * v) + _EPSILON), state.weights, first, second
    )
    return State(weights, first, second, t, key), loss


def call_a_step(job: Job, batch: int) -> Callable[[int], Sequence[float]]:
    """A jitted call for each step."""
    state, rows = fresh(job), jnp.asarray(job.rows)
    batches = len(rows) // batch
    shuffle = jax.jit(lambda key: jax.random.permutation(key, len(rows))[: batches * batch].reshape(batches, batch))

    @partial(jax.jit, donate_argnums=0)
    def step(state: State, rows: jax.Array, order: jax.Array, index: int) -> tuple[State, jax.Array]:
        return one_step(job, rows, state, order[index])

    steps_done, shuffle_key, order = 0, jax.random.key(1), None

    def run(steps: int) -> Sequence[float]:
        nonlocal state, steps_done, shuffle_key, order
        losses = []
        for index in range(steps_done, steps_done + steps):
            if index % batches == 0:
                shuffle_key, now = jax.random.split(shuffle_key)
                order = shuffle(now)
            state, loss = step(state, rows, order, index % batches)
            losses.append(loss)
        steps_done += steps
        return [float(loss) for loss in losses]

    return run


def scan(job: Job, batch: int) -> Callable[[int], Sequence[float]]:
    """All steps of a call in one `lax.scan`."""
    state, rows = fresh(job), jnp.asarray(job.rows)
    batches = len(rows) // batch

    @partial(jax.jit, static_argnums=2, donate_argnums=0)
    def train(state: State, rows: jax.Array, steps: int) -> tuple[State, jax.Array]:
        key, *now = jax.random.split(state.key, 1 + -(-steps // batches))
        orders = jax.vmap(lambda key: jax.random.permutation(key, len(rows))[: batches * batch])(jnp.stack(now))
        chosen = orders.reshape(-1, batch)[:steps]
        return jax.lax.scan(partial(one_step, job, rows), state._replace(key=key), chosen)

    def run(steps: int) -> Sequence[float]:
        nonlocal state
        state, losses = train(state, rows, steps)
        return np.asarray(losses).tolist()

    return run


def fresh(job: Job) -> State:
    """The state before the first step; arrays of its own, since they are donated."""
    weights: Any = {name: jnp.asarray(array) for name, array in job.weights.items()}
    return State(
        weights,
        jax.tree.map(jnp.zeros_like, weights),
        jax.tree.map(jnp.zeros_like, weights),
        jnp.float32(0),
        jax.random.key(0),
    )


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("--form", choices=("step", "scan"), default="step")
    words = arguments.parse_args()
    job = read_job(words.job)
    if words.form == "scan":
        found = measure(scan(job, words.batch), words.batch, words.seconds, words.least, together=_SCANNED)
    else:
        found = measure(call_a_step(job, words.batch), words.batch, words.seconds, words.least)
    answer(found)


if __name__ == "__main__":
    main()
