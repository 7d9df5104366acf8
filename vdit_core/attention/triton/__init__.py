"""Whether this pack's own GPU kernels can be used: they need Triton, which not every machine has."""

from __future__ import annotations

import logging
from functools import lru_cache

import torch
from torch import Tensor

logger = logging.getLogger(__name__)


@lru_cache
def triton_works(device: torch.device) -> bool:
    """Whether Triton can build kernels for a device and run them; it needs a C compiler on the machine, for one."""
    if device.type != "cuda" or torch.version.hip or torch.cuda.get_device_capability(device) < (8, 0):
        return False
    try:
        from . import probe  # imports Triton

        with torch.cuda.device(device):
            return probe.adds(device)
    except Exception as error:
        logger.warning("VDiT Attention: Triton does not work here, its kernels are left out: %s", error)
        return False


def kernels_take(q: Tensor, k: Tensor) -> bool:
    """Whether the kernels that take queries and keys take these: half quantization, heads 64 or 128 wide."""
    half = q.dtype in (torch.float16, torch.bfloat16) and q.dtype == k.dtype
    return half and q.shape[-1] in (64, 128) and triton_works(q.device)
