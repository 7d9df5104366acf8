"""Recordings that do not fit the run they are put into: refused before its first call with both sides named, or used
exactly as far as they fit."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import pytest
import torch
import torch.nn.functional as F
from synthetic_host import SyntheticHost

from vdit_core.call import AttentionCall, Chain, TokenGrid
from vdit_core.outcome import Level
from vdit_core.recording.recorder import Recorder
from vdit_core.recording.store import SAME_LEVEL, Evaluation, Key, StoreError
from vdit_core.selection import Indices, LayerMask, Selection
from vdit_core.transfer import LiveTransfer, Transfer, TransferConfig, TransferError

SOURCE, TARGET = 1, 2
STEPS = (1.0, 0.8, 0.5)
OTHER_STEPS = (1.0, 0.75, 0.25)
HEUN = (1.0, 0.8, 0.8, 0.5, 0.5)  # comes back to a level
SDE = (1.0, 0.9, 0.8, 0.65, 0.5)  # looks in between
BETWEEN = (0.95, 0.9, 0.7, 0.6, 0.4)  # hardly evaluates its own levels


@dataclass
class Case:
    """source, target: fields of the host, and the `levels` that its sampler visits. kept: of the source.

    said: why it is refused. of: which (level, visit) of the source serves one of the target's, None for none; others
    serve themselves. report: of replaced, expected and missed calls.
    """

    source: dict = field(default_factory=dict)
    target: dict = field(default_factory=dict)
    kept: Selection | None = None
    where: TransferConfig = field(default_factory=TransferConfig)
    gap: float = SAME_LEVEL
    said: str = ""
    of: dict = field(default_factory=dict)
    report: tuple[int, int, int] = (18, 18, 0)

    def __post_init__(self):
        self.levels = [side.pop("levels", None) for side in (self.source, self.target)]
        self.source, self.target = SyntheticHost(**self.source), SyntheticHost(**self.target)


def case(name, **given):
    return pytest.param(Case(**given), id=name)


REFUSED = [
    case("more layers", source={"layers": 4}, said="a model of 4 layers x 2 heads x 8; this one has 3 layers"),
    case("fewer layers", source={"layers": 2}, said="a model of 2 layers .*; this one has 3 layers"),
    case("other heads", source={"heads": 4}, said="3 layers x 4 heads x 8; this one has 3 layers x 2 heads"),
    case("other width", source={"head_dim": 16}, said="2 heads x 16; this one has 3 layers x 2 heads x 8"),
    case("image-to-video", source={"kind": "wan i2v 36 -> 16"}, said="of kind wan i2v .*; this one is wan t2v"),
    case(
        "more frames",
        source={"grid": TokenGrid(3, 3, 3)},
        said="Source: 3 steps, 3 x 3 x 3 tokens. Target: 2 x",
    ),
    case("turned", source={"grid": TokenGrid(2, 1, 9)}, said="2 x 1 x 9 tokens. Target: 2 x 3 x 3 tokens"),
    case(
        "a picture before",
        source={"grid": TokenGrid(2, 3, 3, 9)},
        said=r"2 x 3 x 3 tokens \+ 9 tokens of a reference. Target: 2 x",
    ),
    case(
        "a picture behind",
        source={"grid": TokenGrid(2, 3, 3, 0, 9)},
        said=r"2 x 3 x 3 tokens \+ 9 further tokens. Target: 2 x",
    ),
    case(
        "before and behind",
        source={"grid": TokenGrid(2, 3, 3, 1, 0)},
        target={"grid": TokenGrid(2, 3, 3, 0, 1)},
        said=r"\+ 1 tokens of a reference. Target: 2 x 3 x 3 tokens \+ 1 further tokens",
    ),
    case("size and advice", source={"grid": TokenGrid(2, 3, 4)}, said="Use the source's width, height and length"),
    case("2 samples for 1", source={"samples": 2}, said="The store holds 2 samples, this run has 1: record one"),
    case("2 samples for 3", source={"samples": 2}, target={"samples": 3}, said="holds 2 samples, this run has 3"),
    case("3 samples for 2", source={"samples": 3}, target={"samples": 2}, said="or as many as the target has"),
    case("a missing head", kept=Selection(heads=Indices("0")), said=r"Heads \[1\] were not recorded; the st"),
    case(
        "another head",
        kept=Selection(heads=Indices("0")),
        where=TransferConfig(heads=Indices("1")),
        said=r"holds heads \[0\]",
    ),
    case(
        "no layer that both have",
        kept=Selection(Indices("0-1")),
        where=TransferConfig(LayerMask("2")),
        said="layer 2 was not recorded. The store holds 2 of 3 layers",
    ),
    case(
        "no step that both have",
        kept=Selection(steps=Indices("0")),
        where=TransferConfig(steps=Indices("1-2")),
        said="steps 1-2 were not recorded",
    ),
    case("nothing recorded", kept=Selection(Indices("none")), said="holds no queries and keys"),
    case(
        "no prompt that both have",
        kept=Selection(branches="cond"),
        where=TransferConfig(branches="uncond"),
        said="the negative prompt was not recorded",
    ),
    case(
        "other scheduler",
        source={"sigmas": OTHER_STEPS},
        said="levels 1.000, 0.750, 0.250. Target: noise levels 1.000, 0.8",
    ),
    case("other shift", source={"sigmas": (1.0, 0.798, 0.5)}, said="Step 1 of the target has no counterpart"),
    case("fewer steps", source={"sigmas": (1.0, 0.5)}, said="narrow the transfer's steps, or widen its gap"),
    case("more steps", target={"sigmas": (1.0, 0.9, 0.8, 0.6)}, said="Source: 3 steps, .*Target: 4 steps"),
    case("denoise below 1", source={"sigmas": (0.6, 0.4)}, said="noise from 0.60. Target: 3 steps, noise from 1.00"),
    case("one that looks between", source={"levels": BETWEEN}, said="as dpm_fast and dpm_adaptive do: sample so"),
]


@pytest.mark.parametrize("case", REFUSED)
def test_what_does_not_fit_is_refused_before_the_first_call(case):
    calls, recorder = [], Recorder(case.kept)

    def backend(q, k, v):
        calls.append(1)
        return v

    case.source.run(SOURCE, recorder, evaluations=case.levels[0])
    with pytest.raises(TransferError, match=case.said):
        case.target.run(TARGET, Transfer(recorder.take(), case.where, case.gap), backend=backend)
    assert calls == []


def expected(case) -> dict:
    """Every row of every call of the target: the source's map where it is to be, on the target's own values."""
    source, target, (visited, levels) = case.source, case.target, case.levels
    recorded = {}
    for site in source.sites(visited):
        q, k, _ = source.tensors(SOURCE, site)
        for i, row in enumerate(site.rows):
            recorded[site.layer, (site.sigma, site.visit), row.branch, row.sample] = q[i], k[i]
    run, outputs = target.describe(), {}
    places = case.where.resolve(run)
    for site in target.sites(levels):
        q, k, v = target.tensors(TARGET, site)
        came = case.of.get((site.sigma, site.visit), (site.sigma, site.visit))
        for i, row in enumerate(site.rows):
            one = q[i], k[i]
            if places.take(site) and row.branch in places.branches and came is not None:
                sample = row.sample if source.samples > 1 else 0
                one = recorded[site.layer, came, row.branch, sample]
            outputs[site.layer, site.sigma, site.visit, row.branch, row.sample] = F.scaled_dot_product_attention(
                *(x[None].to(v.dtype) for x in one), v[i][None]
            )[0]
    return outputs


COND = TransferConfig(branches="cond")
USED = [
    case("itself"),
    case("one sample for three", target={"samples": 3}),
    case("two samples for two", source={"samples": 2}, target={"samples": 2}),
    case("three samples for three", source={"samples": 3}, target={"samples": 3}),
    case("three in one call", source={"samples": 3, "batched": True}, target={"samples": 3}),
    case("three put into one call", source={"samples": 3}, target={"samples": 3, "batched": True}),
    case("half quantization", source={"dtype": torch.float16}),
    case("a kind nobody knows", source={"kind": ""}),
    case("into a kind nobody knows", target={"kind": ""}),
    case("rounding", source={"sigmas": (1.0, 0.7995, 0.5)}, of={(0.8, 0): (0.7995, 0)}),
    case("a wider gap", source={"sigmas": OTHER_STEPS}, gap=0.3, of={(0.8, 0): (0.75, 0), (0.5, 0): (0.75, 0)}),
    case("one level for all", source={"sigmas": (0.7,)}, gap=1.0, of={(s, 0): (0.7, 0) for s in STEPS}),
    case(
        "steps that both have",
        source={"sigmas": OTHER_STEPS},
        where=TransferConfig(steps=Indices("0")),
        report=(6, 6, 0),
    ),
    case("guidance off", target={"branches": ("cond",)}, report=(9, 9, 0)),
    case("guidance off in the source", source={"branches": ("cond",)}, where=COND, report=(9, 9, 0)),
    case("a second prompt left alone", target={"branches": ("cond", "cond 2")}, where=COND, report=(9, 9, 0)),
    case("two prompts", source={"branches": ("cond", "cond 2", "uncond")}, target={"branches": ("cond", "cond 2")}),
    case("scheduled target", target={"absent": frozenset({(1, "uncond")})}, report=(15, 15, 0)),
    case(
        "scheduled both",
        source={"absent": frozenset({(1, "uncond")})},
        target={"absent": frozenset({(1, "uncond")})},
        report=(15, 15, 0),
    ),
    case("Heun twice", source={"levels": HEUN}, target={"levels": HEUN}),
    case("Heun into Euler", source={"levels": HEUN}),
    case("Euler into Heun", target={"levels": HEUN}, of={(s, 1): (s, 0) for s in STEPS}),
    case("SDE twice", source={"levels": SDE}, target={"levels": SDE}),
    case("SDE into Euler", source={"levels": SDE}),
    case("Euler into SDE", target={"levels": SDE}, of={(0.9, 0): None, (0.65, 0): None}, report=(18, 18, 12)),
    case(
        "Euler into SDE, one layer",
        target={"levels": SDE},
        where=TransferConfig(LayerMask("1")),
        of={(0.9, 0): None, (0.65, 0): None},
        report=(6, 6, 4),
    ),
    case("target skips a level", target={"levels": (1.0, 0.5)}, report=(12, 18, 0)),
    case("a layer that both have", where=TransferConfig(LayerMask("2")), report=(6, 6, 0)),
]


#: What a source lacks, and how that is told; `of` says which calls have a twin in it.
PARTLY = [
    case("a missing layer", kept=Selection(Indices("0-1")), said="layer 2 was not recorded", report=(12, 18, 0)),
    case("missing layers", kept=Selection(Indices("1")), said="layers 0, 2 were not recorded", report=(6, 18, 0)),
    case("a missing step", kept=Selection(steps=Indices("0-1")), said="step 2 was not recorded", report=(12, 18, 0)),
    case("the first missing", kept=Selection(steps=Indices("1-2")), said="step 0 was not recorded", report=(12, 18, 0)),
    case(
        "a missing branch",
        kept=Selection(branches="cond"),
        said="the negative prompt was not recorded",
        report=(9, 18, 0),
    ),
    case(
        "source without guidance",
        source={"branches": ("cond",)},
        said="the negative prompt was not recorded",
        report=(9, 18, 0),
    ),
    case(
        "a second prompt",
        target={"branches": ("cond", "cond 2")},
        said="the prompt 'cond 2' was not recorded",
        report=(9, 18, 0),
    ),
    case(
        "scheduled prompt",
        source={"absent": frozenset({(1, "uncond")})},
        said="the source's run did not compute the negative prompt in step 1",
        report=(15, 18, 0),
    ),
    case("levels left out", source={"levels": (1.0, 0.5)}, said="step 1 was not recorded", report=(12, 18, 0)),
    case(
        "target skips a level",
        target={"levels": (1.0, 0.5)},
        said="6 calls did not come, in step 1: something leaves steps out",
        report=(12, 18, 0),
    ),
]


@pytest.mark.parametrize("case", PARTLY)
def test_what_was_not_recorded_runs_stock_and_is_told(case):
    recorder = Recorder(case.kept)
    case.source.run(SOURCE, recorder, evaluations=case.levels[0])
    transfer = Transfer(recorder.take(), case.where, case.gap)
    stock, whole = (case.target.run(TARGET, *also, evaluations=case.levels[1]) for also in ((), (transfer,)))
    everything = Recorder()
    SyntheticHost(branches=("cond", "cond 2", "uncond")).run(SOURCE, everything)
    wanted = case.target.run(TARGET, Transfer(everything.take()), evaluations=case.levels[1])
    for (layer, sigma, visit, branch, sample), value in whole.items():
        has = Key(Evaluation(sigma, visit), branch, layer) in transfer.store
        assert torch.equal(value, (wanted if has else stock)[layer, sigma, visit, branch, sample])
    found = transfer.report
    assert (found.replaced, found.expected, found.missed) == case.report
    assert found.verdict().level is Level.PARTLY
    assert case.said in found.verdict().text


@pytest.mark.parametrize("tier", ["RAM", "disk"])
@pytest.mark.parametrize("case", USED)
def test_what_fits_is_used_exactly(disk, tier, case):
    recorder = Recorder(tier=tier, folder=disk)
    case.source.run(SOURCE, recorder, evaluations=case.levels[0])
    transfer = Transfer(recorder.take(), case.where, case.gap)
    outputs = case.target.run(TARGET, transfer, evaluations=case.levels[1])
    wanted = expected(case)
    assert outputs.keys() == wanted.keys()
    for place, value in wanted.items():
        torch.testing.assert_close(outputs[place], value, atol=1e-5, rtol=1e-5)
    found = transfer.report
    assert (found.replaced, found.expected, found.missed) == case.report


GAPS = [("negative", -1.0), ("not a number", float("nan"))]


@pytest.mark.parametrize("gap", [pytest.param(gap, id=name) for name, gap in GAPS])
def test_a_gap_that_nothing_can_be_within_is_refused(record, gap):
    with pytest.raises(TransferError, match=r"The gap is .*; it is a distance of noise levels, 0 or more"):
        Transfer(record(), gap=gap)


#: A visit that was recorded, others that ask for it.
VISITS = [("the same", 0, 0), ("the last before", 5, 1), ("the second", 1, 1)]


@pytest.mark.parametrize(("asked", "found"), [pytest.param(*case, id=name) for name, *case in VISITS])
def test_visits_are_matched_by_number(record, asked, found):
    assert record(evaluations=HEUN).find(0.8, asked) == Evaluation(0.8, found)


def on_other_grids(described: SyntheticHost, computed: list[SyntheticHost], interceptor) -> dict:
    """A run that is described on one grid, and then computes calls on others in turn (context windows)."""
    chain, outputs = Chain([interceptor]), {}
    run = described.describe()
    try:
        chain.begin(run)
        for n, site in enumerate(described.sites()):
            here = computed[n % len(computed)]
            moved = replace(site, run=replace(run, grid=here.grid))
            output = chain(AttentionCall(moved, *here.tensors(TARGET, site), F.scaled_dot_product_attention))
            outputs |= {(n, i): row for i, row in enumerate(output)}
    finally:
        chain.end(False)
    return outputs


@pytest.mark.parametrize("tier", ["RAM", "GPU", "disk"])
def test_a_recording_holds_one_grid(host, disk, tier):
    windows = [host(grid=TokenGrid(2, 3, 3)), host(grid=TokenGrid(1, 3, 3))]
    said = r"q has shape \(1, 2, 9, 8\); this store holds \(1, 2, 18, 8\)"
    with pytest.raises(StoreError, match=said):
        on_other_grids(host(), windows, Recorder(tier=tier, folder=disk))


@pytest.mark.parametrize("heads", ["all", "1"])
def test_live_transfer_follows_the_grid(host, heads):
    windows = [host(samples=2, grid=grid) for grid in (TokenGrid(2, 3, 3), TokenGrid(1, 3, 3), TokenGrid(4, 1, 1))]
    outputs = on_other_grids(host(samples=2), windows, LiveTransfer(TransferConfig(heads=Indices(heads))))
    for n, site in enumerate(host(samples=2).sites()):
        q, k, v = windows[n % 3].tensors(TARGET, site)
        for head in range(2):
            map_of = 0 if heads == "all" or head == 1 else 1
            own = F.scaled_dot_product_attention(q[map_of, head][None], k[map_of, head][None], v[1, head][None])[0]
            torch.testing.assert_close(outputs[n, 1][head], own, atol=1e-5, rtol=1e-5)


def test_targets_of_other_noise_are_refused(host):
    with pytest.raises(
        TransferError, match=r"other noise than the source\. Start all of the batch from the same noise"
    ):
        host(samples=2, one_noise=False).run(TARGET, LiveTransfer())


@pytest.mark.parametrize("dtype", [torch.float64, torch.int8])
def test_numbers_that_a_store_cannot_hold_are_refused(host, dtype):
    said = f"of dtype {str(dtype)[6:]} cannot be recorded, only float32, float16, bfloat16"
    with pytest.raises(ValueError, match=said):
        host(dtype=dtype).run(SOURCE, Recorder())
