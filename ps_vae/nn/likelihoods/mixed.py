"""The likelihood of a table: each variable, a column of the table, has its own, and what is missing has none.

    log p(x|z) = sum over the variables d that x has of log p_d(x_d|z)

so a model of all rows is trained on what each of them has (Nazabal et al. 2020). What is missing is NaN in every
feature of its variable. The encoder sees, with center c and log s, facts of the training rows,

    (x - c) / s,  and 0, the mean, where x is missing;    c the mean, s the deviation, or 1 for bits and shares

Gaussian variables are modelled in the same units, so that one is learned as fast as the other whatever it is counted
in, and their densities are given in the units of the data:

    log p_d(x_d|z) = log N((x_d - c_d) / s_d; ...) - log s_d

A fixed sigma is one of deviations s_d, too. Neighbours with the same likelihood and nothing missing are one part,
computed at once.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import NamedTuple

import numpy as np

from ps_vae.errors import DataError, UsageError
from ps_vae.nn.arrays import Array, Floats, Rows, Sums
from ps_vae.nn.likelihoods.fault import Fault
from ps_vae.nn.likelihoods.gaussian_learned import usual_variances
from ps_vae.nn.likelihoods.likelihood import Initial, Likelihood, Own

__all__ = ["OF_ALL_TOGETHER", "Variable", "mixed"]

OF_ALL_TOGETHER = ("gaussian-shared", "multinomial")
"""Likelihoods that are of all features, not of a variable."""

_ONE_VARIABLE = ("categorical",)
_SCALED = ("gaussian", "gaussian-feature", "gaussian-decoder")
_COUNTED = ("poisson", "negative-binomial")
# Of a column: what float32 divides by, and what is still a number when it is multiplied with a few deviations.
_LEAST, _MOST = 1e-37, 1e37


class Variable(NamedTuple):
    """name, likelihood, features, and whether it is missing in some rows."""

    name: str
    likelihood: str
    features: int
    misses: bool


def mixed(variables: Sequence[Variable], make: Callable[[str, int], Likelihood]) -> Likelihood:
    """Outputs and parameters are those of the parts, one part after the other.

    make  of a likelihood's name and features the likelihood
    """
    for variable in variables:
        if variable.likelihood in OF_ALL_TOGETHER:
            raise UsageError(
                f"{variable.name}:{variable.likelihood}: {variable.likelihood} is of all features together, not of a "
                "column; take gaussian-feature for numbers, poisson for counts, categorical for one of several values"
            )
    parts = _parts(variables, make)
    table = _Table(tuple(variables), make, parts, sum(variable.features for variable in variables))
    return Likelihood(
        name="mixed",
        features=table.features,
        outputs=parts[-1].outputs.stop,
        own=tuple((f"{k}.{name}", size) for k, part in enumerate(parts) for name, size in part.family.own),
        facts=(
            *((f"{k}.{name}", size) for k, part in enumerate(parts) for name, size in part.family.facts),
            *(("center", table.features), ("log_scale", table.features)),
        ),
        loss_gradient=table.loss_gradient,
        log_likelihood=table.log_likelihood,
        mean=table.mean,
        sample=table.sample,
        fault=table.fault,
        initial=table.initial,
        to_encoder=_to_encoder,
    )


@dataclass(frozen=True, slots=True)
class _Part:
    """features, outputs: its columns; own: where its parameters, then its facts, stand in those of the table."""

    family: Likelihood
    features: slice
    outputs: slice
    own: tuple[int, ...]
    misses: bool

    @property
    def is_scaled(self) -> bool:
        return self.family.name in _SCALED


@dataclass(frozen=True, slots=True)
class _Table:
    variables: tuple[Variable, ...]
    make: Callable[[str, int], Likelihood]
    parts: tuple[_Part, ...]
    features: int

    def loss_gradient(
        self,
        outputs: Floats,
        bias: Floats,
        own: Own,
        x: Floats,
        weight: Sums,
        log_likelihood: Sums,
        d_bias: Floats,
        d_own: Own,
    ) -> float:
        log_likelihood[:] = 0
        for fact in d_own[-2:]:
            fact[:] = 0
        for part in self.parts:
            values, rows = _values(part, own, x, len(outputs))
            log_p, d_outputs = np.zeros(rows.size), np.ascontiguousarray(outputs[rows, part.outputs])
            part.family.loss_gradient(
                d_outputs,
                bias[part.outputs],
                _of(part, own),
                values,
                weight[rows],
                log_p,
                d_bias[part.outputs],
                _of(part, d_own),
            )
            outputs[:, part.outputs] = 0
            outputs[rows, part.outputs] = d_outputs
            log_likelihood[rows] += log_p - _log_scale(part, own)
        return float(log_likelihood.sum())

    def log_likelihood(self, outputs: Floats, bias: Floats, own: Own, x: Floats, log_likelihood: Sums) -> None:
        log_likelihood[:] = 0
        for part in self.parts:
            values, rows = _values(part, own, x, len(outputs))
            log_p, of_part = np.zeros(rows.size), np.ascontiguousarray(outputs[rows, part.outputs])
            part.family.log_likelihood(of_part, bias[part.outputs], _of(part, own), values, log_p)
            log_likelihood[rows] += log_p - _log_scale(part, own)

    def mean(self, outputs: Floats, bias: Floats, own: Own) -> Floats:
        return self._of_parts(outputs, own, lambda k, part, o: part.family.mean(o, bias[part.outputs], _of(part, own)))

    def sample(self, outputs: Floats, bias: Floats, own: Own, *, seed: int, step: int, rows: Rows) -> Floats:
        def draw(k: int, part: _Part, of_part: Floats) -> Floats:
            # Of each part other noise.
            step_of_part = step * len(self.parts) + k
            return part.family.sample(
                of_part, bias[part.outputs], _of(part, own), seed=seed, step=step_of_part, rows=rows
            )

        return self._of_parts(outputs, own, draw)

    def fault(self, data: Array) -> Fault | None:
        first = 0
        for variable in self.variables:
            columns = data[:, first : first + variable.features]
            first += variable.features
            missing = np.isnan(columns).any(axis=1)
            if missing.any() and not variable.misses:
                why = "none was missing where the model was trained; fill it in"
                return Fault(f"{variable.name!r} has no value", int(missing.argmax()), why)
            fault = self.make(variable.likelihood, variable.features).fault(columns[~missing])
            if fault is not None:
                what = f"{variable.name!r}, {variable.likelihood}: {fault.what}"
                return Fault(what, int(np.flatnonzero(~missing)[fault.row]), fault.why)
        return None

    def initial(self, means: Sums, variances: Sums) -> Initial:
        log_scale = np.zeros(self.features)
        for part in self.parts:
            if part.is_scaled or part.family.name in _COUNTED:
                log_scale[part.features] = np.log(usual_variances(means[part.features], variances[part.features])) / 2
        self._check_scales(np.exp(log_scale), means)
        biases: list[Sums] = []
        own: list[Sums] = []
        facts: list[Sums] = []
        for part in self.parts:
            of_part = means[part.features], variances[part.features]
            if part.is_scaled:
                of_part = np.zeros_like(of_part[0]), of_part[1] / np.exp(2 * log_scale[part.features])
            initial = part.family.initial(*of_part)
            biases.append(initial.bias)
            own += initial.own[: len(part.family.own)]
            facts += initial.own[len(part.family.own) :]
        return Initial(np.concatenate(biases), (*own, *facts, np.array(means, dtype=np.float64), log_scale))

    def _check_scales(self, deviations: Sums, means: Sums) -> None:
        """DataError where (x - center) / scale would not be a number of float32."""
        names = [variable.name for variable in self.variables for _ in range(variable.features)]
        for name, deviation, mean in zip(names, deviations, means, strict=True):
            if not (_LEAST <= deviation <= _MOST and abs(mean) <= _MOST):
                raise DataError(
                    f"{name!r} has a mean of {mean:.3g} and a deviation of {deviation:.3g}, and float32 has room for "
                    f"deviations from {_LEAST:g} to {_MOST:g} and means up to that; give the column in another unit"
                )

    def _of_parts(self, outputs: Floats, own: Own, make: Callable[[int, _Part, Floats], Floats]) -> Floats:
        """x, put together from what each part makes of its outputs."""
        x = np.empty((len(outputs), self.features), outputs.dtype)
        for k, part in enumerate(self.parts):
            made = make(k, part, np.ascontiguousarray(outputs[:, part.outputs]))
            if part.is_scaled:
                center, scale = _units(own, part.features)
                made = made * scale + center
            x[:, part.features] = made
        return x


def _parts(variables: Sequence[Variable], make: Callable[[str, int], Likelihood]) -> tuple[_Part, ...]:
    together: list[tuple[str, int, bool]] = []
    for key, group in groupby(enumerate(variables), key=lambda each: _together(*each)):
        together.append((key[0], sum(variable.features for _, variable in group), key[1]))
    parts: list[_Part] = []
    feature = output = learned = 0
    for name, features, misses in together:
        family = make(name, features)
        places = tuple(range(learned, learned + len(family.own)))
        parts.append(
            _Part(family, slice(feature, feature + features), slice(output, output + family.outputs), places, misses)
        )
        feature, output, learned = feature + features, output + family.outputs, learned + len(family.own)
    with_facts = []
    for part in parts:
        facts = tuple(range(learned, learned + len(part.family.facts)))
        learned += len(facts)
        with_facts.append(replace(part, own=part.own + facts))
    return tuple(with_facts)


def _together(place: int, variable: Variable) -> tuple[str, bool, int]:
    is_alone = variable.misses or variable.likelihood in _ONE_VARIABLE
    return variable.likelihood, variable.misses, place if is_alone else -1


def _of(part: _Part, own: Own) -> Own:
    return tuple(own[place] for place in part.own)


def _values(part: _Part, own: Own, x: Floats, drawn: int) -> tuple[Floats, Rows]:
    """What the rows that are not without it have of a part, and which of `drawn` rows of outputs belong to them."""
    values = x[:, part.features]
    present = np.arange(len(x))
    if part.misses:
        present = np.flatnonzero(~np.isnan(values).any(axis=1))
        values = values[present]
    if part.is_scaled:
        center, scale = _units(own, part.features)
        values = (values - center) / scale
    # Row i of outputs belongs to x[i % n], and so it stays.
    rows = (np.arange(0, drawn, len(x))[:, None] + present).ravel()
    return np.ascontiguousarray(values), rows


def _log_scale(part: _Part, own: Own) -> float:
    if not part.is_scaled:
        return 0.0
    return float(own[-1][part.features].sum(dtype=np.float64))


def _units(own: Own, features: slice) -> tuple[Floats, Floats]:
    """Center and scale of some features."""
    return own[-2][features], np.exp(own[-1][features])


def _to_encoder(x: Floats, own: Own, out: Floats) -> None:
    center, scale = _units(own, slice(None))
    np.subtract(x, center, out=out)
    out /= scale
    out[np.isnan(out)] = 0
