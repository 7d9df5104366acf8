"""Kernels on the CPU, by Triton's interpreter; in a process of its own, since Triton must know when it is imported."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT, CHECKS = Path(__file__).parents[3], Path(__file__).with_name("interpreted_checks.py")


@pytest.mark.skipif(find_spec("triton") is None, reason="needs Triton")
def test_kernels_do_on_a_cpu_what_the_plain_path_does():
    names = ["-o", "python_functions=check_*", "-p", "no:cacheprovider", "-q", "--durations=0"]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", str(CHECKS), *names],
        capture_output=True, text=True, cwd=ROOT, env=os.environ | {"TRITON_INTERPRET": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
