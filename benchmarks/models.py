"""The models that systems are compared on, and the job file that tells each of them the same."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ps_vae.data import feature_moments, gather, load
from ps_vae.train.plan import Wishes
from ps_vae.vae.config import ModelConfig
from ps_vae.vae.initial import initial_weights
from ps_vae.vae.layout import ParameterLayout

__all__ = ["DATA", "INPUTS", "MODELS", "SPLIT", "Model", "write_job"]

DATA, SPLIT, INPUTS = "mnist-5k", "1,0,0", 784


@dataclass(frozen=True, slots=True)
class Model:
    """784 inputs, dense layers, a Bernoulli likelihood, Adam at 1e-3; pixels are binarised afresh each time.

    batch         rows of a step on one core; on two cores twice as many
    microbatches  rows of ours in further rows of the two-core table
    """

    hidden: tuple[int, ...]
    latent: int
    activation: str
    batch: int
    microbatches: tuple[int, ...]

    @property
    def config(self) -> ModelConfig:
        return ModelConfig(inputs=INPUTS, hidden=self.hidden, latent=self.latent, activation=self.activation)

    def layers(self) -> list[tuple[int, int]]:
        """(inputs, outputs) of each dense layer, encoder first."""
        return [tensor.shape for tensor in ParameterLayout(self.config) if len(tensor.shape) == 2]

    def wishes(self, batch: int, microbatch: int, consistency: str, steps: int, report_every: int) -> Wishes:
        """The same as a run of ours."""
        return Wishes(
            data=DATA,
            split=SPLIT,
            binarize="dynamic",
            hidden=self.hidden,
            latent=self.latent,
            activation=self.activation,
            batch_size=batch,
            microbatch=microbatch,
            consistency=consistency,
            steps=steps,
            checkpoint_every=steps,
            report_every=report_every,
        )


MODELS = {
    "relu": Model((400,), 20, "relu", 128, (64, 32, 16)),
    # Burda et al. (2016), one stochastic layer.
    "tanh": Model((200, 200), 50, "tanh", 100, (50, 25)),
}


def write_job(path: Path, model: Model, *, data: str = DATA, split: str = SPLIT, seed: int = 0) -> None:
    """Write the .npz file that `peers.job` describes; its weights are those that ours starts from with this seed."""
    train = load(data, split).train
    rows = gather(train, np.arange(len(train)), np.empty((len(train), INPUTS), np.float32))
    layout = ParameterLayout(model.config)
    weights = layout.views(initial_weights(layout, seed, feature_moments(train)))
    np.savez(path, rows=rows, activation=np.array(model.activation), **weights)
