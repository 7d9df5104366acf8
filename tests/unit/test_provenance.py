"""How a run was made: the fingerprint of its noise, its way through a file, and how two runs differ."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch

from vdit_core.call import ModelSignature, TokenGrid
from vdit_core.differences import explain, mismatches, other_noise
from vdit_core.provenance import Provenance, fingerprint
from vdit_core.recording.recorder import Recorder
from vdit_core.recording.store import AttentionStore, Header, StoreFileError
from vdit_core.recording.store.format import metadata, read_metadata


def noise(*seeds: int) -> torch.Tensor:
    return torch.stack([torch.randn(4, 3, 6, 6, generator=torch.Generator().manual_seed(seed)) for seed in seeds])


def test_the_same_noise_agrees_though_it_is_rounded():
    exact, rounded = (Provenance(noise=fingerprint(x)) for x in (noise(1, 2), noise(1, 2).bfloat16()))
    assert other_noise(exact, rounded) == []
    assert exact.noise != rounded.noise


def test_other_noise_is_told_by_sample():
    """One source is that of all targets; of several each target has its own."""
    source = Provenance(noise=fingerprint(noise(1)))
    assert other_noise(source, Provenance(noise=fingerprint(noise(1, 2, 1, 3)))) == [1, 3]
    assert other_noise(Provenance(noise=fingerprint(noise(1, 2))), Provenance(noise=fingerprint(noise(2, 2)))) == [0]


@pytest.mark.parametrize("nothing", [torch.zeros(1, 4, 6), torch.full((1, 4, 6), float("nan"))])
def test_no_noise_has_no_fingerprint_and_is_compared_with_none(nothing):
    assert fingerprint(nothing) == ()
    assert other_noise(Provenance(noise=fingerprint(noise(1))), Provenance(noise=())) == []


SETTINGS = Provenance(832, 480, 81, 3.0, "euler", "simple", 1.0, 5.0, 7, fingerprint(noise(7)))


def header(made: Provenance = SETTINGS, sigmas: tuple[float, ...] = (1.0, 0.8, 0.5, 0.2), frames: int = 21) -> Header:
    model, grid = ModelSignature(30, 12, 128), TokenGrid(frames, 30, 52)
    return Header(model, grid, sigmas, tuple(range(12)), 1, "none", "bfloat16", "wan", made)


def test_a_file_keeps_it(host, tmp_path):
    recorder = Recorder()
    host().run(1, recorder)
    recorder.store.header = replace(recorder.store.header, made=SETTINGS)
    recorder.store.save(tmp_path / "kept.safetensors")
    assert AttentionStore.load(tmp_path / "kept.safetensors").header.made == SETTINGS


def read_with(made) -> Provenance:
    """The provenance of a file whose header has this in its place; Ellipsis: nothing."""
    of_all = metadata(header(), [])
    raw = json.loads(of_all["header"])
    if made is ...:
        del raw["made"]
    else:
        raw["made"] = made
    of_all["header"] = json.dumps(raw)
    from vdit_core.recording.store.format import digest

    of_all["digest"] = digest(of_all["header"], of_all["entries"])
    return read_metadata(of_all)[0].made


def test_files_of_before_and_of_later_are_read():
    assert read_with(...) == Provenance()
    assert read_with({"seed": 3, "cfg": 2, "something new": [1]}) == Provenance(seed=3, cfg=2.0)


@pytest.mark.parametrize(
    "made",
    [{"seed": -1}, {"seed": "7"}, {"width": 1.5}, {"shift": float("inf")}, {"noise": [["x"]]}, {"noise": 3}, [], "x"],
)
def test_a_forged_one_is_refused(made):
    with pytest.raises(StoreFileError, match="cannot be read"):
        read_with(made)


SOURCE = "Source: 4 steps, shift 3, cfg 5, 832×480×81"


@pytest.mark.parametrize(
    ("target", "said"),
    [
        (header(sigmas=(1.0, 0.9, 0.6, 0.4, 0.1)), f"{SOURCE}. Target: 5 steps."),
        (header(replace(SETTINGS, shift=8.0)), f"{SOURCE}. Target: shift 8."),
        (header(replace(SETTINGS, cfg=1.0)), f"{SOURCE}. Target: cfg 1."),
        (header(replace(SETTINGS, height=832, width=480)), f"{SOURCE}. Target: 480×832×81."),
        (header(replace(SETTINGS, scheduler="beta")), f"{SOURCE}, scheduler simple. Target: scheduler beta."),
        (header(replace(SETTINGS, denoise=0.6)), f"{SOURCE}, denoise 1. Target: denoise 0.6."),
        (header(replace(SETTINGS, sampler="heun")), f"{SOURCE}, sampler euler. Target: sampler heun."),
        (header(replace(SETTINGS, seed=8)), f"{SOURCE}, seed 7. Target: seed 8."),
        (header(sigmas=(0.8, 0.5, 0.2, 0.1)), f"{SOURCE}, noise from 1.00. Target: noise from 0.80."),
        (header(replace(SETTINGS, shift=8.0, seed=None)), f"{SOURCE}. Target: shift 8."),
        (
            header(sigmas=(1.0, 0.7, 0.5, 0.2)),
            f"{SOURCE}, noise levels 1.000, 0.800, 0.500, 0.200. Target: noise levels 1.000, 0.700, 0.500, 0.200.",
        ),
        (header(frames=9), f"{SOURCE}, 21 x 30 x 52 tokens. Target: 9 x 30 x 52 tokens."),
    ],
)
def test_what_differs_is_named(target, said):
    assert explain(header(), target) == said


def test_what_no_host_knew_is_told_in_tokens():
    one, other = header(Provenance()), header(Provenance(), frames=9)
    assert explain(one, other) == "Source: 4 steps, 21 x 30 x 52 tokens. Target: 9 x 30 x 52 tokens."


@pytest.mark.parametrize(
    ("made", "said"),
    [
        (SETTINGS, []),
        (
            replace(SETTINGS, seed=8, noise=fingerprint(noise(8))),
            [
                "the target started from other noise than the source (source: seed 7, target: seed 8): "
                "use one seed for both"
            ],
        ),
        (replace(SETTINGS, noise=fingerprint(noise(8))), ["the target started from other noise than the source"]),
        (
            replace(SETTINGS, noise=fingerprint(noise(7, 8, 9))),
            ["videos 1, 2 of the batch started from other noise than the source"],
        ),
        (replace(SETTINGS, sampler="heun"), ["another sampler (source: euler, target: heun)"]),
        (replace(SETTINGS, sampler=None), []),
    ],
)
def test_another_start_is_a_mismatch(made, said):
    assert mismatches(header(), header(made)) == said
