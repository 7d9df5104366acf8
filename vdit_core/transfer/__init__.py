"""Attention-map transfer: the source's map, the target's values (section "Structure" of arXiv 2504.10317).

    output = strength * softmax(Q_source K_source^T / sqrt(d)) V_target + (1 - strength) * the target's own output

`Transfer` takes the source from a store, `LiveTransfer` from row 0 of the same batch.
"""

from .config import TransferConfig, TransferError
from .live import LiveTransfer
from .map_transfer import MapTransfer, TransferReport
from .stored import Transfer

__all__ = ["LiveTransfer", "MapTransfer", "Transfer", "TransferConfig", "TransferError", "TransferReport"]
