"""The host adapter on ComfyUI's own classes; the checks themselves are in host_checks.py."""

from __future__ import annotations

import ast
import json
import subprocess
from pathlib import Path

import pytest
from comfyui.installation import ENVIRONMENT, PACK

SCRIPT = Path(__file__).with_name("host_checks.py")
CHECKS = [
    node.name.removeprefix("check_")
    for node in ast.parse(SCRIPT.read_text()).body
    if isinstance(node, ast.FunctionDef) and node.name.startswith("check_")
]


@pytest.fixture(scope="module")
def results(comfyui, tmp_path_factory) -> dict[str, str]:
    command = [comfyui.python, SCRIPT, comfyui.folder, PACK]
    folder = tmp_path_factory.mktemp("host")
    run = subprocess.run(
        list(map(str, command)), capture_output=True, text=True, timeout=900, cwd=folder, env=ENVIRONMENT
    )
    assert run.returncode == 0, run.stderr[-3000:]
    return json.loads(run.stdout.splitlines()[-1])


@pytest.mark.parametrize("check", CHECKS)
def test_on_comfyuis_classes(results, check):
    assert results[check] == "ok", results[check]
