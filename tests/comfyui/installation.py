"""Finds the real ComfyUI: $COMFYUI_PATH, comfy-cli's default place, or two folders up (an installed pack)."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from pathlib import Path

PACK = Path(__file__).parents[2]

#: One thread: a server beside a browser or another server would wait for them at every step.
ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1"}


@dataclass(frozen=True)
class ComfyUI:
    """A checkout, and the Python that runs it."""

    folder: Path
    python: Path


def find() -> ComfyUI | None:
    places = [os.environ.get("COMFYUI_PATH"), Path.home() / "comfy" / "ComfyUI", PACK.parents[1]]
    for place in places:
        if place and (Path(place) / "comfy" / "sd.py").is_file():
            python = Path(place) / ".venv" / "bin" / "python"
            return ComfyUI(Path(place), python if python.exists() else Path(sys.executable))
    return None
