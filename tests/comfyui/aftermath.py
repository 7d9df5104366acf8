"""What must hold after every case, whatever went wrong in it: nothing of the pack stays, and stock is stock."""

from __future__ import annotations

import atexit
import gc
import shutil
import tempfile
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from inside import SMALL, sample
from variants import MODEL

#: Where ComfyUI's folders are in these checks, and where Python makes temporary files.
BASE = Path(tempfile.mkdtemp(prefix="vdit-checks-"))
atexit.register(shutil.rmtree, BASE, ignore_errors=True)


def redirect() -> None:
    """Nothing that a check writes goes anywhere else."""
    import folder_paths

    for name in ("output", "input", "temp"):
        (BASE / name).mkdir()
        getattr(folder_paths, f"set_{name}_directory")(str(BASE / name))
    (BASE / "system").mkdir()
    tempfile.tempdir = str(BASE / "system")


@contextmanager
def nothing_stays() -> Iterator[None]:
    """Around a case. Objects of the pack must be freed at once, with no garbage collection in between."""
    gc.disable()
    gc.freeze()  # what was there before is not counted
    before, files = _patcher(), _files()
    try:
        yield
        left = _alive(lambda kind: kind.__module__.startswith("pack."))
        assert not left, f"still alive: {left}"
        threads = [thread.name for thread in threading.enumerate() if thread.name.startswith("vdit")]
        assert not threads, threads
        assert _files() == files
        assert _patcher() == before
        torch.testing.assert_close(_stock(), _STOCK, rtol=0, atol=0)
        gc.collect()  # ComfyUI's own cycles
        left = _alive(lambda kind: kind is torch.Tensor)
        assert not left, f"still alive: {left}"
    finally:
        gc.enable()


def _files() -> list[Path]:
    """All files, and the folders of recordings."""
    return sorted(p for p in BASE.rglob("*") if not p.is_dir() or p.name.startswith("vdit-recording-"))


def _alive(of: Callable[[type], bool]) -> dict[str, int]:
    """How many new objects there are of some classes, but not tables of levels, which ComfyUI replaces."""
    kinds = Counter(type(each) for each in gc.get_objects() if not _is_table_of_levels(each))
    return {kind.__qualname__: number for kind, number in kinds.items() if of(kind)}


def _is_table_of_levels(each: Any) -> bool:
    return type(each) is torch.Tensor and each.shape == MODEL.get_model_object("model_sampling").sigmas.shape


def _patcher() -> tuple[Any, ...]:
    """What a node could have left on the model that all graphs share."""
    return (
        {kind: list(keys) for kind, keys in MODEL.wrappers.items() if keys},
        {kind: list(keys) for kind, keys in MODEL.callbacks.items() if keys},
        sorted(MODEL.attachments),
        sorted(MODEL.model_options["transformer_options"]),
        sorted(MODEL.model_options),
        sorted(MODEL.patches),
        sorted(MODEL.object_patches),
        sorted(MODEL.additional_models),
        sum(len(module._forward_hooks) for module in MODEL.model.diffusion_model.modules()),
    )


def _stock() -> torch.Tensor:
    return sample(MODEL, steps=1, size=SMALL)


with torch.inference_mode():
    _STOCK = _stock()
redirect()
