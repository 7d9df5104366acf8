"""What several folders of tests share. The pack's own root package is never imported here."""

from __future__ import annotations

import pytest
import torch

from vdit_core.demo.model import PROBE, WEIGHTS, DemoModel
from vdit_core.demo.probe import AttributeProbe

torch.set_grad_enabled(False)


@pytest.fixture(scope="session")
def demo_model() -> DemoModel:
    return DemoModel.load()


@pytest.fixture(scope="session")
def probe() -> AttributeProbe:
    return AttributeProbe.load(WEIGHTS / PROBE)
