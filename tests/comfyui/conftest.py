"""Finds the real ComfyUI: $COMFYUI_PATH, comfy-cli's default place, or two folders up (an installed pack)."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest


@dataclass(frozen=True)
class ComfyUI:
    """A checkout, and the Python that runs it."""

    folder: Path
    python: Path


def find() -> ComfyUI | None:
    pack = Path(__file__).parents[2]
    places = [os.environ.get("COMFYUI_PATH"), Path.home() / "comfy" / "ComfyUI", pack.parents[1]]
    for place in places:
        if place and (Path(place) / "comfy" / "sd.py").is_file():
            python = Path(place) / ".venv" / "bin" / "python"
            return ComfyUI(Path(place), python if python.exists() else Path(sys.executable))
    return None


@pytest.fixture(scope="session")
def comfyui() -> ComfyUI:
    found = find()
    if found is None:
        pytest.skip("no ComfyUI found: set COMFYUI_PATH to a checkout, or put one at ~/comfy/ComfyUI")
    return found
