"""The host adapter on ComfyUI's own classes; the checks themselves are in host_checks.py and sampler_checks.py."""

from __future__ import annotations

import ast
import json
import subprocess
from functools import cache
from pathlib import Path

import pytest
from comfyui.installation import ENVIRONMENT, PACK, ComfyUI

SCRIPTS = [Path(__file__).with_name(name) for name in ("host_checks.py", "sampler_checks.py")]
CHECKS = [
    (script, node.name.removeprefix("check_"))
    for script in SCRIPTS
    for node in ast.parse(script.read_text()).body
    if isinstance(node, ast.FunctionDef) and node.name.startswith("check_")
]


@cache
def results(comfyui: ComfyUI, script: Path) -> dict[str, str]:
    """What a script found, run once in ComfyUI's Python."""
    command = [comfyui.python, script, comfyui.folder, PACK]
    run = subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=900, env=ENVIRONMENT)
    assert run.returncode == 0, run.stderr[-3000:]
    return json.loads(run.stdout.splitlines()[-1])


@pytest.mark.parametrize(("script", "check"), CHECKS, ids=[name for _, name in CHECKS])
def test_on_comfyuis_classes(comfyui, script, check):
    assert results(comfyui, script)[check] == "ok", results(comfyui, script)[check]
