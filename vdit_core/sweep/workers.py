"""Spreads a sweep's batches over a Ray cluster: they are independent, each brings its own source."""

from __future__ import annotations

import logging
import socket
from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor

from .folder import SweepFolder
from .plan import SOURCE, Sweep, batches
from .run import Sample, keep, missing, sample_batch, together


def run_on_ray(
    sweep: Sweep,
    make_sample: Callable[[], Sample],
    folder: SweepFolder | None = None,
    rows_per_batch: int | None = None,
    address: str = "auto",
    gpus: float = 0,
    say: Callable[[str], None] | None = None,
    on_batch: Callable[[Sequence[int]], None] | None = None,
) -> Tensor:
    """As `run.run`, on the workers of a cluster that `ray start` started; this process writes the folder.

    Args:
        make_sample: makes a worker's sampler, called once in each worker: a function of an installed module, or a
            `functools.partial` of one. Every machine needs the same packages as this one.
        rows_per_batch: by default as few batches as keep every worker busy.
        address: of the cluster's head, "host:port"; "auto" for the one on this machine. A process that is connected to
            Ray already uses that.
        gpus: of each worker; without any, a worker holds one CPU.
        on_batch: is told the videos of each finished batch.

    Raises:
        ConnectionError: if there is no cluster at the address.
        ModuleNotFoundError: without the package `ray`.
        FolderError: if the folder holds another sweep.
    """
    import ray

    done = folder.load(say) if folder else {}
    todo = missing(sweep, done)
    started = not ray.is_initialized()
    if started:
        _check_reachable(address)
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
    workers: list[Any] = []
    try:
        have = ray.cluster_resources()
        count = max(1, int(have.get("GPU", 0) / gpus if gpus else have.get("CPU", 1)))
        if rows_per_batch is None:
            rows_per_batch = 1 + max(1, -(-len(set(todo) - {SOURCE}) // count))
        plan = batches(todo, rows_per_batch)
        resources: dict[str, float] = {"num_gpus": gpus} if gpus else {"num_cpus": 1}
        workers = [ray.remote(_Worker).options(**resources).remote(sweep, make_sample) for _ in plan[:count]]
        running: dict[Any, tuple[Any, tuple[int, ...]]] = {}
        idle, waiting = list(workers), list(plan)
        while waiting or running:
            while idle and waiting:
                worker, batch = idle.pop(), waiting.pop(0)
                running[worker.sample.remote(batch)] = worker, batch
            (ready, *_), _ = ray.wait(list(running), num_returns=1)
            worker, batch = running.pop(ready)
            done |= keep(sweep, batch, ray.get(ready), done, folder)
            idle.append(worker)
            if on_batch:
                on_batch(batch)
    except ray.exceptions.RayTaskError as error:
        raise error.as_instanceof_cause() from None
    finally:
        for worker in workers:
            ray.kill(worker)
        if started:
            ray.shutdown()
    return together(sweep, done)


def _check_reachable(address: str) -> None:
    """Ray itself waits for minutes for a head that is not there."""
    host, colon, port = address.rpartition(":")
    if not colon or not port.isdigit() or "://" in address:
        return
    try:
        socket.create_connection((host, int(port)), timeout=10).close()
    except OSError as error:
        raise ConnectionError(
            f"There is no Ray cluster at {address} ({error}). Start one: ray start --head, and ray start --address=..."
        ) from None


class _Worker:
    """What runs in a worker: one sampler for all the batches it is given."""

    def __init__(self, sweep: Sweep, make_sample: Callable[[], Sample]) -> None:
        self.sweep, self.sample_one = sweep, make_sample()

    def sample(self, batch: Sequence[int]) -> Tensor:
        return sample_batch(self.sweep, batch, self.sample_one)
