"""Files of density profiles, and tables of densities from anyone: cut, of another kind, or not true."""

from __future__ import annotations

import json
import os

import pytest
from faults.broken_files import DEEP, promptly, refuses

from vdit_core.call import ModelSignature
from vdit_core.cli import main
from vdit_core.sparse.density_profile import DensityProfile
from vdit_core.sparse.density_table import read
from vdit_core.sparse.profile import ProfileError
from vdit_core.sparse.profile_file import load_profile

MODEL = ModelSignature(2, 2, 8)
TEXT = DensityProfile(MODEL, ((0.5, 0.25), (0.125, 0.0)), 0.95, "a model", {"steps": 4}).to_json()


@pytest.mark.parametrize("share", [n / 32 for n in range(32)])
@pytest.mark.parametrize("load", [DensityProfile.load, load_profile])
def test_a_profile_that_is_cut_is_refused(tmp_path, share, load):
    (tmp_path / "a.json").write_text(TEXT[: int(len(TEXT) * share)])
    with pytest.raises(ProfileError, match=r"a\.json is not a whole (density|sparsity) profile: "):
        load(tmp_path / "a.json")


def set_to(**changes):
    return json.dumps(json.loads(TEXT) | changes)


PROFILES = [
    ("a list", "[]", "JSON of another kind"),
    ("another kind", set_to(format="x"), "another kind"),
    ("a kind that is a list", set_to(format=["x"]), "another kind"),
    ("later version", set_to(version=2), "version 2; this pack reads version 1"),
    ("nested deeply", DEEP, "RecursionError"),
    ("needs nested deeply", TEXT.replace('"needed": [', '"needed": [' + "[" * 5000 + "]" * 5000 + ","), ""),
    ("text behind it", TEXT + "x", "Extra data"),
    ("a byte order mark", "\ufeff" + TEXT, "BOM"),
    ("mass above 1", set_to(mass=1.5), "mass is 1.5, and must be above 0, up to 1"),
    ("mass as text", set_to(mass="0.95"), "'0.95' is not a number"),
    ("mass is true", set_to(mass=True), "True is not a number"),
    ("mass of 400 digits", TEXT.replace("0.95", "1" + "0" * 400), "OverflowError"),
    ("a need above 1", set_to(needed=[[0.5, 1.5], [0, 0]]), "needed must hold 2 x 2 numbers from 0 to 1"),
    ("a negative need", set_to(needed=[[0.5, -0.5], [0, 0]]), "needed must hold 2 x 2"),
    ("a need that is no number", set_to(needed=[[0.5, float("nan")], [0, 0]]), "nan is not a number"),
    ("a need as text", set_to(needed=[["a", 0], [0, 0]]), "'a' is not a number"),
    ("needs are a number", set_to(needed=1), "TypeError"),
    ("a layer too few", set_to(needed=[[0.5, 0.5]]), "needed must hold 2 x 2"),
    ("a ragged table", set_to(needed=[[0.5], [0.5, 0.5]]), "needed must hold 2 x 2"),
    ("a huge model", set_to(model={"layers": 10**9, "heads": 2, "head_dim": 8}), "needed must hold 1000000000 x 2"),
    ("no model", set_to(model=None), "AttributeError"),
    ("a name that is a number", set_to(name=3), "its name is 3, and must be text"),
    ("measured on a list", set_to(measured=[]), "AttributeError"),
    ("measured on something nested", set_to(measured={"a": {}}), "is not text or a number"),
]


@pytest.mark.parametrize(("text", "said"), [pytest.param(*case, id=name) for name, *case in PROFILES])
def test_a_profile_that_is_not_true_is_refused(tmp_path, text, said):
    refuses(DensityProfile, tmp_path / "a.json", text, said)
    with promptly(), pytest.raises(ProfileError):
        load_profile(tmp_path / "a.json")


HEAD = "Step,Layer,Head,Sparsity\n"
ROWS = ["1,0,0,0.5\n", "1,0,1,0.5\n", "1,1,0,0.5\n", "1,1,1,0.5\n"]
WHOLE = HEAD + "".join(ROWS)


def line(row: str) -> str:
    """The table with another third line."""
    return HEAD + ROWS[0] + row + "\n" + "".join(ROWS[2:])


TABLES = [
    ("empty", "", "line 1: expected the columns Step, Layer, Head, Sparsity, each once; .* not so, in ''"),
    ("columns alone", HEAD, "has no lines but its columns"),
    ("no Layer", WHOLE.replace("Layer", "Block"), "line 1: expected the columns .*; Layer not so, in 'Step,Block,Head"),
    ("two Heads", WHOLE.replace("Layer", "Head"), "Layer, Head not so"),
    ("no columns", "".join(ROWS), "line 1: expected the columns"),
    ("a hole", HEAD + "".join(ROWS[:2] + ROWS[3:]), r"step 1, layer 1, head 0 is missing \(1 of the step's 4 values\)"),
    ("cut", WHOLE[:-12], "step 1, layer 1, head 1 is missing"),
    ("cut within a line", WHOLE[:-6], "line 5: expected 4 fields, found 3"),
    ("cut before the number", WHOLE[:-4], "line 5: Sparsity is ''; expected a number from 0 to 1"),
    ("a step without heads", WHOLE + "2,0,0,0.5\n", r"step 2, layer 0, head 1 is missing \(3 of the step's 4"),
    ("twice", WHOLE + ROWS[1], "line 6: step 1, layer 0, head 1 was there before"),
    ("a number above 1", line("1,0,1,1.5"), "line 3: Sparsity is '1.5'; expected a number from 0 to 1"),
    ("a percentage", line("1,0,1,50%"), "line 3: Sparsity is '50%'"),
    ("below 0", line("1,0,1,-0.1"), "line 3: Sparsity is '-0.1'"),
    ("NaN", line("1,0,1,nan"), "line 3: Sparsity is 'nan'"),
    ("infinite", line("1,0,1,inf"), "line 3: Sparsity is 'inf'"),
    ("too large for a float", line("1,0,1,1e999"), "line 3: Sparsity is '1e999'"),
    ("Python's own way to write numbers", line("1,0,1,0.1_5"), "line 3: Sparsity is '0.1_5'"),
    ("another script's digits", line("1,0,1,٠.٥"), "line 3: Sparsity is"),
    ("a layer too many", line("1,2,1,0.5"), "line 3: Layer is '2'; expected a whole number, 0 to 1"),
    ("a negative head", line("1,0,-1,0.5"), "line 3: Head is '-1'; expected a whole number, 0 to 1"),
    ("half a step", line("1.5,0,1,0.5"), "line 3: Step is '1.5'; expected a whole number, 0 to 1000000000"),
    ("a step of 5000 digits", line("1" * 5000 + ",0,1,0.5"), "line 3: Step is '1{60}…'; expected a whole number"),
    ("a field too many", line("1,0,1,0.5,x"), "line 3: expected 4 fields, found 5"),
    ("semicolons", WHOLE.replace(",", ";"), "expected the columns"),
    ("a quote that does not end", line('"1,0,1,0.5'), "this is not CSV"),
    ("zeros", "\0" * 400, "expected the columns|not CSV"),
    ("a field of a megabyte", HEAD + "1" * 2**20, "not CSV"),
    (
        "too many steps",
        HEAD + "".join(f"{n},0,0,0.5\n" for n in range(1001)),
        "line 1002: step 1000 is one more than the",
    ),
]


@pytest.mark.parametrize(("text", "said"), [pytest.param(*case, id=name) for name, *case in TABLES])
def test_a_table_that_is_not_true_is_refused(tmp_path, text, said):
    path = tmp_path / "table.csv"
    path.write_text(text, encoding="utf-8")
    with promptly(), pytest.raises(ProfileError, match=said) as caught:
        read(path, MODEL)
    assert str(caught.value).startswith(str(path))
    assert len(str(caught.value)) < 600


def test_a_table_that_is_not_in_utf8_is_refused(tmp_path):
    (tmp_path / "a.csv").write_bytes(WHOLE.encode("utf-16"))
    with pytest.raises(ProfileError, match=r"a\.csv is not text in UTF-8: byte 0 is 0xff"):
        read(tmp_path / "a.csv", MODEL)


def test_a_file_too_large_for_a_table_is_not_read(tmp_path):
    with open(tmp_path / "a.csv", "wb") as file:
        os.truncate(file.fileno(), 2**30)
    with promptly(), pytest.raises(ProfileError, match=r"larger than 134,217,728 bytes"):
        read(tmp_path / "a.csv", MODEL)


WAN = HEAD + "".join(f"1,{layer},{head},0.5\n" for layer in range(30) for head in range(12))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["none.csv", "--model", "wan-1.3b"], "none.csv"),
        ([".", "--model", "wan-1.3b"], "Is a directory"),
        (["wan.csv", "--model", "wan-14b"], "layer 0, head 12 is missing"),
        (["wan.csv", "--model", "wan-1.3b", "--steps", "1"], "Step 1 in '1' is out of range"),
        (["wan.csv", "--model", "wan-1.3b", "--steps", "x"], "Cannot read 'x'"),
        (["wan.csv", "--model", "wan-1.3b", "--mass", "95"], "mass is 95.0, and must be above 0, up to 1"),
    ],
)
def test_the_command_says_what_is_wrong_and_writes_nothing(tmp_path, monkeypatch, capsys, arguments, said):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "wan.csv").write_text(WAN)
    assert main(["sparsity", "import", *arguments, "-o", "out.json"]) == 2
    error = capsys.readouterr().err.strip()
    assert error.startswith("vdit: ")
    assert said in error
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == ["wan.csv"]


def test_the_command_writes_a_profile_that_is_read_again(tmp_path, capsys):
    (tmp_path / "wan.csv").write_text(WAN)
    out, picture = tmp_path / "new" / "out.json", tmp_path / "heads.png"
    arguments = ["--model", "wan-1.3b", "--steps", "0", "--name", "mine", "-o", str(out), "--picture", str(picture)]
    assert main(["sparsity", "import", *arguments, str(tmp_path / "wan.csv")]) == 0
    found = load_profile(out)
    assert (found.name, found.model, found.measured["steps"]) == ("mine", ModelSignature(30, 12, 128), "0")
    assert set(found.table().ravel()) == {0.5}
    assert picture.read_bytes()[:4] == b"\x89PNG"
    assert "wan.csv: 1 steps, mean 50.0%" in capsys.readouterr().out
