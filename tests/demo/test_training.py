"""The training script: its parts, and that a run that is interrupted ends where one that is not does."""

from __future__ import annotations

import json
import time
from itertools import pairwise
from types import SimpleNamespace

import pytest
import torch
from diffusers import AutoencoderKLWan
from diffusers.loaders.single_file_utils import convert_wan_transformer_to_diffusers, convert_wan_vae_to_diffusers

from training import autoencoder
from training.muon import Muon, orthogonalise
from training.stage import OutOfTime, Stage, learning_rate
from training.transformer import FusedSelfAttention, flow_loss, new_transformer, noise_levels
from training.wan_names import transformer_names, vae_names
from vdit_core.demo import single_pass


@pytest.fixture(autouse=True)
def _gradients():
    with torch.enable_grad():
        yield


def test_names_are_those_that_diffusers_reads_back():
    for model, rename, back in (
        (new_transformer(), transformer_names, convert_wan_transformer_to_diffusers),
        (AutoencoderKLWan(base_dim=8), vae_names, convert_wan_vae_to_diffusers),
    ):
        state = model.state_dict()
        again = back(rename(dict(state)))
        assert again.keys() == state.keys()
        assert all(torch.equal(again[name], value) for name, value in state.items())


def test_orthogonalise_evens_out_singular_values():
    for shape in ((3, 32, 32), (2, 16, 64), (2, 64, 16)):
        values = torch.linalg.svdvals(orthogonalise(torch.randn(shape)))
        assert values.max() < 1.3
        assert values.median() > 0.6


def test_muon_learns_matrices_and_kernels():
    torch.manual_seed(0)
    matrix, kernel = torch.nn.Linear(8, 8, bias=False), torch.nn.Conv3d(2, 4, 3, bias=False)
    x, y = torch.randn(64, 8), torch.randn(4, 2, 3, 3, 3)
    wanted = (x @ torch.randn(8, 8), torch.nn.functional.conv3d(y, torch.randn(4, 2, 3, 3, 3)))
    optimizer = Muon([matrix.weight, kernel.weight], lr=0.05, weight_decay=0.0)
    losses = []
    for _ in range(150):
        loss = ((matrix(x) - wanted[0]) ** 2).mean() + ((kernel(y) - wanted[1]) ** 2).mean()
        losses.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert losses[-1] < 0.05 * losses[0]


def test_folding_the_statistics_changes_latents_as_told_and_no_picture():
    torch.manual_seed(0)
    vae = AutoencoderKLWan(base_dim=8)
    video = torch.rand(2, 3, 5, 32, 32) * 2 - 1
    before, _ = single_pass.encode(vae, video)
    picture = single_pass.decode(vae, before)
    mean, std = torch.randn(16), torch.rand(16) + 0.5
    autoencoder.fold_statistics(vae, mean, std)
    after, _ = single_pass.encode(vae, video)
    fixed_mean, fixed_std = torch.tensor(vae.config.latents_mean), torch.tensor(vae.config.latents_std)
    wanted = (before.movedim(1, -1) - mean) / std * fixed_std + fixed_mean
    torch.testing.assert_close(after.movedim(1, -1), wanted, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(single_pass.decode(vae, after), picture, rtol=1e-3, atol=1e-4)


def test_the_fused_attention_is_wans():
    model = new_transformer()
    inputs = torch.randn(1, 16, 1, 4, 4), torch.randn(1, 16, 1, 4, 4), torch.rand(1), torch.randn(1, 16, 128)
    stock = flow_loss(model, *inputs)
    for block in model.blocks:
        block.attn1.set_processor(FusedSelfAttention())
    torch.testing.assert_close(flow_loss(model, *inputs), stock, rtol=1e-2, atol=1e-2)


def test_noise_levels_cover_the_range_under_the_shift():
    levels = noise_levels(1000, torch.Generator().manual_seed(0), "cpu")
    assert (levels.diff() > 0).all()
    assert levels[499] == pytest.approx(0.75, abs=0.01)  # 3 u / (1 + 2 u) at one half


def test_the_learning_rate_rises_stays_and_falls():
    rates = [learning_rate(n / 100) for n in range(101)]
    assert rates[0] < 0.1
    assert rates[5] == rates[50] == 1
    assert rates[-1] == 0.02
    assert all(a >= b for a, b in pairwise(rates[5:]))


def test_a_stage_goes_on_where_it_stopped(tmp_path):
    def walk(work, seconds_per_call: float) -> tuple[float, int]:
        """A random walk of 20 steps, in as many calls as the time asks for."""
        calls = 0
        while True:
            calls += 1
            position = SimpleNamespace(x=0.0)
            position.state_dict = lambda p=position: {"x": p.x}
            position.load_state_dict = lambda state, p=position: p.__dict__.update(state)
            stage = Stage("walk", 20, work, time.monotonic() + seconds_per_call, position=position)
            try:
                for _ in stage:
                    position.x += torch.randn((), generator=stage.generator("cpu")).item()
                    stage.log(x=position.x)
            except OutOfTime:
                continue
            return position.x, calls

    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    once, calls = walk(tmp_path / "a", 100)
    assert calls == 1
    pieces, calls = walk(tmp_path / "b", 0)
    assert calls == 20
    assert pieces == once
    lines = [json.loads(line) for line in (tmp_path / "b" / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == list(range(20))
    assert not list((tmp_path / "b").glob("*.part"))
