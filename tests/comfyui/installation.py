"""Finds the real ComfyUI: $COMFYUI_PATH, comfy-cli's default place, or two folders up (an installed pack)."""

from __future__ import annotations

import atexit
import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from functools import cache
from pathlib import Path

PACK = Path(__file__).parents[2]

#: One thread: a server beside a browser or another server would wait for them at every step.
ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1"}


@dataclass(frozen=True)
class ComfyUI:
    """A checkout, and the Python that runs it."""

    folder: Path
    python: Path


#: FLIP, and matplotlib and what it needs beside what ComfyUI brings.
REQUIRED = ("flip-evaluator", "matplotlib", "contourpy", "cycler", "fonttools", "kiwisolver", "packaging", "pyparsing",
            "python-dateutil", "six")  # fmt: skip


@cache
def environment(comfyui: ComfyUI) -> dict[str, str]:
    """The variables for a server in which the pack's requirements are installed: beside ComfyUI's own packages, whose
    environment is the user's and stays as it is."""
    if subprocess.run([comfyui.python, "-c", "import matplotlib, flip_evaluator"], capture_output=True).returncode == 0:
        return ENVIRONMENT
    folder = tempfile.mkdtemp(prefix="vdit-requirements-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    install = [comfyui.python, "-m", "pip", "install", "--quiet", "--no-deps", "--target", folder, *REQUIRED]
    subprocess.run(list(map(str, install)), check=True)
    path = os.pathsep.join(filter(None, (folder, os.environ.get("PYTHONPATH"))))
    return ENVIRONMENT | {"PYTHONPATH": path}


def find() -> ComfyUI | None:
    places = [os.environ.get("COMFYUI_PATH"), Path.home() / "comfy" / "ComfyUI", PACK.parents[1]]
    for place in places:
        if place and (Path(place) / "comfy" / "sd.py").is_file():
            python = Path(place) / ".venv" / "bin" / "python"
            return ComfyUI(Path(place), python if python.exists() else Path(sys.executable))
    return None
