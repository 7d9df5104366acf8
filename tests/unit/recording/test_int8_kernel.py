"""The int8 kernels without a GPU."""

from __future__ import annotations

from pathlib import Path

from triton_interpreter import needs_triton, run


@needs_triton
def test_they_are_the_plain_way_bit_for_bit():
    run(Path(__file__).with_name("interpreted_int8_checks.py"))
