"""The int8 kernels without a GPU."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]


def test_they_are_the_plain_way_bit_for_bit_in_tritons_interpreter():
    pytest.importorskip("triton", reason="needs Triton")
    program = Path(__file__).with_name("interpreted_int8.py")
    done = subprocess.run([sys.executable, str(program)], capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stdout + done.stderr[-2000:]
