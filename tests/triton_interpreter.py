"""Triton's kernels on the CPU: checks are run by its interpreter, in a process of their own.

Triton must know when it is imported that it is to interpret. Use: a test calls `run` with a file of `check_…`
functions, which call `mend` in a fixture.
"""

from __future__ import annotations

import os
import subprocess
import sys
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path

import pytest

needs_triton = pytest.mark.skipif(find_spec("triton") is None, reason="needs Triton")


def run(checks: Path) -> None:
    """Fails with what pytest printed if any of the checks does."""
    names = ["-o", "python_functions=check_*", "-p", "no:cacheprovider", "-q"]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", str(checks), *names],
        capture_output=True, text=True, cwd=Path(__file__).parents[1], env=os.environ | {"TRITON_INTERPRET": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]


@lru_cache
def mend() -> None:
    """What the interpreter of Triton 3.6 lacks."""
    import numpy as np
    from triton import language as tl
    from triton.runtime import interpreter

    plain_tensor, plain_dot = interpreter._patch_lang_tensor, interpreter.InterpreterBuilder.create_dot

    def patch_tensor(tensor, scope):  # from numpy 2.4 on an array of one number is no end of a loop
        plain_tensor(tensor, scope)
        scope.set_attr(tensor, "__index__", lambda self: int(self.handle.data.item()))

    def whole(x):  # bfloat16 lies there as its bits
        if x.dtype.scalar != tl.bfloat16:
            return x
        return interpreter.TensorHandle((x.data.astype(np.uint32) << 16).view(np.float32), tl.float32)

    def dot(self, a, b, *others):
        return plain_dot(self, whole(a), whole(b), *others)

    interpreter._patch_lang_tensor, interpreter.InterpreterBuilder.create_dot = patch_tensor, dot
