"""The pack's root in a real ComfyUI."""

from __future__ import annotations

import subprocess
from pathlib import Path

PACK = Path(__file__).parents[2]


def test_comfyui_imports_the_pack_from_a_folder_of_any_name(comfyui, tmp_path):
    (tmp_path / "custom_nodes").mkdir()
    (tmp_path / "custom_nodes" / "any name-1").symlink_to(PACK, target_is_directory=True)
    command = [comfyui.python, "main.py", "--cpu", "--quick-test-for-ci", "--base-directory", tmp_path]
    run = subprocess.run(list(map(str, command)), cwd=comfyui.folder, capture_output=True, text=True, timeout=300)
    printed = run.stdout + run.stderr
    assert run.returncode == 0, printed[-3000:]
    line = next((line for line in printed.splitlines() if line.endswith("any name-1")), "not listed")
    assert "seconds:" in line, printed[-3000:]
    assert "IMPORT FAILED" not in line
