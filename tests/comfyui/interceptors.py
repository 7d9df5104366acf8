"""The pack's own interceptors, as several of the checks set them up."""

from __future__ import annotations

from typing import Any

from aftermath import BASE

# isort: split
from pack.vdit_core.recording.recorder import Recorder
from pack.vdit_core.selection import LayerMask
from pack.vdit_core.transfer import Transfer, TransferConfig


def on_disk() -> Recorder:
    return Recorder(tier="disk", folder=BASE / "temp")


def in_layers(store: Any, layers: str, branches: str = "all") -> Transfer:
    return Transfer(store, TransferConfig(LayerMask(layers), branches=branches))
