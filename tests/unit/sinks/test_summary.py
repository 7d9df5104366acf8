"""Keys far below a sink's share are not called sinks, however low the ratio was set."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from vdit_core.sinks.describe import called, summary


def findings(*ratios: float) -> SimpleNamespace:
    sinks = [SimpleNamespace(ratio=ratio) for ratio in ratios]
    return SimpleNamespace(
        sinks=sinks, peak=np.array([[max(ratios, default=3.0)]]), tokens=lambda: set(range(len(sinks))),
        sink_heads=lambda: [(0, 0)],
    )  # fmt: skip


@pytest.mark.parametrize(
    ("ratios", "text"),
    [
        ((), "no sinks; strongest key 3 x uniform"),
        ((3.0, 5.0), "2 strongest keys in 1 heads, no sinks; strongest key 5 x uniform"),
        ((3.0, 16.0), "2 sinks in 1 heads; strongest key 16 x uniform"),
    ],
)
def test_what_was_found_in_a_line(ratios, text):
    assert summary(findings(*ratios)) == text


def test_the_name_is_that_of_the_strongest():
    assert called(findings(2.0)) == "strongest keys"
    assert called(findings(2.0, 40.0)) == "sinks"
