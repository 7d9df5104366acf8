"""Spreads a sweep's batches over a Ray cluster: they are independent, each brings its own source."""

from __future__ import annotations

import logging
import os
import socket
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from .checkpoint import SweepFolder
from .plan import AT_ONCE, SOURCE, Sweep, batches
from .run import Sample, keep, missing, sample_batch, together

_PATIENCE = 15  # seconds for a cluster to free what another job has just left


def run_on_ray(
    sweep: Sweep,
    make_sample: Callable[[], Sample],
    folder: SweepFolder | None = None,
    rows_per_batch: int | None = None,
    address: str = "auto",
    gpus: float = 0,
    done: dict[int, Tensor] | None = None,
    on_start: Callable[[int, Sequence[Sequence[int]]], None] | None = None,
    on_batch: Callable[[Sequence[int]], None] | None = None,
) -> Tensor:
    """As `run.run`, on the workers of a cluster that `ray start` started; this process writes the folder.

    Args:
        make_sample: makes a worker's sampler, called once in each worker: a function of an installed module, or a
            `functools.partial` of one. Every machine needs the same packages as this one.
        rows_per_batch: by default as few batches as keep every worker busy, of at most AT_ONCE videos.
        address: of the cluster's head, "host:port"; "auto" for the one on this machine. A process that is connected to
            Ray already uses that.
        gpus: of each worker; without any, a worker holds one CPU.
        on_start: is told how many workers there are, and the batches. on_batch: the videos of each finished batch.

    Raises:
        ConnectionError: if there is no cluster at the address, it has no room for a worker, or a worker dies.
        ModuleNotFoundError: without the package `ray`.
        ValueError: as the sampler says.
    """
    done = dict(done or {})
    if not (todo := missing(sweep, done)):
        return together(sweep, done)
    _use_token()
    import ray

    started = not ray.is_initialized()
    if started:
        _check_reachable(address)
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
    workers: list[Any] = []
    try:
        resource, each = ("GPU", gpus) if gpus else ("CPU", 1.0)
        room = _room(ray, resource, each)
        if rows_per_batch is None:
            rows_per_batch = min(AT_ONCE, 1 + max(1, -(-len(set(todo) - {SOURCE}) // room)))
        plan = batches(todo, rows_per_batch)
        need: dict[str, float] = {f"num_{resource.lower()}s": each}
        workers = [ray.remote(_Worker).options(**need).remote(sweep, make_sample) for _ in plan[:room]]
        if on_start:
            on_start(len(workers), plan)
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
    except ray.exceptions.RayError as error:
        why = str(error).strip().splitlines()[-1].strip()
        raise ConnectionError(
            f"A worker died ({type(error).__name__}: {why}). If it ran out of memory, use fewer rows per batch. "
            "Finished batches are kept; the same command goes on from them."
        ) from None
    finally:
        for worker in workers:
            ray.kill(worker)
        if started:
            ray.shutdown()
    return together(sweep, done)


def _use_token() -> None:
    """A cluster that was started where there is a token asks for it. Ray uses it by itself for the address "auto" only;
    a cluster without tokens does not mind one."""
    if (Path.home() / ".ray" / "auth_token").exists():
        os.environ.setdefault("RAY_AUTH_MODE", "token")


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


def _room(ray: Any, resource: str, each: float) -> int:
    """How many workers fit what is free; Ray itself would wait forever for room for the first."""
    end = time.monotonic() + _PATIENCE
    while (free := ray.available_resources().get(resource, 0)) < each:
        there = ray.cluster_resources().get(resource, 0)
        if there < each or time.monotonic() > end:
            raise ConnectionError(
                f"The cluster has no room for a worker: each needs {each:g} {resource}, {free:g} of {there:g} are "
                "free. Add a machine that has one (ray start --address=...), or wait for other work to end."
            )
        time.sleep(0.5)
    return int(free // each)


class _Worker:
    """What runs in a worker: one sampler for all the batches it is given."""

    def __init__(self, sweep: Sweep, make_sample: Callable[[], Sample]) -> None:
        self.sweep, self.sample_one = sweep, make_sample()

    def sample(self, batch: Sequence[int]) -> Tensor:
        return sample_batch(self.sweep, batch, self.sample_one)
