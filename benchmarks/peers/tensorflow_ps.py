"""TensorFlow's ParameterServerStrategy: a coordinator, workers and one parameter server, each a process of its own.

    python -m peers.tensorflow_ps --job job.npz --batch 128 --workers 2

As www.tensorflow.org/tutorials/distribute/parameter_server_training says: the cluster is told by TF_CONFIG, workers and
server run tf.distribute.Server; Keras layers and optimizer are made in the strategy's scope, a ClusterCoordinator
schedules a tf.function on the workers, each of which shuffles, repeats and prefetches the whole data set; ten steps
are packed into one function ("Performance improvement", "Known limitations": usually necessary for optimal speed);
workers get one more thread between operations than there are workers where there are few cores.

The strategy is asynchronous and has no other form: an update has the rows of one worker, and updates that meet on the
server may overwrite each other. With one worker its loss is that of the other systems.
"""

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from typing import Any

from peers.job import LOSS_STEPS, Job, answer, parser, read_job

# Read when TensorFlow is imported; the first as the tutorial has it, the second for fewer words on standard error.
os.environ |= {"GRPC_FAIL_FAST": "use_caller", "TF_CPP_MIN_LOG_LEVEL": "2", "CUDA_VISIBLE_DEVICES": "-1"}

import tensorflow as tf

_PACKED = 10
_FEW_CALLS = 4


def serve(resolver: Any, workers: int) -> None:
    """A worker's or server's whole life."""
    config = tf.compat.v1.ConfigProto()
    if resolver.task_type == "worker" and len(os.sched_getaffinity(0)) < workers + 1:
        config.inter_op_parallelism_threads = workers + 1
    server = tf.distribute.Server(
        resolver.cluster_spec(),
        job_name=resolver.task_type,
        task_index=resolver.task_id,
        config=config,
        protocol="grpc",
    )
    server.join()


def coordinate(resolver: Any, job: Job, batch: int, seconds: float, least: int, workers: int) -> dict[str, Any]:
    """Train against the clock."""
    strategy = tf.distribute.ParameterServerStrategy(resolver)
    with strategy.scope():
        encoder, decoder = _network(job, job.encoder), _network(job, job.decoder)
        optimizer = tf.keras.optimizers.Adam(1e-3)
        weights = [weight for layer in encoder + decoder for weight in layer.trainable_variables]
        optimizer.build(weights)

    def replica_step(x: tf.Tensor) -> tf.Tensor:
        with tf.GradientTape() as tape:
            mean, log_variance = tf.split(_through(encoder, x), 2, axis=1)
            z = mean + tf.exp(0.5 * log_variance) * tf.random.normal(tf.shape(mean))
            reconstruction = tf.nn.sigmoid_cross_entropy_with_logits(labels=x, logits=_through(decoder, z))
            divergence = 0.5 * (mean**2 + tf.exp(log_variance) - 1 - log_variance)
            loss = (tf.reduce_sum(reconstruction) + tf.reduce_sum(divergence)) / batch
        optimizer.apply_gradients(zip(tape.gradient(loss, weights), weights, strict=True))
        return loss

    @tf.function
    def train(iterator: Any) -> tf.Tensor:
        return tf.stack([strategy.run(replica_step, args=(next(iterator),)) for _ in range(_PACKED)])

    def data(context: Any) -> tf.data.Dataset:
        rows = tf.data.Dataset.from_tensor_slices(job.rows).shuffle(len(job.rows)).repeat()
        return rows.batch(batch, drop_remainder=True).map(_binarised).prefetch(2)

    @tf.function
    def data_of_a_worker() -> Any:
        return strategy.distribute_datasets_from_function(data)

    coordinator = tf.distribute.coordinator.ClusterCoordinator(strategy)
    iterator = iter(coordinator.create_per_worker_dataset(data_of_a_worker))

    def run(calls: int) -> tuple[list[float], float]:
        """Losses of all their steps, and steps a second while all workers were busy."""
        started, ended, losses = time.perf_counter(), [], []
        for call in [coordinator.schedule(train, args=(iterator,)) for _ in range(calls)]:
            losses += call.fetch().tolist()
            ended.append(time.perf_counter() - started)
        coordinator.join()
        # Calls end about in order; when there are fewer left than workers, some of these have nothing to do.
        counted = max(1, calls - workers + 1)
        return losses, counted * _PACKED / ended[counted - 1]

    losses, _ = run(2 * workers)
    more, steps_a_second = run(_FEW_CALLS * workers)
    losses += more
    calls = max(seconds * steps_a_second, least - len(losses)) / _PACKED
    more, steps_a_second = run(max(workers, round(calls)))
    losses += more
    compared = losses[LOSS_STEPS] if len(losses) >= LOSS_STEPS.stop else []
    return {
        "examples_per_second": steps_a_second * batch,
        "loss": sum(compared) / len(compared) if compared else None,
        "updates": len(losses),
        "updates_counted": int(optimizer.iterations.numpy()),
    }


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("--workers", type=int, default=2)
    words = arguments.parse_args()
    if "TF_CONFIG" in os.environ:
        serve(tf.distribute.cluster_resolver.TFConfigClusterResolver(), words.workers)
        return
    jobs = [("chief", 0), ("ps", 0), *(("worker", index) for index in range(words.workers))]
    cluster: dict[str, list[str]] = {}
    for (job, _), port in zip(jobs, _free_ports(len(jobs)), strict=True):
        cluster.setdefault(job, []).append(f"127.0.0.1:{port}")
    configs = [json.dumps({"cluster": cluster, "task": {"type": job, "index": index}}) for job, index in jobs]
    command = [sys.executable, "-m", "peers.tensorflow_ps", *sys.argv[1:]]
    servers = [subprocess.Popen(command, env=os.environ | {"TF_CONFIG": config}) for config in configs[1:]]
    try:
        os.environ["TF_CONFIG"] = configs[0]
        resolver = tf.distribute.cluster_resolver.TFConfigClusterResolver()
        job = read_job(words.job)
        answer(coordinate(resolver, job, words.batch, words.seconds, words.least, words.workers))
    finally:
        for server in servers:
            server.kill()
            server.wait()


def _network(job: Job, names: list[str]) -> list[tf.keras.layers.Dense]:
    layers = []
    for name in names:
        weight, bias = job.weights[f"{name}.weight"], job.weights[f"{name}.bias"]
        activation = job.activation if name != names[-1] else None
        layer = tf.keras.layers.Dense(
            weight.shape[1], activation, kernel_initializer=_given(weight), bias_initializer=_given(bias)
        )
        layer.build((None, weight.shape[0]))
        layers.append(layer)
    return layers


def _given(array: Any) -> Any:
    return lambda shape, dtype=None: tf.constant(array, dtype)


def _through(layers: list[tf.keras.layers.Dense], x: tf.Tensor) -> tf.Tensor:
    for layer in layers:
        x = layer(x)
    return x


def _binarised(rows: tf.Tensor) -> tf.Tensor:
    return tf.cast(tf.random.uniform(tf.shape(rows)) < rows, tf.float32)


def _free_ports(count: int) -> Sequence[int]:
    """Ports that nobody has now; they are free again when all of them are known."""
    sockets = [socket.socket() for _ in range(count)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


if __name__ == "__main__":
    main()
