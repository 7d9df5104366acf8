"""The host adapter on ComfyUI's own classes; the checks themselves are in the files …_checks.py beside this one."""

from __future__ import annotations

import ast
import json
import subprocess
from collections.abc import Iterator
from functools import cache
from itertools import product
from pathlib import Path

import pytest
from comfyui.installation import ENVIRONMENT, PACK, ComfyUI

SCRIPTS = sorted(Path(__file__).parent.glob("*_checks.py"))


def cases(script: Path) -> Iterator[str]:
    """The names of a script's cases; what it imports is only in ComfyUI's Python."""
    body = ast.parse(script.read_text()).body
    tables = {
        ast.unparse(name): [ast.literal_eval(key) for key in node.value.keys]
        for node in body
        if isinstance(node, ast.Assign | ast.AnnAssign) and isinstance(node.value, ast.Dict)
        for name in (node.targets if isinstance(node, ast.Assign) else [node.target])
    }
    for node in body:
        if isinstance(node, ast.FunctionDef) and node.name.startswith("check_"):
            check = node.name.removeprefix("check_")
            if not node.decorator_list:
                yield check
            for decorator in node.decorator_list:  # @cases(TABLE, ...)
                rows = product(*(tables[table.id] for table in decorator.args))
                yield from (f"{check}: {', '.join(row)}" for row in rows)


CASES = [(script, case) for script in SCRIPTS for case in cases(script)]


@cache
def results(comfyui: ComfyUI, script: Path) -> dict[str, str]:
    """What a script found, run once in ComfyUI's Python."""
    command = [comfyui.python, script, comfyui.folder, PACK]
    run = subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=900, env=ENVIRONMENT)
    assert run.returncode == 0, run.stderr[-3000:]
    return json.loads(run.stdout.splitlines()[-1])


@pytest.mark.parametrize(("script", "case"), CASES, ids=[f"{script.stem[:-7]}-{case}" for script, case in CASES])
def test_on_comfyuis_classes(comfyui, script, case):
    found = results(comfyui, script)[case]
    if found.startswith("absent: "):
        pytest.skip(found)
    assert found == "ok", found
