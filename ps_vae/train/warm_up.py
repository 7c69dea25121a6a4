"""Kernels of a run, loaded or compiled before somebody waits for them: each is called once, on as little as possible.

A worker does the same with a block of its run (train.worker).
"""

import numpy as np

from ps_vae.nn.dense import weight_gradient
from ps_vae.ps.aggregation.middle import middle
from ps_vae.ps.aggregation.table import aggregation_for
from ps_vae.ps.codecs.codec import Matrix
from ps_vae.ps.codecs.factors import Products
from ps_vae.ps.codecs.pull import pull_codec_for
from ps_vae.ps.codecs.table import push_codec_for
from ps_vae.ps.consistency import parse_consistency
from ps_vae.ps.update import Moment
from ps_vae.train.config import RunConfig
from ps_vae.train.elbo import row_terms
from ps_vae.train.gradient import is_finite
from ps_vae.train.update import fresh_state, look_ahead_rule, update_rule
from ps_vae.vae.evidence import estimate_evidence
from ps_vae.vae.layout import Parameters

__all__ = ["warm_up_codecs", "warm_up_elbo", "warm_up_evidence", "warm_up_shard"]

_NAMES = np.zeros(1, np.int64)


def warm_up_shard(config: RunConfig) -> None:
    """What a shard calls for a push."""
    weights, gradient, out = np.zeros((3, 16), np.float32)
    state = fresh_state(config, weights)
    if is_finite(gradient):
        update_rule(config)(weights, (gradient, gradient), state.optimizer, Moment(0, 0), out)
    aggregation = aggregation_for(config.aggregate)
    if aggregation is not None:
        middle(np.zeros((4, 16), np.float32), aggregation.cut(4), out)
    look_ahead = look_ahead_rule(config)
    is_late = config.delay > 0 or not parse_consistency(config.consistency).is_synchronous
    if look_ahead is not None and is_late:
        look_ahead(weights, weights, 1.0, out)
    warm_up_codecs(config)


def warm_up_codecs(config: RunConfig) -> None:
    """What encodes and decodes pushes and pulls."""
    # Of products, one narrower than a vector register and one that is not.
    numbers, matrices, products = 64, (Matrix(0, 8, 4), Matrix(32, 2, 16)), Products(1, weight_gradient)
    push, pull = push_codec_for(config.push_codec), pull_codec_for(config.pull_codec)
    codecs = [] if push is None else [push(numbers, matrices, products)(1)]
    codecs += [] if pull is None else [pull(numbers, matrices, 0).codec]
    for codec in codecs:
        values, words = np.zeros(numbers, np.float32), np.zeros(codec.words, np.uint32)
        codec.encode(values, codec.initial_state(), (0, 0, 0), words)
        codec.decode(words, values)


def warm_up_elbo(parameters: Parameters) -> None:
    """What an evaluator calls for its figures."""
    row_terms(parameters, np.zeros((1, parameters.config.width), np.float32), 0, _NAMES)


def warm_up_evidence(parameters: Parameters) -> None:
    """What importance sampling calls."""
    estimate_evidence(parameters, np.zeros((1, parameters.config.width), np.float32), samples=2, seed=0, rows=_NAMES)
