"""What an artist gets: the pack in the real ComfyUI, on a model of Wan2.1-1.3B's shape with random weights.

    python benchmarks/comfy_forward.py ~/comfy/ComfyUI [--grid 21 30 52] [--steps 4] [--turns 3] [--only recording]

ComfyUI's own loader, sampler and attention, without its server. Each row is a sampling run of some steps, from its
start until its store is whole; runs take turns with the plain run of as many videos, and ratios are medians of turns. A
first turn is not counted: it builds kernels and locks pages, as the first run of a session does.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

TOKENS_OF_TEXT, TEXT_WIDTH = 512, 4096
SEED = 7


@dataclass(frozen=True)
class Row:
    """editors: made anew for each run, given to the model in this order. videos: in the batch."""

    name: str
    editors: Callable[[], tuple]
    videos: int = 1
    unchanged: bool = False  # the latents must be the plain run's, bit for bit


def options_of(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("comfyui", type=Path)
    parser.add_argument("--grid", type=int, nargs=3, default=(21, 30, 52))
    parser.add_argument("--layers", type=int, default=30)
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--only", nargs="+", default=[""], help="rows whose names have one of these in them")
    parser.add_argument("--cpu", action="store_true", help="for a quick look, with a small grid and few layers")
    return parser.parse_args(arguments)


def main() -> None:
    options = options_of(sys.argv[1:])
    sys.argv = sys.argv[:1]  # ComfyUI would read its own options from there
    sys.path[:0] = [str(options.comfyui)]
    import utils.extra_config  # noqa: F401  before anything of ComfyUI imports another package called utils
    from comfy.cli_args import args

    args.cpu = options.cpu
    sys.path.append(str(Path(__file__).parents[1]))
    import comfy.ldm.wan.model as wan
    import comfy.ops
    import comfy.sample
    import comfy.sd
    import torch

    from vdit_core.hosts import comfy as host
    from vdit_core.maps.observer import MapObserver
    from vdit_core.recording.recorder import Recorder
    from vdit_core.selection import Indices, LayerMask, Selection
    from vdit_core.sparse.config import SparseConfig
    from vdit_core.sparse.sparse_attention import SparseAttention
    from vdit_core.transfer import LiveTransfer, Transfer, TransferConfig

    on_gpu = torch.cuda.is_available() and not options.cpu
    dtype = torch.bfloat16 if on_gpu else torch.float32
    shape = {"dim": 1536, "ffn_dim": 8960, "num_heads": 12} if on_gpu else {"dim": 256, "ffn_dim": 512, "num_heads": 2}
    with torch.device("meta"):
        empty = wan.WanModel(
            model_type="t2v", in_dim=16, out_dim=16, freq_dim=256, num_layers=options.layers, text_dim=TEXT_WIDTH,
            operations=comfy.ops.disable_weight_init, dtype=dtype, **shape,
        )  # fmt: skip
    generator = torch.Generator().manual_seed(0)
    model = comfy.sd.load_diffusion_model_state_dict(
        {name: (torch.randn(x.shape, generator=generator) * 0.02).to(dtype) for name, x in empty.state_dict().items()}
    )
    frames, height, width = options.grid
    noise = torch.randn(1, 16, frames, 2 * height, 2 * width, generator=generator)
    prompts = [torch.randn(1, TOKENS_OF_TEXT, TEXT_WIDTH, generator=generator) for _ in range(3)]

    def synchronize() -> None:
        if on_gpu:
            torch.cuda.synchronize()

    def run(editors: tuple, videos: int) -> tuple[torch.Tensor, float]:
        patched = model
        for editor in editors:
            patched = host.attach(patched, editor)
        positive, negative = [[torch.cat(prompts[:videos]), {}]], [[prompts[2], {}]]
        latents = noise.repeat(videos, 1, 1, 1, 1)
        synchronize()
        start = time.perf_counter()
        with torch.inference_mode():
            found = comfy.sample.sample(
                patched, latents, options.steps, 1.0, "euler", "simple", positive, negative, torch.zeros_like(latents),
                disable_pbar=True, seed=SEED,
            )  # fmt: skip
        synchronize()
        return found, (time.perf_counter() - start) / options.steps

    three, several = Selection(Indices("0-2")), LayerMask("0-2")
    tiers = ("RAM", "pinned RAM", "disk") if on_gpu else ("RAM", "disk")
    recorder = Recorder(three)
    run((recorder,), 1)
    store = recorder.take()
    tokens = {} if on_gpu else {"minimum_tokens": 0}

    def sparse(**more: object) -> tuple[SparseAttention]:
        dense = LayerMask("0-1")
        return (SparseAttention(SparseConfig(density=0.2, dense_layers=dense, dense_first=0.0, **tokens, **more)),)

    rows = [
        Row("the same twice", lambda: (), unchanged=True),
        Row("a transfer of no layer", lambda: (Transfer(store, TransferConfig(LayerMask("none"))),), unchanged=True),
        *(
            Row(f"recording 3 layers, {tier}", lambda tier=tier: (Recorder(three, tier=tier),), unchanged=True)
            for tier in tiers
        ),
        Row("recording 3 layers, RAM, int8", lambda: (Recorder(three, "int8"),), unchanged=True),
        Row("transfer of 3 layers, from RAM", lambda: (Transfer(store, TransferConfig(several)),)),
        Row("live transfer, all layers, 1 target", lambda: (LiveTransfer(TransferConfig()),), videos=2),
        Row("sparse attention, 20 %, 2 layers dense", sparse),
        Row("sparse attention, 20 %, published profile", lambda: sparse(preset="auto")),
        Row("statistics of all layers, as chosen", lambda: (MapObserver(),), unchanged=True),
    ]
    device = torch.cuda.get_device_name() if on_gpu else "CPU"
    print(f"{device}, torch {torch.__version__}; {frames} x {height} x {width} = {frames * height * width:,} tokens, "
          f"{options.layers} layers, {options.steps} steps a run, {options.turns} turns")  # fmt: skip
    print("| what | plain, ms a step | with it | ratio | the first time |\n|---|---|---|---|---|")
    for row in (row for row in rows if any(part in row.name for part in options.only)):
        turns = []
        for _ in range(options.turns + 1):
            plain, before = run((), row.videos)
            changed, after = run(row.editors(), row.videos)
            turns.append((before, after))
            if row.unchanged and not torch.equal(plain, changed):
                raise SystemExit(f"{row.name}: the latents are not those of the plain run")
        ratio = statistics.median(after / before for before, after in turns[1:])
        times = [1000 * statistics.median(turn[side] for turn in turns[1:]) for side in (0, 1)]
        first = turns[0][1] / times[0] * 1000
        print(f"| {row.name} | {times[0]:.0f} | {times[1]:.0f} | {ratio:.3f} | {first:.2f} |", flush=True)


if __name__ == "__main__":
    main()
