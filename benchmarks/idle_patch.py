"""What an idle patch costs: sampling in ComfyUI with a transfer of no layer, against the stock model.

    ~/comfy/ComfyUI/.venv/bin/python benchmarks/idle_patch.py ~/comfy/ComfyUI [--pairs 15] [--size 256]

Runs stock and patched in turns on the demo model, changing who goes first, and prints the median of the ratios of each
turn with its quartiles. `--size` is the picture's edge in pixels; a step of the real models is longer, so the same
microseconds weigh less.
"""

from __future__ import annotations

import argparse
import importlib.util
import statistics
import sys
import time
from pathlib import Path

PACK = Path(__file__).parents[1]
STEPS = 4


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("comfyui", type=Path)
    parser.add_argument("--pairs", type=int, default=15)
    parser.add_argument("--size", type=int, default=256)
    options = parser.parse_args()
    sys.argv = ["main.py"]
    sys.path.insert(0, str(options.comfyui))

    import torch
    from comfy.cli_args import args

    args.cpu = not torch.cuda.is_available()

    import comfy.sample

    spec = importlib.util.spec_from_file_location("pack", PACK / "__init__.py", submodule_search_locations=[str(PACK)])
    sys.modules["pack"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(sys.modules["pack"])

    from pack.vdit_core.hosts import comfy as host
    from pack.vdit_core.hosts.comfy import demo as comfy_demo
    from pack.vdit_core.selection import LayerMask
    from pack.vdit_core.transfer import LiveTransfer, TransferConfig

    stock, clip, _ = comfy_demo.load()
    models = {"stock": stock, "patched": host.attach(stock, LiveTransfer(TransferConfig(LayerMask("none"))))}
    prompt, nothing = (clip.encode_from_tokens_scheduled(clip.tokenize(t)) for t in ("a red car", ""))
    latent = torch.zeros(1, 16, 5, options.size // 8, options.size // 8)
    noise = torch.randn(latent.shape, generator=torch.Generator().manual_seed(0))

    def seconds(model: object) -> float:
        begin = time.perf_counter()
        comfy.sample.sample(model, noise, STEPS, 5.0, "euler", "simple", prompt, nothing, latent, disable_pbar=True)
        return time.perf_counter() - begin

    with torch.inference_mode():
        for model in models.values():
            seconds(model)
        ratios, times = [], []
        for turn in range(options.pairs):
            order = list(models) if turn % 2 else list(models)[::-1]
            taken = {name: seconds(models[name]) for name in order}
            ratios.append(taken["patched"] / taken["stock"])
            times.append(taken["stock"])
    low, middle, high = statistics.quantiles(ratios, n=4)
    tokens = 5 * (options.size // 16) ** 2
    print(
        f"{tokens} tokens, {STEPS} steps, stock {statistics.median(times):.3f} s; patched / stock {middle:.4f} "
        f"(quartiles {low:.4f} to {high:.4f}, {options.pairs} turns)"
    )


if __name__ == "__main__":
    main()
