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


class Checks:
    """A process of ComfyUI's Python that runs scripts of checks, each once; one for all scripts of a worker."""

    def __init__(self, comfyui: ComfyUI, folder: Path) -> None:
        self.folder = folder
        command = [comfyui.python, Path(__file__).with_name("forked.py"), comfyui.folder, PACK]
        with (folder / "start").open("w") as said:
            self.process = subprocess.Popen(
                list(map(str, command)), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=said, text=True,
                env=ENVIRONMENT,
            )  # fmt: skip

    @cache  # noqa: B019 - there is one of these
    def found(self, script: Path) -> dict[str, str]:
        """What a script found."""
        printed, errors = self.folder / f"{script.stem}.json", self.folder / f"{script.stem}.txt"
        self.process.stdin.write(json.dumps([str(script), str(printed), str(errors)]) + "\n")
        self.process.stdin.flush()
        status = self.process.stdout.readline().strip()
        assert status == "0", (errors if errors.exists() else self.folder / "start").read_text()[-3000:]
        return json.loads(printed.read_text().splitlines()[-1])


@pytest.fixture(scope="session")
def checks(comfyui: ComfyUI, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Checks]:
    checks = Checks(comfyui, tmp_path_factory.mktemp("checks"))
    yield checks
    checks.process.stdin.close()
    checks.process.wait(60)


@pytest.mark.parametrize(("script", "case"), CASES, ids=[f"{script.stem[:-7]}-{case}" for script, case in CASES])
def test_on_comfyuis_classes(checks, script, case):
    found = checks.found(script)[case]
    if found.startswith("absent: "):
        pytest.skip(found)
    assert found == "ok", found
