"""Options that would do nothing in a run: refused, for whoever gives one expects something of it.

Not in RunConfig, for a run that has begun goes on with what it was begun with.
"""

from collections.abc import Collection

from ps_vae.errors import UsageError
from ps_vae.train.config import RunConfig

__all__ = ["check_effects"]


def check_effects(config: RunConfig, given: Collection[str]) -> None:
    """Raises UsageError, naming the options, where one of those that are `given`, by their fields, has no effect."""
    model = config.model
    likelihoods = {variable.likelihood for variable in model.variables} or {model.likelihood}
    without_weight = "--beta 0 gives the KL no weight"
    for name, value, has_effect, why in (
        (
            "sigma",
            model.sigma,
            "gaussian" in likelihoods,
            f"--likelihood {model.likelihood} has none of its own that is fixed; give --likelihood gaussian",
        ),
        ("activation", model.activation, bool(model.hidden), "no hidden layer has one; give --hidden"),
        ("beta_warmup", config.beta_warmup, config.beta > 0, f"{without_weight} to grow to; give another --beta"),
        ("free_bits", config.free_bits, config.beta > 0, f"{without_weight}; give another --beta"),
        ("capacity", config.capacity, config.beta > 0, f"{without_weight}; give another --beta"),
        ("capacity_warmup", config.capacity_warmup, config.capacity > 0, "there is none to grow to; give --capacity"),
    ):
        if name in given and not has_effect:
            said = value if isinstance(value, str) else f"{value:g}"
            raise UsageError(f"--{name.replace('_', '-')} {said} would do nothing: {why}, or leave it out")
