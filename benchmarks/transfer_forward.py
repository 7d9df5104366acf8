"""What recording and transferring attention maps costs a model of Wan2.1-1.3B's shape: time and GPU memory, beside what
it cannot cost less.

    python benchmarks/transfer_forward.py [--grid 21 30 52] [--steps 4] [--repeats 5] [--folder /fast/disk]

Each row is a sampling run of some steps of one prompt, from its first forward pass until its store is whole, divided by
its steps; runs take turns with the plain run of as many videos, and ratios are medians of turns. A first run warms what
a second run in one process finds warm: page-locked RAM, compiled kernels, PyTorch's memory. Its own ratio is the column
"cold", with all page-locked RAM given back before it, and it is the run whose memory is measured. Two floors stand
beside the ratios: the operations that are left (a shared map needs one QK^T, and queries and keys of one row), and the
bytes that have to be moved at the speed of a plain copy from page-locked RAM, or of a plain write to the disk.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from wan_forward import DEVICE, WAN_1_3B, Forward, device_name, synchronize

from vdit_core.call import Interceptor
from vdit_core.maps.observer import MapObserver
from vdit_core.maps.wanted import Wanted
from vdit_core.recording.recorder import Recorder
from vdit_core.recording.store import AttentionStore
from vdit_core.recording.store.page_locked import POOL
from vdit_core.selection import Indices, LayerMask, Selection
from vdit_core.transfer import LiveTransfer, Transfer, TransferConfig

GIB = 2**30
TEXT = 512


@dataclass(frozen=True)
class Case:
    """One row. videos: in the batch. floor: the least ratio that operations leave. moved: GiB a step, "" or "RAM" or
    "disk" the way that they go."""

    name: str
    interceptors: Callable[[], tuple[Interceptor, ...]]
    videos: int = 1
    floor: float = 1.0
    moved: float = 0.0
    way: str = ""


def operations(tokens: int, shared: bool) -> float:
    """Multiplications and additions of a video's forward pass; `shared`: with a map that another video has computed."""
    heads, head_dim, ffn = (WAN_1_3B[name] for name in ("num_attention_heads", "attention_head_dim", "ffn_dim"))
    width = heads * head_dim
    projections = (2 if shared else 4) * 2 * tokens * width**2
    attention = (1 if shared else 2) * 2 * tokens**2 * width
    cross = 2 * 2 * tokens * width**2 + 2 * 2 * TEXT * width**2 + 2 * 2 * tokens * TEXT * width
    return projections + attention + cross + 2 * 2 * tokens * width * ffn


def live_floor(tokens: int, targets: int) -> float:
    own, shared = operations(tokens, False), operations(tokens, True)
    return (own + targets * shared) / ((1 + targets) * own)


def transfer_from(tier: str, quantization: str) -> str:
    """A row's name."""
    return f"transfer 3 layers from {tier}, {quantization}"


def recorded(forward: Forward, selection: Selection, steps: int, **options: object) -> AttentionStore:
    recorder = Recorder(selection, **options)
    forward.seconds(recorder, steps=steps)
    return recorder.take()


def copy_speed() -> float:
    """GiB a second, page-locked RAM to the GPU."""
    if DEVICE == "cpu":
        return float("inf")
    ram = torch.empty(GIB, dtype=torch.uint8, pin_memory=True)
    gpu = torch.empty_like(ram, device=DEVICE)
    return 1 / best(lambda: gpu.copy_(ram, non_blocking=True))


def write_speed(folder: Path | None) -> float:
    """GiB a second, written by one thread to a new file; what stays in the page cache counts as written."""
    data = memoryview(bytearray(GIB))

    def write() -> None:
        with tempfile.NamedTemporaryFile(dir=folder) as file:
            file.write(data)

    return 1 / best(write)


def best(work: Callable[[], object], times: int = 3) -> float:
    found = []
    for _ in range(times):
        synchronize()
        start = time.perf_counter()
        work()
        synchronize()
        found.append(time.perf_counter() - start)
    return min(found)


def first(run: Callable[[], float]) -> tuple[float, float]:
    """A run that finds nothing warm: its seconds, and GiB of GPU memory at most beyond what is there before."""
    POOL.trim()
    if DEVICE == "cpu":
        return run(), float("nan")
    synchronize()
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    seconds = run()
    return seconds, (torch.cuda.max_memory_allocated() - before) / GIB


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--grid", type=int, nargs=3, default=(21, 30, 52))
    parser.add_argument("--layers", type=int, default=30)
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--queries", type=int, nargs="+", default=[1024, 256], help="of statistics")
    parser.add_argument("--only", default="", help="rows whose name has this in it")
    options = parser.parse_args()
    torch.set_grad_enabled(False)
    forward, folder = Forward(options.grid, options.layers), options.folder
    frames, height, width = options.grid
    tokens = frames * height * width
    three, every = Selection(Indices("0-2")), Selection()
    few, all_layers = TransferConfig(LayerMask("0-2")), TransferConfig()
    entry = 2 * tokens * 12 * 128 * (2 if DEVICE == "cuda" else 4) / GIB
    pinned = ("pinned RAM",) if DEVICE == "cuda" else ()
    stores = {
        (tier, quantization): recorded(
            forward, three, options.steps, tier=tier, quantization=quantization, folder=folder
        )
        for tier in ("RAM", *pinned, "disk")
        for quantization in ("none", "int8")
        if options.only in transfer_from(tier, quantization)
    }

    def record(selection: Selection, tier: str, quantization: str = "none") -> Callable[[], tuple[Interceptor, ...]]:
        return lambda: (Recorder(selection, quantization, tier, folder=folder),)

    cases = [
        *(
            Case(
                f"record {layers} layers to {tier}{', int8' * (quantization == 'int8')}",
                record(selection, tier, quantization), moved=count * entry / (1 + (quantization == "int8")),
                way="disk" if tier == "disk" else "RAM",
            )
            for layers, selection, count in ((3, three, 3), ("all", every, options.layers))
            for tier in ("RAM", *pinned, "disk")
            for quantization in ("none", "int8")
        ),
        *(
            Case(
                transfer_from(tier, quantization), lambda store=store: (Transfer(store, few),),
                moved=3 * entry / (1 + (quantization == "int8")), way="RAM",
            )
            for (tier, quantization), store in stores.items()
        ),
        *(
            Case(
                f"live transfer, all layers, {n} target{'s' * (n > 1)}", lambda: (LiveTransfer(all_layers),), 1 + n,
                live_floor(tokens, n),
            )
            for n in (1, 2, 4)
        ),
        Case("statistics of all layers, as chosen", lambda: (MapObserver(every),)),
        *(
            Case(f"statistics of all layers, {queries} queries{name}",
                 lambda wanted=wanted, queries=queries: (MapObserver(every, wanted, min(queries, tokens)),))
            for queries in options.queries
            for name, wanted in (("", Wanted()), (", small", Wanted().small()))
        ),
    ]  # fmt: skip
    print(f"{device_name()}, {os.cpu_count()} cores; {frames} x {height} x {width} = {tokens:,} tokens, "
          f"{options.layers} layers, {options.steps} steps a run, {options.repeats} turns")  # fmt: skip
    speeds = {"RAM": copy_speed(), "disk": write_speed(folder), "": float("inf")}
    print(f"copies: {speeds['RAM']:.1f} GiB/s to the GPU, {speeds['disk']:.1f} GiB/s to the disk")
    print(f"{'':44}  plain ms  with ms  ratio   cold  floors: operations, bytes  plain GiB  more GiB")
    for case in (case for case in cases if options.only in case.name):

        def run(*interceptors: Interceptor, videos: int = case.videos) -> float:
            return forward.seconds(*interceptors, rows=videos, steps=options.steps)

        run()
        _, plain_peak = first(run)
        before = run()
        cold, changed_peak = first(lambda run=run, case=case: run(*case.interceptors()))
        turns = [(run(), run(*case.interceptors())) for _ in range(options.repeats)]
        plain, changed = (statistics.median(turn[side] for turn in turns) for side in (0, 1))
        ratio = statistics.median(after / before for before, after in turns)
        moving = case.moved / speeds[case.way] / plain
        print(
            f"{case.name:44}  {1000 * plain:8.0f}  {1000 * changed:7.0f}  {ratio:5.2f}  {cold / before:5.2f}  "
            f"{case.floor:18.2f}, {moving:5.2f}  {plain_peak:9.2f}  {changed_peak - plain_peak:8.2f}"
        )


if __name__ == "__main__":
    main()
