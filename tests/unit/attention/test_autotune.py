"""Candidates are timed once; one that fails is left out, and the log says so."""

from __future__ import annotations

import math

import pytest
import torch

from vdit_core.attention.autotune import Autotuner

CPU = torch.device("cpu")


@pytest.fixture
def clock(monkeypatch) -> list[float]:
    """A clock that only stands still or is moved."""
    now = [0.0]
    monkeypatch.setattr("vdit_core.attention.autotune.time.perf_counter", lambda: now[0])
    return now


def test_the_fastest_of_three_is_found_once(clock):
    runs = []

    def way(name: str, first: float, later: float):
        def run() -> None:
            clock[0] += later if name in runs else first
            runs.append(name)

        return run

    tuner = Autotuner()
    ways = [way("slow", 1, 3), way("fast, once it is compiled", 20, 1), way("host", 2, 2)]
    assert tuner.run("kind", ways, CPU) == (3, 1, 2)
    assert tuner.run("kind", ways, CPU) == (3, 1, 2)
    assert len(runs) == 6, "twice each, and not again"
    tuner.run("another kind", ways, CPU)
    assert len(runs) == 12


def test_a_way_that_fails_takes_for_ever_and_says_so(caplog):
    def broken():
        raise RuntimeError("no such instruction")

    times = Autotuner().run("kind", [broken, lambda: None], CPU)
    assert times[0] == math.inf > times[1]
    assert "no such instruction" in caplog.text


@pytest.mark.parametrize("place", [0, 1])
def test_what_must_not_fail_raises(place):
    """The host's own way, and memory that runs out: whoever asked for it has an answer to that."""

    def broken():
        raise torch.OutOfMemoryError("full") if place == 0 else RuntimeError("the host's")

    ways = [lambda: None, lambda: None]
    ways[place] = broken
    with pytest.raises(RuntimeError, match=r"full|the host's"):
        Autotuner().run("kind", ways, CPU)
