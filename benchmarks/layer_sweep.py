"""What a layer sweep costs, counted in plain generations of one video, on the demo model.

    .venv/bin/python benchmarks/layer_sweep.py [--steps 30] [--rounds 1] [--rows-per-batch 8]

Generates one video (sampled and decoded), sweeps all layers (sampled, decoded, scored), and one video again, in one
process. Prints seconds by the clock and of this process's CPU time, and the ratios: on a busy machine trust the latter
(it is the same with one thread).
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch

from vdit_core.demo import sweep as demo
from vdit_core.demo.model import DemoModel
from vdit_core.sweep.plan import AT_ONCE, batches
from vdit_core.sweep.run import run
from vdit_core.sweep.scores import measure


def seconds(work: Callable[[], object]) -> tuple[float, float]:
    """By the clock, and of CPU time."""
    clock, cpu = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - clock, time.process_time() - cpu


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--rows-per-batch", type=int, default=AT_ONCE)
    options = parser.parse_args()
    torch.set_grad_enabled(False)
    model = DemoModel.load()
    source, target = "A car is driving on the highway", "A car is driving on the highway in the winter"
    plan = demo.plan(model, source, target, steps=options.steps)

    def sweep() -> None:
        sampler = demo.sampler(model, steps=options.steps)
        measure(plan, demo.decode(model, run(plan, sampler, rows_per_batch=options.rows_per_batch)))

    def plain() -> None:
        model.generate([source], [1], steps=options.steps)

    sampled = sum(map(len, batches(range(plan.layers + 2), options.rows_per_batch)))
    print(f"{sampled} videos are sampled, {options.rows_per_batch} in a batch at most")
    plain()  # the first is slower
    rounds = [(seconds(plain), seconds(sweep), seconds(plain)) for _ in range(options.rounds)]
    for kind, name in enumerate(("clock", "CPU")):
        ones = [(before[kind] + after[kind]) / 2 for before, _, after in rounds]
        swept = [whole[kind] for _, whole, _ in rounds]
        ratio = statistics.median(s / one for s, one in zip(swept, ones, strict=True))
        print(
            f"{name}: one video {statistics.median(ones):.2f} s, sweep of {plan.layers} layers "
            f"{statistics.median(swept):.2f} s, ratio {ratio:.2f} ({torch.get_num_threads()} threads)"
        )


if __name__ == "__main__":
    main()
