"""PyTorch's all-reduce over gloo between two processes: what DDP does with a gradient in each step.

    python -m exchange.all_reduce --rank 0 --store tcp://127.0.0.1:29500 --interface lo
    python -m exchange.all_reduce --rank 1 ...

order {"size", "count"} to both; both answer {"ns": nanoseconds of each}.
"""

import argparse
import functools
import os

from exchange.turns import Orders, answer, timed

__all__ = ["take_part"]


def take_part(rank: int, store: str) -> None:
    """Reduce as ordered, until the orders end."""
    import torch
    import torch.distributed as distributed

    torch.set_num_threads(1)
    distributed.init_process_group("gloo", init_method=store, rank=rank, world_size=2)
    answer({"torch": torch.__version__})
    orders = Orders()
    while (order := orders.wait()) is not None:
        gradient = torch.zeros(order["size"])
        answer({"ns": timed(functools.partial(distributed.all_reduce, gradient), order["count"])})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rank", type=int, choices=(0, 1), required=True)
    parser.add_argument("--store", required=True, help="where rank 0 listens, for the two to find each other")
    parser.add_argument("--interface", default="lo")
    words = parser.parse_args()
    # gloo looks the host's name up, unless it is told which interface to use.
    os.environ["GLOO_SOCKET_IFNAME"] = words.interface
    take_part(words.rank, words.store)


if __name__ == "__main__":
    main()
