"""Pictures as ComfyUI's IMAGE, and the one package that drawing them needs."""

from __future__ import annotations

import importlib.util
import sys

import numpy as np
import torch
from PIL import Image
from torch import Tensor


def need_matplotlib() -> None:
    """Raises RuntimeError, with what to do, if the plotting library is not there."""
    if importlib.util.find_spec("matplotlib") is None:
        raise RuntimeError(
            "This node draws with matplotlib, which is not installed here. Install what the pack needs "
            f"({sys.executable} -m pip install matplotlib) and restart ComfyUI."
        )


def as_image(*pictures: Image.Image) -> Tensor:
    """Pictures of one size as an IMAGE: float32 in [0, 1], (pictures, height, width, 3)."""
    return torch.stack([torch.from_numpy(np.array(picture.convert("RGB"))).float() / 255 for picture in pictures])
