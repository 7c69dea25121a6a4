"""What a codec costs, beside the computing that it goes with, and what it makes of a gradient.

    python benchmarks/codecs.py [--codecs int8 topk:0.01 ...] [--rounds 200] [--rows 128] [--json]

One thread. In each round the gradient of a batch of the model 784-400-20-400-784 is computed once, on real examples of
`mnist-5k`, and encoded and decoded once in each codec, so that what slows one down slows all; `factors` encodes what it
takes in place of that gradient. Times are medians over the rounds, ratios medians of the rounds' ratios. "left out" is
the length of what is not in the first payload, as a part of the gradient's.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import report

from ps_vae.data import feature_moments, load
from ps_vae.ps.blocks import Block
from ps_vae.ps.buffers import aligned
from ps_vae.ps.codecs.codec import Codec
from ps_vae.ps.codecs.table import FACTORS, push_codec_for
from ps_vae.ps.partition import Slice
from ps_vae.train.arithmetic import use_one_thread
from ps_vae.train.encoding import push_codecs
from ps_vae.train.form import factored_form
from ps_vae.train.gradient import BlockGradient
from ps_vae.train.plan import Wishes, plan
from ps_vae.vae.initial import initial_weights

CODECS = ("fp16", "bf16", "int8", "onebit", "topk:0.01", "topk:0.1", "powersgd:1", "powersgd:2", "powersgd:4", FACTORS)
IGNORED = 10


class Bench:
    """The model's gradient, and each codec with its state and the gradient in the form that it takes."""

    def __init__(self, names: list[str], rows: int) -> None:
        data = load("mnist-5k", "auto")
        wishes = Wishes(data="mnist-5k", hidden=(400,), latent=20, batch_size=rows, microbatch=min(rows, 64))
        self.config = plan(wishes, data)
        self.block = Block(0, self.config.microbatches)
        self.gradient = BlockGradient(self.config, data.train)
        self.weights = initial_weights(self.gradient.layout, 0, feature_moments(data.train))
        whole = Slice(0, self.gradient.layout.size)
        (self.plain,) = self.gradient(self.weights, 0, [self.block])
        self.codecs: dict[str, Codec] = {}
        self.others: dict[str, Any] = {}
        for name in names:
            config = plan(Wishes(**{**wishes.said(), "push_codec": name}), data)
            self.codecs[name] = push_codecs(config, [whole])[0](len(self.block))
            if name == FACTORS:
                make = BlockGradient(config, data.train, form=factored_form(config, [whole]))
                self.others[name] = make(self.weights, 0, [self.block])[0].gradient
        self.states = {name: codec.initial_state() for name, codec in self.codecs.items()}
        self.words = {name: np.zeros(codec.words, np.uint32) for name, codec in self.codecs.items()}
        self.out = aligned(whole.size)

    def left_out(self, name: str) -> float:
        """Of the gradient, in the first payload."""
        self.encode(name, 0)
        self.decode(name)
        return float(np.linalg.norm(self.out - self.plain.gradient) / np.linalg.norm(self.plain.gradient))

    def compute(self) -> None:
        self.gradient.buffers.give(self.plain.gradient)
        (self.plain,) = self.gradient(self.weights, 0, [self.block])

    def encode(self, name: str, step: int) -> None:
        gradient = self.others.get(name, self.plain.gradient)
        self.codecs[name].encode(gradient, self.states[name], (0, step, 0), self.words[name])

    def decode(self, name: str) -> None:
        self.codecs[name].decode(self.words[name], self.out)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--codecs", nargs="+", default=list(CODECS), metavar="CODEC")
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--rows", type=int, default=128, help="of a batch")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of the table")
    words = parser.parse_args()
    for name in words.codecs:
        push_codec_for(name)
    use_one_thread()
    bench = Bench(words.codecs, words.rows)
    rows = measure(bench, words.rounds)
    whole = {"machine": report.machine(), "rows": words.rows, "numbers": bench.plain.gradient.size, "codecs": rows}
    print(json.dumps(whole) if words.json else drawn(whole))
    return 0


def measure(bench: Bench, rounds: int) -> list[dict[str, Any]]:
    """A row a codec; times in milliseconds."""
    left = {name: bench.left_out(name) for name in bench.codecs}
    computing: list[float | None] = []
    encoding: dict[str, list[float]] = {name: [] for name in bench.codecs}
    decoding: dict[str, list[float]] = {name: [] for name in bench.codecs}
    for step in range(1, IGNORED + rounds + 1):
        computing.append(_milliseconds(bench.compute))
        for name in bench.codecs:
            encoding[name].append(_milliseconds(lambda name=name, step=step: bench.encode(name, step)))
            decoding[name].append(_milliseconds(lambda name=name: bench.decode(name)))
    kept = slice(IGNORED, None)
    found = []
    for name, codec in bench.codecs.items():
        both: list[float | None] = [e + d for e, d in zip(encoding[name], decoding[name], strict=True)]
        found.append(
            {
                "codec": name,
                "bytes": 4 * codec.words,
                "times fewer": codec.numbers / codec.words,
                "left out": left[name],
                "encode ms": float(np.median(encoding[name][kept])),
                "decode ms": float(np.median(decoding[name][kept])),
                "of computing": report.ratio(both[kept], computing[kept]),
            }
        )
    found.append({"codec": "(computing)", "encode ms": float(np.median(computing[kept]))})
    return found


def drawn(whole: dict[str, Any]) -> str:
    machine = whole["machine"]
    columns = {
        "codec": "",
        "bytes": ",.0f",
        "times fewer": ",.2f",
        "left out": ".1%",
        "encode ms": ".3f",
        "decode ms": ".3f",
        "of computing": ".1%",
    }
    head = f"{whole['numbers']:,} numbers, {whole['rows']} rows; one core of {machine['cpu']}, {machine['system']}"
    return f"{head}\n\n{report.table(whole['codecs'], columns)}"


def _milliseconds(do: Callable[[], None]) -> float:
    started = time.perf_counter()
    do()
    return 1e3 * (time.perf_counter() - started)


if __name__ == "__main__":
    sys.exit(main())
