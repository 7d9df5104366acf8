"""What a run did, as it is told; who raised an error; which calls came."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vdit_core.call import Interceptor
from vdit_core.coverage import gaps, numbered, ranges
from vdit_core.errors import VDiTError
from vdit_core.outcome import Level, Verdict, done, failed, idle, joined, of_runs
from vdit_core.recording.store import StoreFileError
from vdit_core.transfer import TransferError, TransferReport


def test_a_caveat_makes_a_good_verdict_a_partly_good_one():
    assert done("all").but(None, "") == done("all")
    assert done("all").but("this", None, "that") == Verdict(Level.PARTLY, "all; this; that")
    assert failed("none").but("this") == failed("none; this")
    assert idle("off").but("this").level is Level.IDLE


def test_of_several_the_worst_counts():
    assert joined([idle("a"), done("b")]) == done("a; b")
    assert of_runs([done("a"), failed("b")]) == failed("run 1: a; run 2: b")
    assert of_runs([done("a")]) == done("a")


@pytest.mark.parametrize(
    ("report", "verdict"),
    [
        (TransferReport(4, 4), done("replaced 4 of 4 calls")),
        (TransferReport(4, 4, causes=("x",)), Verdict(Level.PARTLY, "replaced 4 of 4 calls; x")),
        (TransferReport(3, 4), Verdict(Level.PARTLY, "replaced 3 of 4 calls")),
        (TransferReport(0, 4, causes=("x",)), failed("replaced 0 of 4 calls; x")),
        (TransferReport(0, 0, nothing="why"), idle("nothing to replace: why")),
    ],
)
def test_a_transfers_verdict(report, verdict):
    assert report.verdict() == verdict


def test_errors_have_a_short_name():
    for error in (VDiTError, TransferError, StoreFileError):
        assert error.__module__ == "vdit_attention"


class Raises(Interceptor):
    def __init__(self, at: str) -> None:
        self.at = at

    def begin(self, run):
        if self.at == "begin":
            raise TransferError("no")

    def __call__(self, call, proceed):
        if self.at == "call":
            raise TransferError("no")
        return proceed(call)


@pytest.mark.parametrize("at", ["begin", "call"])
def test_an_error_knows_who_raised_it_and_holds_nobody(host, at):
    raiser = Raises(at)
    with pytest.raises(TransferError) as caught:
        host().run(1, Raises("never"), raiser, Raises("never"))
    error = caught.value
    assert error.raised_by is raiser
    assert not any(value is raiser for value in vars(error).values())


def test_what_never_came_is_told():
    came = {(layer, step, "cond") for layer in (0, 1) for step in (0, 2)}
    assert gaps(came, range(2), (0, 2)) == []
    assert gaps(came, range(2), range(4))[0].startswith("steps 1, 3 did not come")
    assert gaps(came, range(4), (0, 2)) == ["layers 2-3 did not come: something replaces or skips them"]
    assert gaps(set(), range(2), range(2)) == ["no call came"]


@given(st.sets(st.integers(0, 60), min_size=1))
def test_numbers_in_words_are_those_numbers(numbers):
    found = set()
    for part in ranges(numbers).split(", "):
        low, _, high = part.partition("-")
        found |= set(range(int(low), int(high or low) + 1))
    assert found == numbers
    assert re.match("layers? ", numbered("layer", numbers))
