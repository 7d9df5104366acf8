"""What measuring sinks costs a model of Wan2.1-1.3B's shape (random weights), through the diffusers host.

    python benchmarks/sink_statistics.py [--grid 21 30 52] [--every 5] [--repeats 7]

Times forward passes as they are and with the sinks of every layer measured, in turns. Prints the share that measuring
at every so many steps adds to a sampling run, and what the record of 50 steps, both prompts, weighs.
"""

from __future__ import annotations

import argparse
import statistics

import torch
from wan_forward import Forward, device_name

from vdit_core.sinks.observer import QUERIES, SinkObserver

STEPS, BRANCHES = 50, 2


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--grid", type=int, nargs=3, default=(21, 30, 52))
    parser.add_argument("--every", type=int, default=5)
    parser.add_argument("--queries", type=int, default=QUERIES)
    parser.add_argument("--repeats", type=int, default=7)
    options = parser.parse_args()
    torch.set_grad_enabled(False)
    forward, observer = Forward(options.grid), SinkObserver(queries=options.queries)
    for warm in ([], [observer], [observer]):
        forward.seconds(*warm)
    turns = [(forward.seconds(), forward.seconds(observer)) for _ in range(options.repeats)]
    plain, measured = (statistics.median(turn[side] for turn in turns) for side in (0, 1))
    added = statistics.median((after - before) / before for before, after in turns) / options.every
    weight = observer.record.nbytes * BRANCHES * len(range(0, STEPS, options.every))
    frames, height, width = options.grid
    print(
        f"{device_name()}; {frames} x {height} x {width} = {frames * height * width} tokens: "
        f"{1000 * plain:.0f} ms plain, {1000 * measured:.0f} ms with all layers measured ({options.queries} queries); "
        f"at every {options.every}th step {added:.1%} more; {STEPS} steps, {BRANCHES} prompts: {weight / 2**20:.0f} MiB"
    )


if __name__ == "__main__":
    main()
