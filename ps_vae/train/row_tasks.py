"""A task on rows of a trained model, a few rows at a time, spread over processes of this machine."""

import multiprocessing
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from ps_vae.errors import PsVaeError
from ps_vae.train.arithmetic import use_one_thread
from ps_vae.train.processes import prepare_environment
from ps_vae.train.trained import TrainedModel
from ps_vae.train.warm_up import warm_up_evidence

__all__ = ["over_rows", "spans"]

_ROWS_A_TASK = 20

Made = TypeVar("Made")


def over_rows(
    model: TrainedModel,
    count: int,
    task: Callable[..., Made],
    *arguments: Any,
    processes: int,
    progress: Callable[[int, int], None],
) -> list[Made]:
    """task(model, start, stop, *arguments) for a few of `count` rows after the other, in their order.

    task      a function of a module: other processes import it
    progress  called with rows done and rows in all

    Raises PsVaeError where a process is killed.
    """
    parts = list(spans(count, _ROWS_A_TASK))
    done, made = 0, []
    prepare_environment()
    # Here, where there is somebody to tell; the processes then find the kernels in the cache.
    warm_up_evidence(model.parameters)
    # Fresh interpreters: BLAS has to be told its threads and kernels before it is loaded.
    fresh = multiprocessing.get_context("spawn")
    try:
        with ProcessPoolExecutor(processes, fresh, _open_in_child, (str(model.run_dir), model.version)) as pool:
            for (start, stop), part in zip(parts, pool.map(partial(_in_child, task, arguments), parts), strict=True):
                made.append(part)
                done += stop - start
                progress(done, count)
    except BrokenProcessPool:
        raise PsVaeError("an evaluating process was killed (out of memory?); give fewer --processes") from None
    return made


def spans(count: int, size: int) -> Iterator[tuple[int, int]]:
    """[start, stop) of each `size` of `count` rows; the last may be fewer."""
    return ((start, min(start + size, count)) for start in range(0, count, size))


_child: dict[str, TrainedModel] = {}


def _open_in_child(run_dir: str, version: int) -> None:
    use_one_thread()
    _child["model"] = TrainedModel.open(Path(run_dir), version=version, say=lambda text: None)


def _in_child(task: Callable[..., Made], arguments: tuple[Any, ...], span: tuple[int, int]) -> Made:
    return task(_child["model"], *span, *arguments)
