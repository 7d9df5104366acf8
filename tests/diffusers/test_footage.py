"""Edits by the diffusers host on the demo model, and a source row that is driven from outside."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from torch import Tensor

from vdit_core.demo.model import DemoModel
from vdit_core.footage.config import EditConfig, FootageError
from vdit_core.footage.flow_edit import FlowEdit, straight
from vdit_core.hosts.diffusers import attach
from vdit_core.hosts.diffusers.footage import begin_at, edit_footage, velocity
from vdit_core.recording.recorder import Recorder
from vdit_core.selection import LayerMask
from vdit_core.sparse.config import SparseConfig
from vdit_core.sparse.sparse_attention import SparseAttention
from vdit_core.transfer import LiveTransfer, Transfer, TransferConfig

SOURCE, TARGET = "A car is driving on the highway", "A red car is driving on the highway"
NO_MAPS = TransferConfig(LayerMask("none"))


@pytest.fixture(scope="module")
def model() -> DemoModel:
    return DemoModel.load()


@pytest.fixture(scope="module")
def footage(model: DemoModel) -> Tensor:
    """Latents that are like a clip's: what the model makes of noise in a step or two."""
    return model.sample([SOURCE], [3], steps=2)


def prompt(model: DemoModel, text: str) -> Tensor:
    return model.text.encode([text]).to(model.device)


def edit(model: DemoModel, footage: Tensor, targets: tuple[str, ...] = (TARGET,), **options):
    prompts = [prompt(model, text) for text in (SOURCE, *targets)]
    return edit_footage(model.pipe, footage, prompts[0], prompts[1:], prompt(model, ""), steps=4, seed=5, **options)


def test_without_maps_it_is_the_stock_transformer_in_the_loop(model: DemoModel, footage: Tensor) -> None:
    """No hook is on the model here: each row is computed by itself."""
    config = EditConfig(change=0.8, source_guidance=1.5, target_guidance=3.0, finish=0)
    found, report = edit(model, footage, config=config, where=NO_MAPS)
    levels = begin_at(model.pipe, 4, 0.8, footage.device)
    flow, expected = FlowEdit(footage, config, 5), footage.clone()

    def guided(x: Tensor, sigma: float, text: str, scale: float) -> Tensor:
        by = [
            model.pipe.transformer(x, torch.tensor([1000 * sigma]), prompt(model, words), return_dict=False)[0]
            for words in (text, "")
        ]
        return by[1] + scale * (by[0] - by[1])

    with torch.no_grad():
        for sigma, following in pairwise(levels):
            source = straight(sigma, flow.noise(sigma, 0), footage)
            target = source + expected - footage
            step = guided(target, sigma, TARGET, 3.0) - guided(source, sigma, SOURCE, 1.5)
            expected = expected + (following - sigma) * step
    torch.testing.assert_close(found, expected, rtol=0, atol=2e-4)
    assert report.nothing is not None
    assert float((found - footage).abs().max()) > 0.05


def test_the_footage_s_maps_recorded_once_serve_many_edits(model: DemoModel, footage: Tensor) -> None:
    """A walk without a target records them; noise depends on seed and level, so they fit the edit."""
    live, report = edit(model, footage)
    assert report.replaced == report.expected == 9 * 3 * 2, report  # the first of 4 steps is skipped
    recorder = Recorder()
    edit(model, footage, targets=(), where=NO_MAPS, more=[recorder])
    transfer = Transfer(recorder.store)
    stored, _ = edit(model, footage, where=NO_MAPS, more=[transfer])
    torch.testing.assert_close(stored, live, rtol=0, atol=2e-4)
    assert transfer.report.verdict().level.value == "done", transfer.report
    assert float((live - edit(model, footage, where=NO_MAPS)[0]).abs().max()) > 1e-2


def test_targets_are_edited_as_one_by_one(model: DemoModel, footage: Tensor) -> None:
    other = "A truck is driving on the highway"
    both, _ = edit(model, footage, targets=(TARGET, other))
    for n, text in enumerate((TARGET, other)):
        torch.testing.assert_close(both[n : n + 1], edit(model, footage, targets=(text,))[0], rtol=0, atol=2e-4)


def test_sparse_attention_and_int8_recordings_compose(model: DemoModel, footage: Tensor) -> None:
    whole = SparseAttention(SparseConfig("exact top-k", 1.0, dense_first=0, minimum_tokens=0, if_slower="sparse"))
    part = SparseAttention(SparseConfig("exact top-k", 0.5, dense_first=0, minimum_tokens=0, if_slower="sparse"))
    plain, _ = edit(model, footage)
    torch.testing.assert_close(edit(model, footage, more=[whole])[0], plain, rtol=0, atol=2e-4)
    sparse, _ = edit(model, footage, more=[part])
    assert 1e-3 < float((sparse - plain).abs().max()) < 3
    recorder = Recorder(quantization="int8")
    edit(model, footage, more=[recorder])
    assert recorder.store.header.samples == 2


def test_one_prompt_keeps_the_clip(model: DemoModel, footage: Tensor) -> None:
    same = EditConfig(source_guidance=2.0, target_guidance=2.0, finish=0)
    found, _ = edit(model, footage, targets=(SOURCE,), config=same)
    torch.testing.assert_close(found, footage, rtol=0, atol=1e-4)


def test_without_guidance_the_negative_prompt_is_not_computed(model: DemoModel, footage: Tensor) -> None:
    recorder = Recorder()
    edit(model, footage, config=EditConfig(source_guidance=1, target_guidance=1), more=[recorder])
    assert recorder.store.branches == ("cond",)


def test_a_change_that_leaves_no_step_is_refused(model: DemoModel, footage: Tensor) -> None:
    with pytest.raises(FootageError, match=r"change 0\.1 leaves none of 4 steps"):
        edit(model, footage, config=EditConfig(change=0.1))


def test_a_driven_row_is_the_footage_at_every_level(model: DemoModel, footage: Tensor) -> None:
    """In all branches, whatever the sampler has in its place; the other rows are the sampler's."""
    seen: list[Tensor] = []
    patches = model.pipe.transformer.patch_embedding
    hook = patches.register_forward_pre_hook(lambda _, given: seen.append(given[0].clone()))
    noise = model.noise([8]).expand(2, -1, -1, -1, -1)
    levels = begin_at(model.pipe, 4, 0.6, footage.device)
    rows = levels[0] * noise + (1 - levels[0]) * footage
    prompts = torch.cat([prompt(model, SOURCE), prompt(model, TARGET)])
    moves, branches = velocity(model.pipe, prompts, prompt(model, ""), [5.0, 5.0])
    transfer = LiveTransfer(footage=footage)
    try:
        with torch.no_grad(), attach(model.pipe, transfer, branches=branches):
            for sigma, following in pairwise(levels):
                moved = moves(rows, sigma)
                for given in seen[-2:]:
                    torch.testing.assert_close(given[:1], straight(sigma, noise[:1], footage), rtol=0, atol=1e-5)
                    assert torch.equal(given[1:], rows[1:])
                rows = rows + (following - sigma) * moved
    finally:
        hook.remove()
    assert len(seen) == 2 * (len(levels) - 1)
    assert transfer.report.replaced == transfer.report.expected > 0
    assert not torch.equal(seen[-1][0], rows[0])
