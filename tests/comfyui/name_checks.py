"""Names of files that a workflow may hold, whoever wrote it: nothing outside of output/attention is written, nothing
outside of that and input/attention is read, and what is refused is refused in words. Started by test_host.py."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import inside
from aftermath import BASE, nothing_stays
from inside import SMALL, cases, host, raised_by, sample
from variants import MODEL

# isort: split
import folder_paths
from pack.nodes import files as file_nodes
from pack.vdit_core.call import ModelSignature
from pack.vdit_core.head_mask import HeadMask
from pack.vdit_core.recording.recorder import Recorder
from pack.vdit_core.recording.store import AttentionStore, StoreFileError
from pack.vdit_core.selection import Indices, LayerMask, Selection
from pack.vdit_core.sparse.profile import SparseProfile
from pack.vdit_core.transfer import Transfer, TransferConfig

RUN: dict[str, Any] = {"size": SMALL, "steps": 1, "cfg": 1.0}


class Refused(Exception):
    """What a node's validation says."""


def run(node: Any, validated: dict[str, Any], **more: Any) -> tuple:
    """A node's outputs, after its validation, as the server does it."""
    answer = node.validate_inputs(**validated)
    if answer is not True:
        raise Refused(answer)
    node.hidden = SimpleNamespace(unique_id="1")
    return node.execute(**validated, **more).result


def recording() -> AttentionStore:
    recorder = Recorder(Selection(layers=Indices("0")))
    sample(host.attach(MODEL, recorder), **RUN)
    return recorder.store


def profile() -> SparseProfile:
    return SparseProfile(ModelSignature(1, 1, 8), "exact top-k", 0.5, (0.5,), (((0.1,),),), (((1.0,),),))


class Recordings:
    suffix = ".safetensors"
    make, load = staticmethod(recording), staticmethod(AttentionStore.load)

    @staticmethod
    def save(store, prefix: str) -> str:
        return run(file_nodes.SaveAttentionStore, {"filename_prefix": prefix}, store=store)[1]

    @staticmethod
    def open(name: str):
        return run(file_nodes.LoadAttentionStore, {"file": name})[0]


class Profiles:
    suffix = ".json"
    make, load = staticmethod(profile), staticmethod(SparseProfile.load)

    @staticmethod
    def save(found, prefix: str) -> str:
        return run(file_nodes.SaveSparsityProfile, {"filename_prefix": prefix}, profile=found)[1]

    @staticmethod
    def open(name: str):
        return run(file_nodes.LoadSparsityProfile, {"file": name})[0]


class Masks:
    suffix = ".headmask"
    make, load = staticmethod(lambda: HeadMask("5@0, 3-7@0-2:0.5", 30, 12)), staticmethod(HeadMask.load)

    @staticmethod
    def save(mask, prefix: str) -> str:
        return run(file_nodes.SaveHeadMask, {"filename_prefix": prefix}, mask=mask)[1]

    @staticmethod
    def open(name: str):
        return run(file_nodes.LoadHeadMask, {"file": name})[0]


KINDS = {"recording": Recordings, "profile": Profiles, "mask": Masks}


@contextmanager
def installation(kind: Any) -> Iterator[Path]:
    """ComfyUI's folders, with a secret beside them that is a whole file of this kind, and links to it."""
    base = BASE / "installation"
    for folder in ("output/attention/cars", "input/attention", "temp/attention", "secret"):
        (base / folder).mkdir(parents=True)
    secret = base / "secret" / f"secret{kind.suffix}"
    kind.make().save(secret)
    for name in ("temp/attention", "output", "input"):
        shutil.copy(secret, base / name / secret.name)
    attention = base / "output" / "attention"
    (attention / "folder_link").symlink_to(base / "secret")
    (attention / f"link{kind.suffix}").symlink_to(secret)
    (attention / f"broken{kind.suffix}").symlink_to(base / "none")
    (attention / f"loop{kind.suffix}").symlink_to(attention / f"loop{kind.suffix}")
    (attention / f"folder{kind.suffix}").mkdir()
    os.mkfifo(attention / f"pipe{kind.suffix}")
    shutil.copy(secret, attention / f".car.1234abcd.part{kind.suffix}")  # as while it is being written
    (attention / "text.txt").write_text("text")
    (attention / f"text{kind.suffix}").write_text("text")
    before = folder_paths.get_output_directory(), folder_paths.get_input_directory()
    folder_paths.set_output_directory(str(base / "output"))
    folder_paths.set_input_directory(str(base / "input"))
    try:
        yield base
    finally:
        folder_paths.set_output_directory(before[0])
        folder_paths.set_input_directory(before[1])
        shutil.rmtree(base)


def files(base: Path) -> set[str]:
    return {str(path.relative_to(base)) for path in base.rglob("*") if not path.is_dir()}


LONG, DEEP = "x" * 300, "/".join("d" * 200)

#: What is asked for, and the file in output/attention that is written; or, in parentheses, what the error says.
WRITTEN = {
    "a word": ("car", "car_00001_"),
    "a folder": ("cars/red", "cars/red_00001_"),
    "new folders": ("a/b/c/d", "a/b/c/d_00001_"),
    "up": ("../x", ("leads out of",)),
    "up and up": ("../../x", ("leads out of",)),
    "up from a folder": ("cars/../../../x", ("leads out of",)),
    "up and down again": ("cars/../../attention/x", "x_00001_"),
    "up and down in the folder": ("cars/../red", "red_00001_"),
    "a neighbour with the same beginning": ("../attention2/x", ("leads out of",)),
    "ComfyUI's input": ("../../input/attention/x", ("leads out of",)),
    "ends in up": ("cars/..", ("names no file",)),
    "nothing": ("", ("names no file",)),
    "spaces": ("   ", ("names no file",)),
    "a folder's end": ("cars/", "cars_00001_"),
    "absolute": ("/etc/passwd", ("leads out of",)),
    "absolute, two slashes": ("//etc/passwd", ("leads out of",)),
    "home": ("~/x", "~/x_00001_"),
    "a variable": ("$HOME/x", "$HOME/x_00001_"),
    "a date": ("%year%/x", f"{time.localtime().tm_year}/x_00001_"),
    "backslashes, up": ("..\\x", "..\\x_00001_"),
    "a drive": ("C:\\x", "C:\\x_00001_"),
    "a null byte": ("x\0y", ("names no file",)),
    "a null byte in a folder": ("x\0y/z", ("names no file",)),
    "half a character": ("x\ud800", ("names no file",)),
    "a line's end": ("x\ny", "x\ny_00001_"),
    "300 letters": (LONG, ("too long",)),
    "200 folders": (DEEP, f"{DEEP}_00001_"),
    "5000 letters": (f"{LONG}/" * 17, ("too long",)),
    "Japanese": ("車/青い", "車/青い_00001_"),
    "from right to left": ("\u202eevil", "\u202eevil_00001_"),
    "in pieces": ("e\u0301", "e\u0301_00001_"),
    "a dot before": (".hidden", ".hidden_00001_"),
    "three dots": ("...", "..._00001_"),
    "a suffix": ("x.exe", "x.exe_00001_"),
    "[temp]": ("x [temp]", "x [temp]_00001_"),
    "[input], in a folder": ("y [input]/x", "y [input]/x_00001_"),
    "stars": ("*?[a]", "*?[a]_00001_"),
    "through a link": ("folder_link/x", ("leads out of",)),
    "below a file": ("text.txt/x", ("text.txt",)),
}


@cases(WRITTEN, KINDS)
def check_written(prefix, expected, kind):
    with installation(kind) as base:
        before, made = files(base), kind.make()
        if not isinstance(expected, tuple):
            name = kind.save(made, prefix)
            (new,) = files(base) - before
            assert new == f"output/attention/{expected}{kind.suffix}"
            kind.load(base / new)
            assert (base / new).stat().st_mode & 0o777 == 0o666 & ~umask()
            assert kind.open(name) is not None, "its own name is not taken again"
            second = kind.save(made, prefix)
            assert "_00002_" in second, second
            return
        error = raised_by(kind.save, made, prefix)
        assert error is not None
        assert any(text in str(error) for text in expected), repr(error)
        assert files(base) == before


def umask() -> int:
    current = os.umask(0)
    os.umask(current)
    return current


#: Names that lead to no file, or to one that is not for nodes to read. {} is the suffix of the kind.
UNREADABLE = {
    "nothing": "",
    "no folder said": "attention/secret{}",
    "an absolute path": "{base}/secret/secret{}",
    "an absolute path, said to be output": "{base}/secret/secret{} [output]",
    "/etc/passwd": "/etc/passwd [output]",
    "up": "../secret/secret{} [output]",
    "up from the folder": "attention/../../secret/secret{} [output]",
    "up, many times": "attention/" + "../" * 50 + "etc/passwd [output]",
    "beside the folder": "secret{} [output]",
    "beside the folder, by way of it": "attention/../secret{} [output]",
    "backslashes": "attention\\..\\..\\secret\\secret{} [output]",
    "a drive": "C:\\secret{} [output]",
    "a share": "\\\\host\\share\\secret{} [output]",
    "an address": "file:///etc/passwd [output]",
    "[temp]": "attention/secret{} [temp]",
    "[secret]": "secret{} [secret]",
    "[output] twice": "attention/secret{} [output] [output]",
    "no space before [output]": "attention/secret{}[output]",
    "a link to outside": "attention/link{} [output]",
    "a folder's link to outside": "attention/folder_link/secret{} [output]",
    "a broken link": "attention/broken{} [output]",
    "a link to itself": "attention/loop{} [output]",
    "a folder": "attention/folder{} [output]",
    "the folder itself": "attention [output]",
    "a pipe": "attention/pipe{} [output]",
    "another suffix": "attention/text.txt [output]",
    "a suffix in capitals": "attention/TEXT.JSON [output]",
    "a null byte": "attention/secret\0{} [output]",
    "a null byte before the suffix": "attention/text.txt\0{} [output]",
    "half a character": "attention/\ud800{} [output]",
    "300 letters": f"attention/{LONG}{{}} [output]",
    "100,000 letters": "attention/" + "x/" * 50_000 + "{} [output]",
    "missing, in Japanese": "attention/車{} [input]",
    "text, not what the suffix says": "attention/text{} [output]",
}


@cases(UNREADABLE, KINDS)
def check_not_read(name, kind):
    with installation(kind) as base:
        before = files(base)
        name = name.replace("{base}", str(base)).replace("{}", kind.suffix)
        node = {
            Recordings: file_nodes.LoadAttentionStore,
            Profiles: file_nodes.LoadSparsityProfile,
            Masks: file_nodes.LoadHeadMask,
        }[kind]
        found = raised_by(kind.open, name)
        text = "text" + kind.suffix in name
        wanted = "is not a whole" if text else ("is not a", "There is no")
        assert any(words in str(found) for words in ([wanted] if text else wanted)), repr(found)
        if not text:
            assert isinstance(found, Refused), f"not said before the prompt runs: {found!r}"
            assert len(str(found)) < 1000, "a name of any length is repeated in the error"
        assert node.fingerprint_inputs(file=name) is None or text
        assert files(base) == before


@cases(KINDS)
def check_the_list_shows_what_can_be_read(kind):
    """Every name in the list opens, but what is not whole; there is nothing of other folders or kinds in it."""
    with installation(kind) as base:
        made = kind.make()
        saved = {kind.save(made, prefix) for prefix in ("car", "cars/red", "車")}
        shutil.copy(base / "secret" / f"secret{kind.suffix}", base / "input" / "attention" / f"given{kind.suffix}")
        names = {
            Recordings: file_nodes._STORES,
            Profiles: file_nodes._PROFILES,
            Masks: file_nodes._MASKS,
        }[kind].names()
        assert saved | {f"attention/given{kind.suffix} [input]"} <= set(names), names
        assert not any(".part" in name for name in names), names
        for name in names:
            error = raised_by(kind.open, name)
            assert error is None or "is not a whole" in str(error), (name, error)


def other_content(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-100] ^= 1
    path.write_bytes(data)


def cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 1000)


def another(path: Path) -> None:
    other = path.with_name("other.safetensors")
    recording().save(other)
    other.replace(path)


def folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


#: What becomes of a file between Load Attention Store and the sampler, and what the sampler says.
REPLACED = {
    "a byte changed": (other_content, "has changed since it was loaded. Load it again"),
    "cut": (cut, "has changed since it was loaded. Load it again"),
    "emptied": (lambda path: path.write_bytes(b""), "has changed since it was loaded. Load it again"),
    "another recording in its place": (another, "has changed since it was loaded. Load it again"),
    "deleted": (Path.unlink, "No such file or directory"),
    "a folder in its place": (folder, "has changed since it was loaded. Load it again"),
    "a link to a secret in its place": (
        lambda path: path.unlink() or path.symlink_to(BASE / "installation/secret/secret.safetensors"),
        "has changed since it was loaded. Load it again",
    ),
}


@cases(REPLACED)
def check_a_file_replaced_after_it_was_loaded(change, message):
    with installation(Recordings) as base:
        name = Recordings.save(recording(), "car")
        path = base / "output" / "attention" / "car_00001_.safetensors"
        before = file_nodes.LoadAttentionStore.fingerprint_inputs(file=name)
        store = Recordings.open(name)
        where = TransferConfig(LayerMask("0"))
        right = sample(host.attach(MODEL, Transfer(store, where)), **RUN)
        assert (right - sample(MODEL, **RUN)).abs().max() < 1e-4
        change(path)
        error = raised_by(sample, host.attach(MODEL, Transfer(store, where)), **RUN)
        assert message in str(error), repr(error)
        assert isinstance(error, StoreFileError | OSError)
        assert file_nodes.LoadAttentionStore.fingerprint_inputs(file=name) != before, "the node would not run again"


inside.report(globals(), nothing_stays)
