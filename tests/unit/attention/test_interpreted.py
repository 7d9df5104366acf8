"""Statistics of maps by kernels, on the CPU."""

from __future__ import annotations

from pathlib import Path

from triton_interpreter import needs_triton, run


@needs_triton
def test_kernels_do_on_a_cpu_what_the_plain_path_does():
    run(Path(__file__).with_name("interpreted_checks.py"))
