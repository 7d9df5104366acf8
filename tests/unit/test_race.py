"""The ways to compute a thing race once; one that fails is left out, and said."""

from __future__ import annotations

import math
import time

import pytest
import torch

from vdit_core.race import Race

CPU = torch.device("cpu")


def test_the_fastest_of_three_is_found_once():
    runs = []

    def way(name: str, seconds: float):
        return lambda: runs.append(name) or time.sleep(seconds)

    race = Race()
    ways = [way("slow", 0.03), way("fast", 0.0), way("host", 0.01)]
    times = race.run("kind", ways, CPU)
    assert times.index(min(times)) == 1
    assert times[0] > times[2] > times[1]
    assert race.run("kind", ways, CPU) == times
    assert len(runs) == 6, "twice each, and not again"
    race.run("another kind", ways, CPU)
    assert len(runs) == 12


def test_a_way_that_fails_takes_for_ever_and_says_so(caplog):
    def broken():
        raise RuntimeError("no such instruction")

    times = Race().run("kind", [broken, lambda: None], CPU)
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
        Race().run("kind", ways, CPU)
