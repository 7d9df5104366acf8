"""An inspection as nodes/sink_pieces.py leaves it, of made-up masses: in a server's temporary folder, any size."""

from __future__ import annotations

import uuid
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

PER_DOUBLING, UNIFORM, LIMIT = 9, 101, 16.0


def write(
    temp: Path,
    *,
    layers: int = 30,
    heads: int = 12,
    steps: int = 20,
    grid: tuple[int, int, int] = (21, 30, 52),
    branches: tuple[str, ...] = ("cond",),
    strongest: int = 64,
    pictures: bool = True,
) -> dict[str, Any]:
    """Write it; returns what the node would tell the page. The defaults are Wan2.1-1.3B's, at 832 x 480 x 81.

    The last third of the layers has a sink in every third head: token 7 of frame 0, and in the last head 1 of
    frame 1, too; its key is long and its value short.
    """
    random = np.random.default_rng(0)
    folder = f"attention_sinks/{uuid.uuid4().hex[:12]}"
    (temp / folder).mkdir(parents=True)
    frames, height, width = grid
    tokens = frames * height * width
    calls = [(step, branch) for step in range(steps) for branch in branches]
    peaks = np.zeros((len(calls), layers, heads))
    sinks = []
    blobs = _blobs(grid)
    for layer in range(layers):
        codes = UNIFORM + blobs * (layer % 5) + random.normal(-3, 7, (heads, tokens))
        for head in range(heads):
            if layer < layers * 2 // 3 or head % 3:
                continue
            last = (layer, head) == (layers - 1, (heads - 1) // 3 * 3)
            for token, ratio in [(7, 25 * 2 ** (4 * layer / layers)), *([(height * width + 1, 60)] if last else [])]:
                codes[head, token] = UNIFORM + PER_DOUBLING * np.log2(min(ratio, 0.3 * tokens))
                sinks.append({"layer": layer, "head": head, "token": token, "mass": round(ratio / tokens, 5)})
        order = np.argpartition(-codes, strongest, axis=1)[:, :strongest]
        order = np.take_along_axis(order, np.argsort(-np.take_along_axis(codes, order, 1), axis=1), 1)
        with (
            (temp / folder / f"layer-{layer:02}.mass").open("wb") as mass,
            (temp / folder / f"layer-{layer:02}.strongest").open("wb") as top,
        ):
            for call, (step, branch) in enumerate(calls):
                drift = 4 * np.sin(step / 4 + layer) - 6 * (branch != "cond")
                now = (codes + drift).round().clip(1, 255).astype(np.uint8)
                mass.write(now.tobytes())
                table = _strongest(now, order, tokens)
                peaks[call, layer] = table[:, 0, 1] * tokens
                top.write(table.tobytes())
    if pictures:
        for frame in range(frames):
            _picture(frame, height, width).save(temp / folder / f"frame-{frame:02}.jpg")
    return {
        "folder": folder,
        "grid": {"frames": frames, "height": height, "width": width, "prefix": 0, "suffix": 0},
        "layers": list(range(layers)),
        "heads": list(range(heads)),
        "calls": [{"step": s, "sigma": round(1 - s / steps, 4), "branch": branch} for s, branch in calls],
        "peaks": peaks.round(2).tolist(),
        "strongest": strongest,
        "code": {"per_doubling": PER_DOUBLING, "uniform": UNIFORM},
        "frames": frames if pictures else 0,
        "limit": LIMIT,
        "sinks": sinks,
    }


def _blobs(grid: tuple[int, int, int]) -> np.ndarray:
    """A spot that moves through the frames: codes to add, (tokens,)."""
    t, y, x = np.meshgrid(*(np.linspace(0, 1, n) for n in grid), indexing="ij")
    return (5 * np.exp(-((x - 0.2 - 0.6 * t) ** 2 + (y - 0.5) ** 2) / 0.02)).ravel()


def _strongest(codes: np.ndarray, order: np.ndarray, tokens: int) -> np.ndarray:
    """Of each head, (heads, count, 5) float32: token (its bits), mass, participation, key norm, value norm."""
    table = np.zeros((*order.shape, 5), np.float32)
    table[..., 0] = order.astype(np.int32).view(np.float32)
    table[..., 1] = 2.0 ** ((np.take_along_axis(codes, order, 1).astype(float) - UNIFORM) / PER_DOUBLING) / tokens
    table[..., 2:] = 0.1, 1.0, 1.0
    table[order == 7, 2:] = 0.83, 4.25, 0.08
    return table


def _picture(frame: int, height: int, width: int) -> Image.Image:
    """Rows of brown under blue, and a red square that moves."""
    pixels = np.full((height * 6, width * 6, 3), (110, 150, 200), np.uint8)
    pixels[height * 3 :] = (120, 90, 60)
    left = (20 + 9 * frame) % (width * 5)
    pixels[height * 3 : height * 4, left : left + width] = (200, 40, 30)
    return Image.fromarray(pixels)
