"""What the statistics of a layer's maps cost on a GPU, against that layer's attention.

    python benchmarks/map_statistics.py [--grid 21 30 52] [--heads 12] [--queries 1024 ...] [--kernels] [--plain]
    python benchmarks/map_statistics.py --profile [--queries 1024 512 256] [--top .1] [--top-queries 128] [--pooled 512]

Prints medians of the wall time over `--repeats`, in one table: the fastest of PyTorch's attention backends;
`map_statistics` with all its figures, exact and sampled (the transfer to the CPU included); the enlarged part of a map
that Attention Structure draws, once for all calls; and a recording's call as that node and `vdit structure` take it,
its queries and keys brought from the CPU. With the GPU memory each took beside what was there. `--kernels` also prints
what each GPU kernel took; `--plain` is without this pack's kernels.

`--profile` is for who makes them faster. Of a call as `MapObserver` makes it, whole and with small figures only, for
each number of queries: what its GPU kernels take and how many there are, how long the CPU is busy with it before it
goes on, and what a call takes in a row of many; then the kernels that take longest.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention

sys.path.insert(0, str(Path(__file__).parents[1]))

from vdit_core.call import ModelSignature, TokenGrid
from vdit_core.maps import gpu
from vdit_core.maps.crop import map_crop
from vdit_core.maps.observer import from_store
from vdit_core.maps.pending import Queue
from vdit_core.maps.statistics import Plan, map_statistics
from vdit_core.maps.view import choose_crop
from vdit_core.maps.wanted import Wanted
from vdit_core.recording.store import AttentionStore, Evaluation, Header, Key

BACKENDS = (SDPBackend.CUDNN_ATTENTION, SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION)


def milliseconds(run: Callable[[], object], repeats: int) -> tuple[float, float, float]:
    """Quartiles."""
    for _ in range(min(3, repeats)):
        run()
    taken = []
    for _ in range(repeats):
        torch.cuda.synchronize()
        begin = time.perf_counter()
        run()
        torch.cuda.synchronize()
        taken.append(1000 * (time.perf_counter() - begin))
    low, middle, high = statistics.quantiles(taken, n=4)
    return low, middle, high


def attention(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, repeats: int
) -> tuple[str, tuple[float, float, float]]:
    """The fastest backend and its times."""
    found = {}
    for backend in BACKENDS:
        with sdpa_kernel(backend):
            try:
                found[backend.name] = milliseconds(lambda: scaled_dot_product_attention(q, k, v), repeats)
            except RuntimeError:
                continue  # this backend cannot do it here
    return min(found.items(), key=lambda item: item[1][1])


def extra_memory(run: Callable[[], object]) -> float:
    """The peak beside what was there before, MB."""
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    run()
    return (torch.cuda.max_memory_allocated() - before) / 1e6


def profiled(run: Callable[[], object]) -> torch.profiler.profile:
    run()
    torch.cuda.synchronize()
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
        run()
        torch.cuda.synchronize()
    return profile


def kernels(run: Callable[[], object], rows: int = 14) -> str:
    return profiled(run).key_averages().table(sort_by="cuda_time_total", row_limit=rows, max_name_column_width=60)


def on_the_gpu(run: Callable[[], object]) -> tuple[float, int, list[tuple[str, float, int]]]:
    """Milliseconds of all kernels and copies of a run, how many there are, and of each name its part of both."""
    found = [
        (event.key, event.self_device_time_total / 1000, event.count)
        for event in profiled(run).key_averages()
        if event.device_type == torch.autograd.DeviceType.CUDA
    ]
    found.sort(key=lambda row: -row[1])
    return sum(row[1] for row in found), sum(row[2] for row in found), found


def busy(plan: Plan, q: torch.Tensor, k: torch.Tensor, repeats: int) -> float:
    """Milliseconds, median, until the CPU goes on after it has begun with a call's statistics."""
    taken = []
    for _ in range(repeats):
        torch.cuda.synchronize()
        begin = time.perf_counter()
        coming = plan.start(q, k)
        taken.append(1000 * (time.perf_counter() - begin))
        coming.result()
    return statistics.median(taken)


def in_a_row(plan: Plan, q: torch.Tensor, k: torch.Tensor, calls: int) -> None:
    """As a run has them: results are taken a few calls late."""
    queue = Queue(lambda *_: None)
    for n in range(calls):
        queue.add(n, plan.start(q, k))
    queue.settle()


def profile(q: torch.Tensor, k: torch.Tensor, grid: TokenGrid, options: argparse.Namespace, fastest: float) -> None:
    """One line for each number of queries, whole and small; then the kernels of each."""
    whole = Wanted(options.pooled or None, tuple(options.top), options.top_queries or None)
    print("| statistics | GPU, ms | of the attention | launches | CPU busy, ms | in a row, ms | alone, ms |")
    print("|---|---|---|---|---|---|---|")
    parts = {}
    for count in options.queries:
        for kind, wanted in (("whole", whole), ("small", whole.small())):
            plan, name = Plan(grid, wanted, count), f"{count} queries, {kind}"
            alone = milliseconds(lambda plan=plan: plan.start(q, k).result(), options.repeats)[1]
            row = milliseconds(lambda plan=plan: in_a_row(plan, q, k, 10), max(3, options.repeats // 5))[1] / 10
            gpu_ms, launches, parts[name] = on_the_gpu(lambda plan=plan: plan.start(q, k).result())
            cpu_ms = busy(plan, q, k, options.repeats)
            figures = f"{gpu_ms:.2f} | {gpu_ms / fastest:.2f} | {launches} | {cpu_ms:.2f} | {row:.2f} | {alone:.2f}"
            print(f"| {name} | {figures} |", flush=True)
    for name, found in parts.items():
        print(f"\n{name}: kernels that take longest\n\n| kernel | ms | launches |\n|---|---|---|")
        for kernel, taken, count in found[:16]:
            print(f"| {kernel[:90]} | {taken:.3f} | {count} |")


def recording(q: torch.Tensor, k: torch.Tensor, grid: TokenGrid, quantization: str) -> AttentionStore:
    """One call, in the CPU's memory."""
    heads, dim = q.shape[1], q.shape[-1]
    store = AttentionStore(
        Header(ModelSignature(1, heads, dim), grid, (1.0,), tuple(range(heads)), 1, quantization, "bfloat16")
    )
    store.put(Key(Evaluation(1.0), "cond", 0), q, k)
    store.finish()
    return store


def work(q: torch.Tensor, k: torch.Tensor, grid: TokenGrid, queries: list[int]) -> dict[str, Callable[[], object]]:
    """What is measured, by name."""
    modes = {"exact": None} | {f"{count} queries": count for count in queries}
    jobs: dict[str, Callable[[], object]] = {
        f"statistics, {name}": lambda count=count: map_statistics(q, k, grid, queries=count)
        for name, count in modes.items()
    }
    window = choose_crop(grid)
    jobs[f"a part of the map, {window.rows[1] - window.rows[0]} tokens square"] = lambda: map_crop(q, k, window)
    for quantization in ("none", "int8"):
        store = recording(q, k, grid, quantization)
        for name, count in modes.items():
            jobs[f"from a recording ({quantization}), {name}"] = lambda store=store, count=count: from_store(
                store, queries=count, device="cuda"
            )
    return jobs


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--grid", type=int, nargs=3, default=(21, 30, 52))
    parser.add_argument("--heads", type=int, default=12)
    parser.add_argument("--queries", type=int, nargs="+")
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--kernels", action="store_true")
    parser.add_argument("--plain", action="store_true")
    parser.add_argument("--profile", action="store_true")
    parser.add_argument("--top", type=float, nargs="*", default=Wanted.top)
    parser.add_argument("--top-queries", type=int, default=Wanted.top_queries, help="0: all that are sampled")
    parser.add_argument("--pooled", type=int, default=Wanted.pooled, help="0: none")
    options = parser.parse_args()
    options.queries = options.queries or ([1024, 512, 256] if options.profile else [1024])
    if options.plain:
        gpu.kernels_for = lambda *_: None
    grid = TokenGrid(*options.grid)
    generator = torch.Generator("cuda").manual_seed(0)
    shape = 3, 1, options.heads, grid.tokens, 128
    q, k, v = torch.randn(shape, generator=generator, device="cuda").bfloat16().unbind(0)

    backend, (low, fastest, high) = attention(q, k, v, options.repeats)
    print(f"{torch.cuda.get_device_name()}, torch {torch.__version__}; {grid}, {options.heads} heads, bfloat16\n")
    if options.profile:
        print(f"attention, {backend}: {fastest:.2f} ms ({low:.2f} to {high:.2f})\n")
        profile(q, k, grid, options, fastest)
        return
    print("| | ms, median (quartiles) | of the attention call | memory, MB |\n|---|---|---|---|")
    print(f"| attention, {backend} | {fastest:.2f} ({low:.2f} to {high:.2f}) | 1 | |")
    jobs = work(q, k, grid, options.queries)
    for name, some in jobs.items():
        low, middle, high = milliseconds(some, options.repeats)
        took = f"{middle:.2f} ({low:.2f} to {high:.2f}) | {middle / fastest:.2f}"
        print(f"| {name} | {took} | {extra_memory(some):.0f} |", flush=True)
    if options.kernels:
        for name, some in jobs.items():
            print(name, kernels(some), sep="\n")


if __name__ == "__main__":
    main()
