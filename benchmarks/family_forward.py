"""Models of other families in the real ComfyUI, of their real width and size and a few of their layers.

What a sampling step takes with the pack's nodes, over what it takes without:

    python benchmarks/family_forward.py ~/comfy/ComfyUI [--tiny]

Weights are random, so this says nothing of videos. Start it with ComfyUI's Python; --tiny tries the script on a CPU.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

CHECKOUT, TINY = sys.argv[1], "--tiny" in sys.argv
sys.argv = ["main.py"]
sys.path[:0] = [CHECKOUT, str(Path(__file__).parents[1])]

import utils.extra_config  # noqa: E402, F401 - as main.py does, before another package of that name
from comfy.cli_args import args  # noqa: E402

args.cpu = TINY

import comfy.model_management  # noqa: E402
import comfy.model_patcher  # noqa: E402
import comfy.nested_tensor  # noqa: E402
import comfy.ops  # noqa: E402
import comfy.sample  # noqa: E402
import comfy.supported_models as known  # noqa: E402
import torch  # noqa: E402

from vdit_core.hosts import comfy as host  # noqa: E402
from vdit_core.recording.recorder import Recorder  # noqa: E402
from vdit_core.selection import Indices, Selection  # noqa: E402
from vdit_core.sparse.config import SparseConfig  # noqa: E402
from vdit_core.sparse.sparse_attention import SparseAttention  # noqa: E402
from vdit_core.transfer import LiveTransfer, Transfer, TransferConfig  # noqa: E402

LAYERS, STEPS, TURNS = 4, 2, 1 if TINY else 5
DEVICE = torch.device("cpu" if TINY else "cuda")
DTYPE = torch.float32 if TINY else torch.bfloat16


def made(config: str, **network: Any) -> Any:
    """A MODEL of one of ComfyUI's configurations, with random weights."""
    kind = getattr(known, config)
    settings = kind({**kind.unet_config, **network, "dtype": DTYPE})
    settings.custom_operations = comfy.ops.disable_weight_init
    model = settings.get_model({}, device=DEVICE)
    for x in (*model.diffusion_model.parameters(), *model.diffusion_model.buffers()):
        if x.is_floating_point():
            x.copy_(0.02 * torch.randn(x.shape, dtype=x.dtype, device=x.device) + (x.dim() == 1))
    return comfy.model_patcher.ModelPatcher(model, load_device=DEVICE, offload_device=DEVICE)


def hunyuan_video_15() -> Any:
    wide = {"hidden_size": 64, "num_heads": 2, "axes_dim": [8, 12, 12]} if TINY else {
        "hidden_size": 2048, "num_heads": 16, "axes_dim": [16, 56, 56]}  # fmt: skip
    return made(
        "HunyuanVideo15",
        in_channels=65, out_channels=32, vec_in_dim=None, context_in_dim=3584, mlp_ratio=4.0, depth=LAYERS,
        depth_single_blocks=0, theta=256, patch_size=[1, 1, 1], qkv_bias=True, guidance_embed=False, byt5=False,
        meanflow=False, use_cond_type_embedding=True, vision_in_dim=1152, meanflow_sum=False, **wide,
    )  # fmt: skip


def ltx_2() -> Any:
    wide = {"attention_head_dim": 32, "num_attention_heads": 2, "audio_attention_head_dim": 16,
            "audio_num_attention_heads": 2, "cross_attention_dim": 64, "audio_cross_attention_dim": 32,
            "connector_attention_head_dim": 1920} if TINY else {}  # fmt: skip
    settings = {"connector_num_attention_heads": 2 if TINY else 30, "connector_num_layers": 1}
    return made("LTXAV", num_layers=LAYERS, use_middle_indices_grid=True, **settings | wide)


#: Name: the model, the width of its prompt's tokens, how many, latents of the video and of what is beside it.
FAMILIES: dict[str, tuple[Callable[[], Any], int, int, tuple[tuple[int, ...], ...]]] = {
    "HunyuanVideo 1.5, 848 x 480 x 121": (hunyuan_video_15, 3584, 1000, ((32, 31, 30, 53),)),
    "LTX-2, 1280 x 704 x 121": (ltx_2, 7680, 1024, ((128, 16, 22, 40), (8, 126, 16))),
}


class Run:
    """Sampling runs of one model."""

    def __init__(self, make: Callable[[], Any], width: int, tokens: int, streams: tuple[tuple[int, ...], ...]) -> None:
        if TINY:
            streams = tuple((one[0], *(max(2, n // 8) for n in one[1:])) for one in streams)
            streams = tuple((*one[:-1], 16) if len(one) == 3 else one for one in streams)
        self.model, self.width, self.tokens, self.streams = make(), width, 8 if TINY else tokens, streams

    def seconds(self, *editors: Any, rows: int = 1) -> float:
        """What a step takes."""
        model = self.model
        for one in editors:
            model = host.attach(model, one, required=True)
        prompt = torch.randn(rows, self.tokens, self.width, generator=torch.Generator().manual_seed(1))
        more: dict[str, Any] = {"pooled_output": None}
        if len(self.streams) > 1:  # LTX-2 wants to be told that a prompt has no padding
            more["attention_mask"] = torch.ones(rows, self.tokens).long()
        conditioning = [[prompt, more]]
        noise, empty = (self._latents(draw, rows) for draw in (_noise, torch.zeros))
        _synchronize()
        start = time.perf_counter()
        comfy.sample.sample(
            model, noise, STEPS, 1.0, "euler", "simple", conditioning, conditioning, empty, disable_pbar=True, seed=7
        )
        _synchronize()
        return (time.perf_counter() - start) / STEPS

    def _latents(self, draw: Callable[..., torch.Tensor], rows: int) -> Any:
        streams = [draw(1, *one).repeat(rows, *[1] * len(one)) for one in self.streams]
        return comfy.nested_tensor.NestedTensor(streams) if len(streams) > 1 else streams[0]


def _noise(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(7))


def _synchronize() -> None:
    if not TINY:
        torch.cuda.synchronize()


def ratio(plain: Callable[[], float], edited: Callable[[], float]) -> tuple[float, float]:
    """The median of edited over plain in turns, after one of each, and the plain run's median in seconds."""
    plain(), edited()
    pairs = [(plain(), edited()) for _ in range(TURNS)]
    return statistics.median(b / a for a, b in pairs), statistics.median(a for a, _ in pairs)


def main() -> None:
    name = "CPU" if TINY else torch.cuda.get_device_name()
    print(f"{name}, torch {torch.__version__}; {LAYERS} layers; ratios to a plain run, medians of {TURNS} turns\n")
    print("| model | tokens | plain step ms | watched | recorded, 1 layer | stored, 1 layer | live | keep 20% |")
    print("|---|---|---|---|---|---|---|---|")
    for title, settings in FAMILIES.items():
        run = Run(*settings)
        one = Selection(layers=Indices("0"))
        watch, recorder = Recorder(Selection(layers=Indices("none"))), Recorder(one)
        idle, plain = ratio(run.seconds, lambda run=run, watch=watch: run.seconds(watch))
        recorded, _ = ratio(run.seconds, lambda run=run, recorder=recorder: run.seconds(recorder))
        store = recorder.store
        stored, _ = ratio(run.seconds, lambda run=run, store=store: run.seconds(Transfer(store, TransferConfig())))
        live, _ = ratio(lambda run=run: run.seconds(rows=2), lambda run=run: run.seconds(LiveTransfer(), rows=2))
        config = SparseConfig(density=0.2, dense_first=0.0, minimum_tokens=0, if_slower="sparse")
        sparse, _ = ratio(run.seconds, lambda run=run, config=config: run.seconds(SparseAttention(config)))
        figures = [f"{x:.3f}" for x in (idle, recorded, stored, live, sparse)]
        print(f"| {title} | {store.header.grid.tokens} | {1000 * plain:.0f} | {' | '.join(figures)} |", flush=True)


if __name__ == "__main__":
    with torch.inference_mode():
        main()
