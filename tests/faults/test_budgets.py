"""What a recording may take: what fits goes through, what does not is refused before it is begun, with what would."""

from __future__ import annotations

import math
import re
from itertools import combinations

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from synthetic_host import SyntheticHost

from vdit_core.call import TokenGrid
from vdit_core.recording.budget import MemoryBudget, RecordingTooLarge
from vdit_core.recording.recorder import Recorder
from vdit_core.selection import Indices, Selection
from vdit_core.transfer import LiveTransfer

EXACT, INT8 = 2 * 2 * 18 * 8 * 4, 2 * 2 * 18 * (8 + 4)  # bytes of a call: q and k, 2 heads, 18 tokens, 8 wide
CALL = {"none": EXACT, "int8": INT8}
CALLS = 3 * 3 * 2
TIERS = ["RAM", "GPU", "disk"]

#: How much there is, in bytes, by what the recording weighs; and how many calls of the 18 fit.
ROOMS = [
    ("twice as much", lambda size: 2 * size, 36),
    ("exactly that", lambda size: size, 18),
    ("a byte more", lambda size: size + 1, 18),
    ("a byte less", lambda size: size - 1, 17),
    ("half", lambda size: size // 2, 9),
    ("one call", lambda size: size // 18, 1),
    ("a byte less than one call", lambda size: size // 18 - 1, 0),
    ("nothing", lambda size: 0, 0),
    ("less than nothing", lambda size: -5, 0),
    ("no bounds", lambda size: math.inf, 99),
]


@pytest.mark.parametrize("how", ["granted", "free"])
@pytest.mark.parametrize("quantization", ["none", "int8"])
@pytest.mark.parametrize("tier", TIERS)
@pytest.mark.parametrize(("size", "fit"), [pytest.param(*case, id=name) for name, *case in ROOMS])
def test_it_fits_to_the_byte(host, disk, tier, quantization, how, size, fit):
    there = size(CALLS * CALL[quantization])
    budget = MemoryBudget(there) if how == "granted" else MemoryBudget(free=lambda tier, wanted: there)
    recorder = Recorder(quantization=quantization, tier=tier, budget=budget, folder=disk)
    if fit >= CALLS:
        host().run(1, recorder)
        assert recorder.take().nbytes == CALLS * CALL[quantization]
        return
    said = (
        rf"would weigh .* of {tier}: 3 layers x 3 steps x 2 branches = 18 calls of .*; {fit} fit\. Any of these would"
    )
    with pytest.raises(RecordingTooLarge, match=said):
        host().run(1, recorder)
    with pytest.raises(RuntimeError, match="no recording"):
        recorder.take()


WAN_14B = {
    "layers": 40, "heads": 40, "head_dim": 128, "grid": TokenGrid(21, 45, 80), "dtype": torch.bfloat16,
}  # fmt: skip

#: What runs, what of it is recorded, the levels visited, the room in calls, and what comes of it: words, or calls.
TWICE = tuple(level for level in (1.0, 0.8, 0.5) for _ in range(2))
RUNS = [
    ("nothing is recorded", {}, Selection(Indices("none")), None, 0, 0),
    ("of no heads", {}, Selection(heads=Indices("none")), None, 0, 0),
    ("of no steps", {}, Selection(steps=Indices("none")), None, 0, 0),
    ("of a part", {}, Selection(Indices("0"), steps=Indices("1")), None, 2, 2),
    (
        "of a part, one too little",
        {},
        Selection(Indices("0"), steps=Indices("1")),
        None,
        1,
        "1 layers x 1 steps x 2 br",
    ),
    ("of half the heads", {}, Selection(heads=Indices("1")), None, 9, 18),
    ("one branch", {}, Selection(branches="cond"), None, 9, 9),
    ("a branch is absent once", {"absent": frozenset({(1, "uncond")})}, None, None, 15, 15),
    (
        "absent, one too little",
        {"absent": frozenset({(1, "uncond")})},
        None,
        None,
        14,
        "3 layers x 5 passes in 3 steps = 15",
    ),
    ("a branch never comes", {"absent": frozenset({(i, "uncond") for i in range(3)})}, None, None, 9, 9),
    ("two evaluations, known", {"evaluations": 2}, None, TWICE, 36, 36),
    (
        "two evaluations, known, too many",
        {"evaluations": 2},
        None,
        TWICE,
        35,
        "x 2 evaluations = 36 calls of .*; 35 fit",
    ),
    ("two evaluations, unknown, room", {}, None, TWICE, 36, 36),
    (
        "two evaluations, unknown",
        {},
        None,
        TWICE,
        18,
        "has reached the .* 18 calls, at noise level 0.8000: this sampler",
    ),
    ("levels inside steps, unknown", {}, None, (1.0, 0.9, 0.8, 0.5), 18, "18 calls, at noise level 0.5000"),
    ("two samples weigh twice", {"samples": 2}, None, None, 35, r"18 calls of .*\(2 x 2 x 3 x 3 = 18 tokens.*; 17 fit"),
    ("two samples", {"samples": 2}, None, None, 36, 18),
    ("half quantization weighs half", {"dtype": torch.float16}, None, None, 9, 18),
    (
        "more tokens",
        {"grid": TokenGrid(2, 3, 3, 1, 2)},
        None,
        None,
        18,
        "2 x 3 x 3 [+] 1 [+] 2 behind = 21 tokens, float32.*; 15 fit",
    ),
    ("cfg 1", {"branches": ("cond",)}, None, None, 9, 9),
    ("Wan2.1 14B", WAN_14B, None, None, 10**7, r"weigh 346\.1 GiB, and it may take 21\.5 GiB .*, for example 0-39/20"),
]


@pytest.mark.parametrize("tier", ["RAM", "disk"])
@pytest.mark.parametrize(
    ("fields", "selection", "evaluations", "calls", "comes"), [pytest.param(*case, id=name) for name, *case in RUNS]
)
def test_what_a_run_needs_is_what_it_is_held_to(host, disk, tier, fields, selection, evaluations, calls, comes):
    recorder = Recorder(selection, tier=tier, budget=MemoryBudget(calls * EXACT), folder=disk)
    if isinstance(comes, str):
        with pytest.raises(RecordingTooLarge, match=comes):
            host(**fields).run(1, recorder, evaluations=evaluations)
        return
    host(**fields).run(1, recorder, evaluations=evaluations)
    assert len(recorder.take()) == comes


def test_page_locked_ram_is_counted_as_it_is_given_out(host):
    """In whole pages: a call's q and k of 1,152 bytes each take 4,096 together."""
    with pytest.raises(RecordingTooLarge, match=r"of pinned RAM: .*; 17 fit"):
        host().run(1, Recorder(tier="pinned RAM", budget=MemoryBudget(CALLS * 4096 - 1)))


def layers_of(count: int) -> Selection:
    return Selection(Indices(f"0-{count - 1}"))


@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_each_piece_of_advice_fits(disk, data):
    """Whatever the shape and the budget: who does what the message says can record."""
    steps = data.draw(st.integers(1, 4))
    branches = ("cond", "uncond", "cond 2")[: data.draw(st.integers(1, 3))]
    pairs = [(step, branch) for step in range(steps) for branch in branches[1:]]
    there = SyntheticHost(
        layers=data.draw(st.integers(1, 7)),
        heads=data.draw(st.integers(1, 2)),
        head_dim=data.draw(st.sampled_from([4, 8, 32])),
        grid=TokenGrid(1, 1, data.draw(st.integers(1, 5))),
        sigmas=tuple(1 - i / steps for i in range(steps)),
        branches=branches,
        absent=frozenset(data.draw(st.lists(st.sampled_from(pairs), unique=True)) if pairs else ()),
        evaluations=data.draw(st.integers(1, 2)),
    )
    visited = tuple(level for level in there.sigmas for _ in range(there.evaluations))
    tier = data.draw(st.sampled_from(TIERS))
    measured = Recorder(tier=tier, folder=disk)
    there.run(1, measured, evaluations=visited)
    size = measured.take().nbytes
    limit = data.draw(st.integers(0, size - 1))
    free = {tier: limit, "disk": limit if tier == "disk" else data.draw(st.integers(0, 2 * size))}
    budget = MemoryBudget(data.draw(st.sampled_from([math.inf, limit])), lambda tier, wanted: free.get(tier, 0))
    with pytest.raises(RecordingTooLarge) as caught:
        there.run(1, Recorder(tier=tier, budget=budget, folder=disk), evaluations=visited)
    advice = str(caught.value).split("would fit: ")[1]

    def goes(selection: Selection | None = None, quantization="none", tier=tier, budget=budget) -> None:
        recorder = Recorder(selection, quantization, tier, budget, disk)
        there.run(1, recorder, evaluations=visited)
        assert recorder.take().nbytes <= budget.of(tier, 0)

    if found := re.search(r"(\d+) of these layers", advice):
        goes(layers_of(int(found[1])))
    if found := re.search(r"for example (\S+),", advice):
        goes(Selection(Indices(found[1])))
    if found := re.search(r"(\d+) of these steps", advice):
        for chosen in combinations(range(steps), int(found[1])):
            goes(Selection(steps=Indices(", ".join(map(str, chosen)))))
    if "quantization int8" in advice:
        goes(quantization="int8")
    if "the disk" in advice:
        goes(tier="disk", budget=MemoryBudget(size, budget.free))
    assert "live transfer" in advice
    SyntheticHost(samples=2).run(1, LiveTransfer())
