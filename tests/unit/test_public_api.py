"""`from vdit_core import ...`: every name is there, documented, and imported only when it is used."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import vdit_core

SOURCE = ast.parse(Path(vdit_core.__file__).read_text())


@pytest.mark.parametrize("name", vdit_core.__all__)
def test_it_is_there_and_says_what_it_is(name):
    if name == "attach":
        pytest.importorskip("diffusers")
    found = getattr(vdit_core, name)
    assert found.__doc__
    assert not found.__doc__.startswith(f"{name}("), "a dataclass without words of its own"


def test_type_checkers_see_the_same_names():
    shown = next(node for node in SOURCE.body if isinstance(node, ast.If))
    seen = {alias.name for node in shown.body for alias in node.names}
    assert seen == set(vdit_core.__all__) == set(vdit_core._MODULE)
    assert set(vdit_core.__all__) <= set(dir(vdit_core))


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'Ruler'"):
        vdit_core.Ruler  # noqa: B018


def test_importing_it_costs_nothing():
    code = "import sys, vdit_core; assert 'torch' not in sys.modules; assert vdit_core.Recorder; import torch"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(vdit_core.__file__).parents[1])
