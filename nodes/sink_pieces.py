"""What the Sink Inspector's panel loads piece by piece: files in ComfyUI's temporary folder, read by byte ranges.

layer-07.mass       uint8 [call][head][token], the mass of every key, coded (vdit_core/sinks/code.py)
layer-07.strongest  of each [call][head] the strongest keys: int32 token, then float32 mass, participation, key norm
                    and value norm
frame-03.jpg        the decoded picture of a latent frame
"""

from __future__ import annotations

import shutil
import uuid
from pathlib import Path
from typing import Any

import folder_paths
import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from ..vdit_core.recording.store import Key
from ..vdit_core.sinks.code import PER_DOUBLING, UNIFORM
from ..vdit_core.sinks.detect import Findings
from ..vdit_core.sinks.record import SinkRecord

_FOLDER = "attention_sinks"
_KEPT = 4  # folders of earlier inspections; a page that was left open may still ask for theirs
_EDGE = 320  # px of a picture's longer side


def write(record: SinkRecord, findings: Findings, video: Tensor | None) -> dict[str, Any]:
    """Write the pieces; returns what the panel must know first, as JSON has it.

    video: decoded frames, float in [0, 1], (frames, height, width, 3).
    """
    root = Path(folder_paths.get_temp_directory()) / _FOLDER
    folder = root / uuid.uuid4().hex[:12]
    folder.mkdir(parents=True)
    _forget_old(root)
    calls = [(evaluation, branch) for evaluation in record.evaluations for branch in record.branches]
    calls = [call for call in calls if any(Key(*call, layer) in record.calls for layer in record.layers)]
    strongest = next(iter(record.calls.values())).tokens.shape[1]
    peaks = np.zeros((len(calls), len(record.layers), len(record.heads)), np.float32)
    for row, layer in enumerate(record.layers):
        with (
            (folder / f"layer-{layer:02}.mass").open("wb") as mass,
            (folder / f"layer-{layer:02}.strongest").open("wb") as top,
        ):
            for n, (evaluation, branch) in enumerate(calls):
                found = record.calls.get(Key(evaluation, branch, layer))
                if found is None:  # a prompt that is not there in every step
                    mass.write(bytes(len(record.heads) * record.run.grid.tokens))
                    top.write(bytes(len(record.heads) * strongest * 20))
                    continue
                peaks[n, row] = found.mass[:, 0].numpy() * record.run.grid.tokens
                mass.write(found.codes.numpy().tobytes())
                top.write(_strongest(found))
    frames = 0 if video is None else _write_frames(video, record.run.grid.frames, folder)
    grid = record.run.grid
    return {
        "folder": f"{_FOLDER}/{folder.name}",
        "grid": {name: getattr(grid, name) for name in ("frames", "height", "width", "prefix", "suffix")},
        "layers": list(record.layers),
        "heads": list(record.heads),
        "calls": [
            {"step": record.run.step_of(evaluation.sigma), "sigma": round(evaluation.sigma, 4), "branch": branch}
            for evaluation, branch in calls
        ],
        "peaks": [[[round(float(x), 2) for x in row] for row in table] for table in peaks],
        "strongest": strongest,
        "code": {"per_doubling": PER_DOUBLING, "uniform": UNIFORM},
        "frames": frames,
        "limit": findings.ratio,
        "sinks": [
            {"layer": s.layer, "head": s.head, "token": s.token, "mass": round(s.mass, 5)} for s in findings.sinks
        ],
    }


def _strongest(found: Any) -> bytes:
    table = np.zeros((*found.tokens.shape, 5), np.float32)
    table[..., 0] = found.tokens.numpy().view(np.float32)
    for n, name in enumerate(("mass", "participation", "key_norm", "value_norm"), start=1):
        table[..., n] = getattr(found, name).numpy()
    return table.tobytes()


def _write_frames(video: Tensor, frames: int, folder: Path) -> int:
    """A picture for each latent frame: the first of the frames that it stands for."""
    step = max(1, (len(video) - 1) // max(1, frames - 1))
    scale = min(1.0, _EDGE / max(video.shape[1:3]))
    for n in range(frames):
        at = min(len(video) - 1, 0 if n == 0 else 1 + (n - 1) * step)
        picture = video[at].float().cpu().movedim(-1, 0)[None]
        if scale < 1:
            picture = F.interpolate(picture, scale_factor=scale, mode="area")
        pixels = (picture[0].clamp(0, 1) * 255).round().to(torch.uint8).movedim(0, -1).numpy()
        Image.fromarray(pixels).save(folder / f"frame-{n:02}.jpg", quality=88)
    return frames


def _forget_old(root: Path) -> None:
    folders = sorted((path for path in root.iterdir() if path.is_dir()), key=lambda path: path.stat().st_mtime)
    for old in folders[:-_KEPT]:
        shutil.rmtree(old, ignore_errors=True)
