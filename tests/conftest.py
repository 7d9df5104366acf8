"""What several folders of tests share. The pack's own root package is never imported here."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator
from pathlib import Path

if "PYTEST_XDIST_WORKER" in os.environ:  # workers share the cores: more threads would only wait for one another
    os.environ["OMP_NUM_THREADS"] = "1"

import pytest
import torch
from comfyui.installation import ComfyUI, find
from comfyui.server import Server, serve
from hypothesis import settings

from vdit_core.demo.model import DemoModel
from vdit_core.demo.probe import AttributeProbe
from vdit_core.tiny_wan.files import PROBE, WEIGHTS

torch.set_grad_enabled(False)
settings.register_profile("no deadline", deadline=None)  # a busy machine is no error
settings.load_profile("no deadline")


#: What tests of a folder are marked with; tests/README.md says what the folders are for.
MARKERS = {"comfyui": ("comfyui",), "browser": ("comfyui", "browser"), "demo": ("slow",), "diffusers": ("slow",)}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        folder = item.path.relative_to(Path(__file__).parent).parts[0]
        for marker in (*MARKERS.get(folder, ()), *(["gpu"] if item.path.stem.endswith("_cuda") else [])):
            item.add_marker(marker)


@pytest.fixture(scope="session")
def demo_model() -> DemoModel:
    return DemoModel.load()


@pytest.fixture(scope="session")
def probe() -> AttributeProbe:
    return AttributeProbe.load(WEIGHTS / PROBE)


@pytest.fixture(scope="session")
def comfyui() -> ComfyUI:
    found = find()
    if found is None:
        pytest.skip("no ComfyUI found: set COMFYUI_PATH to a checkout, or put one at ~/comfy/ComfyUI")
    return found


@pytest.fixture(scope="session")
def server(comfyui: ComfyUI, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One server for all tests that change no setting of it."""
    with serve(comfyui, tmp_path_factory.mktemp("comfyui")) as running:
        yield running


@pytest.fixture
def no_collector() -> Iterator[None]:
    """What goes then goes by itself: no cycle holds it."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()
