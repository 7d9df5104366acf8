"""Every language says what the English says; and the check that says so finds what is lost."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from locales import translations

LOCALES = Path(__file__).parents[1] / "locales"
ENGLISH = translations.texts(LOCALES / "en")
CHINESE = translations.texts(LOCALES / "zh")
NODE = "nodeDefs/VDiT_TransferAttention"


@pytest.fixture
def folder(tmp_path) -> Path:
    """A copy of the Chinese."""
    return shutil.copytree(LOCALES / "zh", tmp_path / "zh")


def write(folder: Path, path: str, text: str | None) -> None:
    """One text of a language; None takes it away."""
    file, *keys, last = path.split("/")
    content = json.loads((folder / f"{file}.json").read_text(encoding="utf-8"))
    place = content
    for key in keys:
        place = place[key]
    place[last] = text
    if text is None:
        del place[last]
    (folder / f"{file}.json").write_text(json.dumps(content), encoding="utf-8")


def test_chinese_is_there():
    assert "zh" in translations.languages()
    assert len(ENGLISH) > 400


@pytest.mark.parametrize("language", translations.languages())
def test_a_language_is_complete(language):
    lines = translations.to_do(LOCALES / language)
    assert lines == [], f"`python locales/translations.py {language}`; docs/translating.md says how"


@pytest.mark.parametrize("language", translations.languages())
def test_names_of_nodes_are_different(language):
    """As they are where one is named in a tooltip."""
    ours = translations.texts(LOCALES / language)
    names = [re.split(r" ?[(（]", text)[0] for path, text in ours.items() if path.endswith("/display_name")]
    assert len(names) == len(set(names))


FAULTS = {
    "a text that is missing": ("description", None, "missing"),
    "an empty text": ("inputs/gap/tooltip", " ", "empty"),
    "English": ("inputs/mask/name", "mask", "still English"),
    "no full stop": ("outputs/0/tooltip", "使用源的注意力图的模型", "must end with 。"),
    "a name with a full stop": ("outputs/0/name", "模型。", "must not end with 。"),
    "a lost number": ("inputs/heads/tooltip", "例如 all、3-7 或 0%-50%。", "does not have 0-28/4"),
    "another number": ("outputs/0/tooltip", "使用源的 3 张注意力图的模型。", "has 3, which the English has not"),
    "a lost node": ("inputs/store/tooltip", "源的注意力，来自文件。", "does not name the node Finish Recording"),
    "no such node": (
        "inputs/store/tooltip",
        "源的注意力，来自“完成记录”或“文件”。",
        "“文件” is not the name of a node",
    ),
    "a comma of English": ("inputs/store/tooltip", "源的注意力,来自“完成记录”或文件。", "has a comma"),
    "a sign that the page takes for its own": ("outputs/0/tooltip", "源的注意力图 | 模型。", "has |"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_found(folder, fault):
    path, text, said = FAULTS[fault]
    write(folder, f"{NODE}/{path}", text)
    (line,) = translations.to_do(folder)
    assert line.startswith(f"{NODE}/{path}: {said}")


def test_a_text_too_many_is_found(folder):
    write(folder, f"{NODE}/hint", "提示")
    assert translations.to_do(folder) == [f"{NODE}/hint: the English has no such text any more"]


def test_english_that_changed_is_found(folder, tmp_path):
    english = shutil.copytree(LOCALES / "en", tmp_path / "en")
    write(english, f"{NODE}/outputs/0/tooltip", "The model with other maps.")
    (line,) = translations.to_do(folder, english)
    assert line == f"{NODE}/outputs/0/tooltip: not made of the English of today: The model with other maps."


def test_no_number_can_be_lost_anywhere():
    for path, english in ENGLISH.items():
        for number in translations.numbers(english):
            without = re.sub(
                rf"(?<![\w.-]){re.escape(number)}(?![\w.])", "", CHINESE[path].replace(" %", "%"), flags=re.A
            )
            style = translations.STYLES["zh"]
            found = list(translations.faults(path, english, without, {}, style))
            assert any(number in fault for fault in found), (path, number)


def test_no_name_of_a_node_can_be_lost_anywhere():
    quoted = [path for path, text in CHINESE.items() if "“" in text]
    assert len(quoted) > 40
    names = translations.node_names(ENGLISH, CHINESE)
    for path in quoted:
        without = re.sub("“[^”]*”", "它", CHINESE[path], count=1)
        if without.count("“") + 1 == len(set(re.findall("“([^”]*)”", CHINESE[path]))):
            assert list(translations.faults(path, ENGLISH[path], without, names, translations.STYLES["zh"])), path


def test_the_script_says_what_is_to_be_done():
    """A language that nobody has begun lacks all, and each line shows what to translate."""
    command = [sys.executable, str(LOCALES / "translations.py"), "fr"]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert run.returncode == 1
    assert run.stdout.splitlines()[-1] == f"fr: {len(ENGLISH)} to do"
    assert f"{NODE}/display_name: missing: Transfer Attention (layer mask)" in run.stdout
