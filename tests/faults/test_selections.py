"""Layers, heads, steps, branches and masks as users write them: read as meant, or refused by name before the run."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
import torch
from synthetic_host import same

from vdit_core.call import ModelSignature, TokenGrid
from vdit_core.head_mask import HeadMask
from vdit_core.recording.recorder import Recorder
from vdit_core.recording.store import AttentionStore
from vdit_core.selection import Indices, LayerMask, Selection, SelectionError
from vdit_core.sinks.control import ControlError, SinkControl, Targets
from vdit_core.sinks.observer import SinkObserver
from vdit_core.sparse.config import SparseConfig
from vdit_core.sparse.profile import SparseProfile
from vdit_core.sparse.sparse_attention import SparseAttention
from vdit_core.transfer import LiveTransfer, Transfer, TransferConfig, TransferError

LONG = "9" * 5000  # Python reads no number that long
WORDS = "Write for example: all, none, 3, 3-7"

#: No tool takes these, whatever they are of.
UNREADABLE = [
    ("empty", "", "has an empty term. Write 'none' to select nothing, 'all' for everything"),
    ("blank", " \t\n", "has an empty term"),
    ("comma", ",", "has an empty term"),
    ("two commas", "1,,2", "'1,,2' has an empty term"),
    ("comma at the end", "1,", "'1,' has an empty term"),
    ("reversed", "2-0", "'2-0' runs backwards: write 0-2"),
    ("reversed share", "60%-40%", "'60%-40%' is not a part of the whole: write it as low%-high%, at most 100%"),
    ("share above the whole", "0%-101%", "at most 100%"),
    ("endless share", "0%-" + LONG + "%", "at most 100%"),
    ("share of one end", "50%", f"Cannot read '50%'. {WORDS}"),
    ("negative", "-1", f"Cannot read '-1'. {WORDS}"),
    ("negative end", "0--2", "Cannot read '0--2'"),
    ("open end", "1-", "Cannot read '1-'"),
    ("open beginning", "-2", "Cannot read '-2'"),
    ("float", "1.5", "Cannot read '1.5'"),
    ("exponent", "1e0", "Cannot read '1e0'"),
    ("plus", "+1", "Cannot read '+1'"),
    ("hexadecimal", "0x1", "Cannot read '0x1'"),
    ("underscore", "1_0", "Cannot read '1_0'"),
    ("no stride", "0-2/0", "'0-2/0': the stride must be at least 1"),
    ("negative stride", "0-2/-1", "Cannot read '0-2/-1'"),
    ("stride of one", "1/2", "Cannot read '1/2'"),
    ("arabic digits", "١", "Cannot read '١'"),
    ("full-width digits", "１", "Cannot read '１'"),
    ("superscript", "²", "Cannot read '²'"),
    ("en dash", "0–2", "Cannot read '0–2'"),
    ("minus sign", "0−2", "Cannot read '0−2'"),
    ("semicolon", "0;2", "Cannot read '0;2'"),
    ("blank inside", "0 - 2", "Cannot read '0 - 2'"),
    ("no-break space inside", "0\u00a01", "Cannot read"),
    ("zero-width space", "1\u200b", "Cannot read"),
    ("null", "1\0", "Cannot read"),
    ("line of two", "0\n1", "Cannot read"),
    ("other word", "every", "Cannot read 'every'"),
    ("not a number", "nan", "Cannot read 'nan'"),
    ("dotted capital", "mİddle", "Cannot read"),
    ("a number of 5000 digits", LONG, "'999999999999'... is out of range: it is 5000 digits long"),
    ("a stride of 5000 digits", "0-2/" + LONG, "'0-2/99999999'... is out of range"),
    ("a number instead of text", 3, "is text such as 'all' or '3-7', not 3"),
    ("nothing instead of text", None, "is text such as 'all' or '3-7', not None"),
    ("a list instead of text", [0, 1], "is text such as 'all' or '3-7', not [0, 1]"),
]


@pytest.mark.parametrize("taker", [Indices, LayerMask, HeadMask])
@pytest.mark.parametrize(("text", "said"), [pytest.param(*case, id=name) for name, *case in UNREADABLE])
def test_what_cannot_be_read_is_refused_at_once(taker, text, said):
    with pytest.raises(SelectionError, match=re.escape(said)):
        taker(text)


STRENGTHS = [
    ("not a number", "1:nan", "Cannot read the strength 'nan' in '1:nan': write a number from 0 to 1"),
    ("infinite", "1:inf", "Cannot read the strength 'inf'"),
    ("negative", "1:-0.5", "Cannot read the strength '-0.5'"),
    ("above 1", "1:1.01", "Strength 1.01 in '1:1.01' is out of range: 0 \\(off\\) to 1 \\(full\\)"),
    ("of 5000 digits", "1:" + LONG, "is out of range"),
    ("exponent", "1:1e-3", "Cannot read the strength '1e-3'"),
    ("percent", "1:50%", "Cannot read the strength '50%'"),
    ("empty", "1:", "Cannot read the strength ''"),
    ("dot", "1:.", "Cannot read the strength '.'"),
    ("two", "1:0.5:0.5", "Cannot read the strength '0.5:0.5'"),
    ("decimal comma", "1:0,5", "Layer 5 in '5' is out of range"),
    ("without a layer", ":0.5", f"Cannot read ''. {WORDS}"),
    ("full-width digits", "1:０.５", "Cannot read the strength"),
    ("of a wrong term", "x:0.5", "Cannot read 'x'"),
    ("long and wrong", "1:" + "1" * 200_000 + "x", "Cannot read the strength"),
]


@pytest.mark.parametrize(("text", "said"), [pytest.param(*case, id=name) for name, *case in STRENGTHS])
def test_strengths_that_cannot_be_meant_are_refused_at_once(host, text, said):
    with pytest.raises(SelectionError, match=said):
        LayerMask(text).resolve(3)
    with pytest.raises(SelectionError, match=said):
        HeadMask(text).resolve(3, 2)


@pytest.mark.parametrize("strength", [float("nan"), float("inf"), -0.5, 1.5])
def test_masks_made_of_numbers_are_held_to_the_same(strength):
    with pytest.raises(SelectionError, match=r"strength|Strength"):
        LayerMask.of({1: strength})
    with pytest.raises(SelectionError, match=r"strength|Strength"):
        HeadMask.of({(1, 0): strength})


HEADS = [
    ("no head", "1@", f"Cannot read ''. {WORDS}"),
    ("no layer", "@1", f"Cannot read ''. {WORDS}"),
    ("two of them", "1@0@1", "Cannot read '0@1'"),
    ("unknown word", "1@first", "Cannot read 'first'"),
    ("a kind", "1@double 0", "'double 0' in '1@double 0' names a kind of blocks; heads have no kinds"),
    ("reversed", "1@1-0", "'1-0' runs backwards: write 0-1"),
    ("too far", "1@0-2", "Head 2 in '0-2' is out of range: there are 2 heads, 0 to 1"),
    ("huge", "1@99999999999999999999", "there are 2 heads, 0 to 1"),
    ("strength before the head", "1:0.5@0", "Cannot read the strength '0.5@0'"),
    ("layer too far", "3@0", "Layer 3 in '3' is out of range: there are 3 layers, 0 to 2"),
]


@pytest.mark.parametrize(("text", "said"), [pytest.param(*case, id=name) for name, *case in HEADS])
def test_heads_that_cannot_be_read_are_refused(text, said):
    with pytest.raises(SelectionError, match=re.escape(said)):
        HeadMask(text).resolve(3, 2)


@pytest.mark.parametrize(
    ("strength", "kept"), [(1e-7, {}), (1e-5, {1: 1e-5}), (0.25, {1: 0.25}), (1, {1: 1.0}), (0, {})]
)
def test_small_strengths_survive_their_text(strength, kept):
    assert LayerMask.of({1: strength}).resolve(3) == kept


#: Read, and then too much for a model of 3 layers and 2 heads in 3 steps: (field, text, what is said).
TOO_MUCH = [
    ("layer one too far", "layers", "3", "Layer 3 in '3' is out of range: there are 3 layers, 0 to 2"),
    ("range one too far", "layers", "0-3", "Layer 3 in '0-3' is out of range"),
    ("huge layer", "layers", "99999999999999999999", "there are 3 layers, 0 to 2"),
    ("huge range", "layers", "0-99999999999999999999", "there are 3 layers, 0 to 2"),
    ("range that only its stride keeps inside", "layers", "0-9/5", "Layer 9 in '0-9/5' is out of range"),
    ("one good, one bad", "layers", "0, 7", "Layer 7 in '7' is out of range"),
    ("head one too far", "heads", "2", "Head 2 in '2' is out of range: there are 2 heads, 0 to 1"),
    ("huge head", "heads", "0-4000000000", "there are 2 heads, 0 to 1"),
    ("step one too far", "steps", "3", "Step 3 in '3' is out of range: there are 3 steps, 0 to 2"),
    ("huge step", "steps", "18446744073709551616", "there are 3 steps, 0 to 2"),
    ("other branch", "branches", "conditional", "no branch 'conditional' in this run: it has cond, uncond"),
    ("no branch", "branches", "", "no branch '' in this run"),
    ("branch in capitals", "branches", "COND", "no branch 'COND'"),
    ("branch that this run has not", "branches", "cond 2", "it has cond, uncond"),
]
OF_SPARSE = [case for case in TOO_MUCH if case[1] == "layers"]


@pytest.mark.parametrize("tool", ["recorder", "observer", "transfer", "live"])
@pytest.mark.parametrize(("field", "text", "said"), [pytest.param(*case, id=name) for name, *case in TOO_MUCH])
def test_what_the_run_does_not_have_is_refused_before_its_first_call(host, record, tool, field, text, said):
    calls = []

    def backend(q, k, v):
        calls.append(1)
        return v

    of_mask = tool in ("transfer", "live") and field == "layers"
    value = text if field == "branches" else (LayerMask if of_mask else Indices)(text)
    make = {
        "recorder": lambda: Recorder(Selection(**{field: value})),
        "observer": lambda: SinkObserver(Selection(**{field: value})),
        "transfer": lambda: Transfer(record(samples=2), TransferConfig(**{field: value})),
        "live": lambda: LiveTransfer(TransferConfig(**{field: value})),
    }
    with pytest.raises(SelectionError, match=said):
        host(samples=2).run(1, make[tool](), backend=backend)
    assert calls == []


def sparse_settings(**given) -> SparseConfig:
    return SparseConfig(**({"method": "exact top-k", "minimum_tokens": 0, "dense_first": 0.0} | given))


@pytest.mark.parametrize(("field", "text", "said"), [pytest.param(*case, id=name) for name, *case in OF_SPARSE])
def test_dense_layers_that_the_model_does_not_have_are_refused(host, field, text, said):
    with pytest.raises(SelectionError, match=said):
        host().run(1, SparseAttention(sparse_settings(dense_layers=LayerMask(text))))


MADE_FOR = [("fewer", 2), ("more", 40), ("none", 0)]


@pytest.mark.parametrize("tool", ["transfer", "live", "each target", "sparse"])
@pytest.mark.parametrize("layers", [pytest.param(layers, id=name) for name, layers in MADE_FOR])
def test_a_mask_made_for_another_model_is_refused(host, record, tool, layers):
    """Even where its layers are all there: layer 3 of 30 is no more layer 3 of 40."""
    mask = LayerMask("0", made_for=layers)
    make = {
        "transfer": lambda: Transfer(record(), TransferConfig(mask)),
        "live": lambda: LiveTransfer(TransferConfig(mask)),
        "each target": lambda: LiveTransfer(masks=[mask]),
        "sparse": lambda: SparseAttention(sparse_settings(dense_layers=mask)),
    }
    said = rf"The layer mask '0' was made for a model of {layers} layers; this one has 3\. Make a new mask"
    with pytest.raises(SelectionError, match=said):
        host(samples=1 if tool == "transfer" else 2).run(1, make[tool]())


#: Odd, and still clear: (layers, heads, steps, branches, how many calls of 3 x 3 x 2 are meant).
MEANT = [
    ("duplicates", "1, 1, 1-1", "0, 0, 0-1", "2, 2", "all", 2),
    ("overlaps", "0-1, 1-2, 0-2/2", "all", "all", "all", 18),
    ("blanks", "  0 ,\t2\n", " 1 ", "\u00a00\u3000", "all", 4),
    ("capitals", "ALL", "All", "EARLY", "all", 6),
    ("leading zeros", "000-0002/01", "00", "01", "cond", 3),
    ("a stride beyond the range", "0-2/99999999999999999999", "all", "all", "cond", 3),
    ("shares with fractions", "0%-33.4%", "0%-50%", "99.99%-100%", "all", 0),
    ("an empty share", "50%-50%", "all", "all", "all", 0),
    ("the whole as a share", "0%-100%", "0%-100.0%", "0.0%-100%", "all", 18),
    ("no heads", "all", "none", "all", "all", 0),
    ("no steps", "all", "all", "none", "all", 0),
    ("none beside one", "none, 1", "none, 0", "none, 0", "uncond", 1),
    ("thirds", "early, late", "all", "middle", "all", 4),
]


@pytest.mark.parametrize(
    ("layers", "heads", "steps", "branches", "count"), [pytest.param(*case, id=name) for name, *case in MEANT]
)
def test_odd_texts_mean_what_they_say(host, record, layers, heads, steps, branches, count):
    """As many calls recorded as replaced; a run transferred into itself is itself."""
    recorder = Recorder(Selection(Indices(layers), Indices(heads), Indices(steps), branches))
    plain = host().run(1)
    assert same(host().run(1, recorder), plain)
    assert len(recorder.store) == count
    transfer = Transfer(recorder.store, TransferConfig(LayerMask(layers), Indices(heads), Indices(steps), branches))
    assert same(host().run(1, transfer), plain)
    assert (transfer.report.replaced, transfer.report.expected) == (count, count)
    live = LiveTransfer(TransferConfig(LayerMask(layers), Indices(heads), Indices(steps), branches))
    host(samples=2).run(1, live)
    assert (live.report.replaced, live.report.expected) == (count, count)


OFF = [
    ("none", "none"),
    ("zero", "all:0"),
    ("switched off again", "0-2, 0:0, 1-2:0.000"),
    ("a dot behind zero", "all:0."),
]


@pytest.mark.parametrize("text", [pytest.param(text, id=name) for name, text in OFF])
def test_a_mask_that_is_off_is_the_stock_run(host, record, text):
    store = AttentionStore(record().header)  # nothing is asked of it
    assert same(host().run(2, Transfer(store, TransferConfig(LayerMask(text)))), host().run(2))
    assert same(host(samples=2).run(2, LiveTransfer(TransferConfig(LayerMask(text)))), host(samples=2).run(2))
    assert same(host().run(2, LiveTransfer(TransferConfig(LayerMask(text)))), host().run(2))  # of one sample too


BATCHES = [
    ("no target", 1, None, "Live transfer needs a batch of the source and at least one target; it holds one sample"),
    ("a mask too few", 3, ["all"], r"There are 1 layer masks for 2 targets \(a batch of 3, the source first\)"),
    ("a mask too many", 2, ["all", "0"], "There are 2 layer masks for 1 targets .* each target needs one"),
    ("no masks at all", 2, [], "There are 0 layer masks for 1 targets"),
    ("a mask out of range", 2, ["5"], "Layer 5 in '5' is out of range: there are 3 layers"),
]


@pytest.mark.parametrize(("samples", "masks", "said"), [pytest.param(*case, id=name) for name, *case in BATCHES])
def test_masks_that_do_not_fit_the_batch_are_refused(host, samples, masks, said):
    live = LiveTransfer(masks=None if masks is None else [LayerMask(text) for text in masks])
    with pytest.raises((TransferError, SelectionError), match=said):
        host(samples=samples).run(1, live)


NAN = float("nan")
SPARSE = [
    ("unknown method", {"method": "best"}, "There is no method 'best'; the methods are "),
    ("density below 0", {"density": -0.1}, "density is -0.1; it is a share, from 0 to 1"),
    ("density above 1", {"density": 30}, "density is 30; it is a share, from 0 to 1"),
    ("density not a number", {"density": NAN}, "density is nan"),
    ("first steps above 1", {"dense_first": 2}, "dense_first is 2; it is a share"),
    ("last steps negative", {"dense_last": -1}, "dense_last is -1; it is a share"),
    ("no temperature", {"temperature": 0}, "The temperature is 0, and must be above 0"),
    ("temperature not a number", {"temperature": NAN}, "The temperature is nan"),
    ("endless temperature", {"temperature": float("inf")}, "The temperature is inf"),
    ("unknown way out", {"if_slower": "wait"}, "if_slower is 'wait'; it is dense or sparse"),
]


@pytest.mark.parametrize(("given", "said"), [pytest.param(*case, id=name) for name, *case in SPARSE])
def test_sparse_settings_that_cannot_be_meant_are_refused_at_once(given, said):
    with pytest.raises(ValueError, match=said):
        SparseConfig(**given)


def profile(layers: int = 3, method: str = "exact top-k") -> SparseProfile:
    table = tuple(tuple((0.5, 0.1) for _ in range(2)) for _ in range(layers))
    ones = tuple(tuple((1.0, 1.0) for _ in range(2)) for _ in range(layers))
    return SparseProfile(ModelSignature(layers, 2, 8), method, 0.5, (0.25, 0.5), table, ones)


FOR_THE_RUN = [
    ("profile of another model", {"profile": profile(40)}, "measured on a model of 40 layers .* this one has 3 layers"),
    (
        "profile of another method",
        {"profile": profile(method="block top-k")},
        "for the method 'block top-k', not 'exact top-k'",
    ),
]


@pytest.mark.parametrize(("given", "said"), [pytest.param(*case, id=name) for name, *case in FOR_THE_RUN])
def test_sparse_settings_that_do_not_fit_the_run_are_refused(host, given, said):
    with pytest.raises(ValueError, match=said):
        host().run(1, SparseAttention(sparse_settings(**given)))


def test_as_many_densities_as_samples_are_needed(host):
    with pytest.raises(ValueError, match=r"The densities have shape \(2, 3, 2\); this run needs \(3, 3, 2\)"):
        host(samples=3).run(1, SparseAttention(sparse_settings(), densities=[torch.ones(3, 2)] * 2))


HERE = Targets(ModelSignature(3, 2, 8), TokenGrid(2, 3, 3), {(1, 0): (4,)})
CONTROLS = [
    (
        "unknown action",
        HERE,
        {"action": "remove"},
        "There is no action 'remove'; the actions are mask, cap, mean, skip",
    ),
    ("no cap", HERE, {"cap": 0}, "a share between 0 and 1, not 0"),
    ("cap of everything", HERE, {"cap": 1}, "a share between 0 and 1, not 1"),
    ("cap not a number", HERE, {"cap": NAN}, "a share between 0 and 1, not nan"),
    (
        "of more layers",
        replace(HERE, model=ModelSignature(40, 2, 8)),
        {},
        "a model of 40 layers .* this run has 3 layers",
    ),
    ("of more frames", replace(HERE, grid=TokenGrid(9, 3, 3)), {}, "a grid of 9 x 3 x 3 .* Inspect this model"),
    ("token off the grid", replace(HERE, tokens={(1, 0): (18,)}), {}, "Token 18 .* 18 tokens"),
    ("negative token", replace(HERE, tokens={(1, 0): (-1,)}), {}, "Token -1 "),
    ("head too far", replace(HERE, tokens={(1, 2): (4,)}), {}, "Head 2 of layer 1 .* 3 layers x 2 heads"),
    ("layer too far", replace(HERE, tokens={(3, 0): (4,)}), {}, "Head 0 of layer 3 "),
]


@pytest.mark.parametrize(("targets", "given", "said"), [pytest.param(*case, id=name) for name, *case in CONTROLS])
def test_sinks_that_do_not_fit_are_refused(host, targets, given, said):
    with pytest.raises((ValueError, ControlError), match=said):
        host().run(1, SinkControl(targets, **given))


TOOLS = [
    ("quantization", {"quantization": "int4"}, "Quantization 'int4' is not one of none, int8"),
    ("tier", {"tier": "ram"}, "Tier 'ram' is not one of RAM, pinned RAM, GPU, disk"),
    ("no tier", {"tier": ""}, "Tier '' is not one of"),
]


@pytest.mark.parametrize(("given", "said"), [pytest.param(*case, id=name) for name, *case in TOOLS])
def test_a_recorder_of_another_kind_is_refused_at_once(given, said):
    with pytest.raises(ValueError, match=said):
        Recorder(**given)
