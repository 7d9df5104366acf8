"""Sources that do not fit, through a real pipeline: the demo model in diffusers."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from diffusers import FlowMatchHeunDiscreteScheduler
from synthetic_host import same

from vdit_core.hosts.diffusers import attach
from vdit_core.recording.recorder import Recorder
from vdit_core.selection import Indices, LayerMask, Selection, SelectionError
from vdit_core.transfer import Transfer, TransferConfig, TransferError

CAR, RED = "A car is driving on the highway", "A red car is driving on the highway"


@pytest.fixture(scope="module")
def plain(demo_model):
    """The target as nothing of ours touched it."""
    return demo_model.sample([RED], [7], steps=2)


@pytest.fixture(scope="module")
def of_two_steps(demo_model, plain):
    recorder = Recorder(Selection(Indices("4-5")))
    with attach(demo_model.pipe, recorder):
        demo_model.sample([CAR], [7], steps=2)
    return recorder.take()


@pytest.fixture
def heun(demo_model):
    euler = demo_model.pipe.scheduler
    demo_model.pipe.scheduler = FlowMatchHeunDiscreteScheduler(shift=euler.config.shift)
    yield
    demo_model.pipe.scheduler = euler


LAYERS = TransferConfig(LayerMask("4-5"))
PIPELINE = [
    ("other steps", {"steps": 3}, LAYERS, TransferError, "Source: 2 steps, .* Target: 3 steps"),
    ("other layers", {}, TransferConfig(LayerMask("0-3")), TransferError, "layers 0-3 were not recorded"),
    (
        "guidance off, uncond asked for",
        {"guidance": 1.0},
        replace(LAYERS, branches="uncond"),
        SelectionError,
        "it has cond",
    ),
    ("heads beyond", {}, TransferConfig(LayerMask("4"), Indices("2")), SelectionError, "there are 2 heads, 0 to 1"),
    (
        "mask for 40 layers",
        {},
        TransferConfig(LayerMask("4", made_for=40)),
        SelectionError,
        "a model of 40 layers; this one has 9",
    ),
]


@pytest.mark.parametrize(
    ("options", "where", "error", "said"), [pytest.param(*case, id=name) for name, *case in PIPELINE]
)
def test_a_pipeline_refuses_the_same_and_is_stock_again(demo_model, plain, of_two_steps, options, where, error, said):
    with pytest.raises(error, match=said), attach(demo_model.pipe, Transfer(of_two_steps, where)):
        demo_model.sample([RED], [7], **({"steps": 2} | options))
    assert torch.equal(demo_model.sample([RED], [7], steps=2), plain)


def test_a_pipeline_of_another_scheduler_refuses_the_recording(demo_model, plain, of_two_steps, heun):
    with (
        pytest.raises(TransferError, match=r"the settings differ. Source: 2 steps"),
        attach(demo_model.pipe, Transfer(of_two_steps, LAYERS)),
    ):
        demo_model.sample([RED], [7], steps=3)


def test_a_pipeline_after_another_scheduler_is_stock(demo_model, plain, of_two_steps):
    assert torch.equal(demo_model.sample([RED], [7], steps=2), plain)
    with attach(demo_model.pipe, Transfer(of_two_steps, replace(LAYERS, branches="cond"))):
        edited = demo_model.sample([RED, RED], [7, 7], steps=2)  # one sample serves two, both alike
    assert torch.equal(edited[0], edited[1])
    assert not torch.equal(edited[0], plain[0])
    assert same({0: demo_model.sample([RED], [7], steps=2)}, {0: plain})
