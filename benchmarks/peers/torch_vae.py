"""PyTorch in eager mode, on one process.

    python -m peers.torch_vae --job job.npz --batch 256 --threads 2

As its documentation says: gradients are set to None and not to zero, losses are not looked at in every step, the
number of threads is that of the cores (docs.pytorch.org, "Performance Tuning Guide"); Adam is the fused one, which is
said to be the fastest ("torch.optim.Adam"; a step of batch 128 takes 0.65 of the time with the CPU's default); the loss
takes logits ("torch.nn.functional.binary_cross_entropy_with_logits"). Data are one tensor in memory, indexed by a
permutation: a DataLoader, which collates row by row, is slower.
"""

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import nn
from torch.nn import functional

from peers.job import Job, answer, measure, parser, read_job

__all__ = ["TorchVae", "binarised", "fused_adam", "trained_weights"]


class TorchVae(nn.Module):
    """The job's model, with the job's weights; called with a batch of 0 and 1 it gives the mean of -ELBO."""

    def __init__(self, job: Job) -> None:
        super().__init__()
        self.encoder = _network(job, job.encoder)
        self.decoder = _network(job, job.decoder)

    def forward(self, batch: torch.Tensor) -> torch.Tensor:
        mean, log_variance = self.encoder(batch).chunk(2, dim=1)
        z = mean + torch.exp(0.5 * log_variance) * torch.randn_like(mean)
        reconstruction = functional.binary_cross_entropy_with_logits(self.decoder(z), batch, reduction="sum")
        divergence = 0.5 * torch.sum(mean.pow(2) + log_variance.exp() - 1 - log_variance)
        return (reconstruction + divergence) / len(batch)


def fused_adam(model: nn.Module) -> torch.optim.Adam:
    """Adam with one kernel for all of the update."""
    return torch.optim.Adam(model.parameters(), lr=1e-3, fused=True)


def binarised(rows: torch.Tensor) -> torch.Tensor:
    """1 with the grey value as probability; quicker than torch.bernoulli."""
    return (torch.rand_like(rows) < rows).float()


def trained_weights(model: TorchVae, job: Job) -> dict[str, npt.NDArray[np.float32]]:
    """The model's weights under the job's names and in its shapes."""
    found = {}
    for network, names in ((model.encoder, job.encoder), (model.decoder, job.decoder)):
        layers = [layer for layer in network if isinstance(layer, nn.Linear)]
        for name, layer in zip(names, layers, strict=True):
            found[f"{name}.weight"] = layer.weight.detach().numpy().T.copy()
            found[f"{name}.bias"] = layer.bias.detach().numpy().copy()
    return found


def eager(job: Job, batch: int) -> Callable[[int], Sequence[float]]:
    """What trains so many further steps."""
    rows = torch.from_numpy(job.rows)
    model = TorchVae(job).train()
    optimizer = fused_adam(model)
    batches = len(rows) // batch
    steps_done, order = 0, torch.empty(0)

    def run(steps: int) -> Sequence[float]:
        nonlocal steps_done, order
        losses = []
        for index in range(steps_done, steps_done + steps):
            if index % batches == 0:
                order = torch.randperm(len(rows))[: batches * batch].view(batches, batch)
            optimizer.zero_grad(set_to_none=True)
            loss = model(binarised(rows[order[index % batches]]))
            loss.backward()
            optimizer.step()
            losses.append(loss.detach())
        steps_done += steps
        return torch.stack(losses).tolist()

    return run


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("--threads", type=int, default=1)
    words = arguments.parse_args()
    torch.manual_seed(0)
    torch.set_num_threads(words.threads)
    answer(measure(eager(read_job(words.job), words.batch), words.batch, words.seconds, words.least))


def _network(job: Job, names: list[str]) -> nn.Sequential:
    layers: list[nn.Module] = []
    for name in names:
        weight, bias = torch.from_numpy(job.weights[f"{name}.weight"]), torch.from_numpy(job.weights[f"{name}.bias"])
        layer = nn.Linear(*weight.shape)
        with torch.no_grad():
            layer.weight.copy_(weight.T)
            layer.bias.copy_(bias)
        layers += [layer, {"relu": nn.ReLU, "tanh": nn.Tanh}[job.activation]()]
    return nn.Sequential(*layers[:-1])


if __name__ == "__main__":
    main()
