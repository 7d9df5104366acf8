"""The shape of the house: what may import what, and what a ComfyUI user's environment must have."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCES = sorted((ROOT / "vdit_core").rglob("*.py"))
DEMO_ONLY = {"diffusers", "kornia", "av", "jinja2"}


def imports(path: Path) -> set[str]:
    """The top-level packages that a file imports absolutely."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            found.add(node.module.split(".")[0])
    return found


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(ROOT)))
def test_only_hosts_know_a_host(path):
    inside = path.relative_to(ROOT / "vdit_core").parts
    if inside[:2] != ("hosts", "comfy"):
        assert "comfy" not in imports(path)
    if inside[0] not in ("hosts", "demo"):
        assert "diffusers" not in imports(path)
    assert "vdit_core" not in imports(path), "the pack's folder may have any name: import relatively"


def test_only_a_familys_file_names_its_networks():
    """A new model is a file and a row of a table."""
    for path in (*SOURCES, *(ROOT / "nodes").glob("*.py")):
        inside = path.relative_to(ROOT).parts
        if inside[:4] != ("vdit_core", "hosts", "comfy", "models"):
            assert not re.search(r"comfy\.ldm\.(?!modules )", path.read_text()), path
    for host in ("comfy", "diffusers"):
        for path in (ROOT / "vdit_core" / "hosts" / host / "models").glob("*.py"):
            if path.name not in ("__init__.py", "family.py"):
                assert len(path.read_text().splitlines()) <= 120, path


def test_folders_of_the_core_do_not_import_one_another_in_a_circle():
    core, imported = ROOT / "vdit_core", {}
    for path in SOURCES:
        inside = path.relative_to(core).parts
        part = inside[0] if len(inside) > 1 else path.stem
        package = ["vdit_core", *path.relative_to(core).parent.parts]
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and node.level and part != "__init__":
                base = [*package[: len(package) - node.level + 1], *(node.module or "").split(".")]
                names = [base] if node.module else [[*base[:-1], alias.name] for alias in node.names]
                imported.setdefault(part, set()).update(name[1] for name in names if len(name) > 1 and name[1] != part)
    TopologicalSorter(imported).prepare()  # raises CycleError with the circle


def test_the_core_imports_with_nothing_but_torch_and_safetensors():
    code = f"""
import sys
for name in {sorted(DEMO_ONLY | {"transformers", "einops", "tqdm", "matplotlib"})}:
    sys.modules[name] = None
import vdit_core.call, vdit_core.attention.multi_value, vdit_core.selection
import vdit_core.recording.recorder, vdit_core.transfer, vdit_core.cli
import vdit_core.maps.observer, vdit_core.sweep.run, vdit_core.sweep.checkpoint
"""
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


def test_tests_do_not_import_the_pack_root():
    root = str(ROOT / "__init__.py")
    assert not [name for name, module in sys.modules.items() if getattr(module, "__file__", None) == root]


def test_the_pack_pins_nothing_in_a_users_environment():
    tomllib = pytest.importorskip("tomllib")  # Python 3.11
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    listed = (ROOT / "requirements.txt").read_text().splitlines()
    assert project["dependencies"] == [line for line in listed if not line.startswith("#")]
    assert [need.split(">")[0] for need in project["dependencies"]] == ["matplotlib", "flip-evaluator"]
    for extra in (project["dependencies"], *project["optional-dependencies"].values()):
        assert not [need for need in extra if re.search(r"==|<", need.partition(";")[0])]


def test_weights_are_small_enough_to_ship():
    weights = list((ROOT / "vdit_core/tiny_wan/weights").rglob("*.safetensors"))
    assert len(weights) == 4
    assert all(path.stat().st_size <= 16e6 for path in weights)
    assert sum(path.stat().st_size for path in weights) <= 40e6
