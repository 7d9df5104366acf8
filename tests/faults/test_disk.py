"""Folders that cannot be written to, disks that fill up, names that are too long: the error names the file and the
reason, and nothing but whole files is left."""

from __future__ import annotations

import contextlib
import os
import resource
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from faults.breaking import At
from synthetic_host import SyntheticHost, same

from vdit_core.call import TokenGrid
from vdit_core.recording.recorder import Recorder
from vdit_core.recording.store import AttentionStore, Evaluation, Key, StoreFileError
from vdit_core.recording.store.writer import StoreWriter
from vdit_core.transfer import Transfer

CPU = torch.device("cpu")
LARGE = {"grid": TokenGrid(4, 16, 16)}  # 2.3 MB a recording, 768 kB a file of it
NO_MOUNTS = "no permission to mount a small tmpfs here"


@contextlib.contextmanager
def mounted(path: Path, options: str) -> Iterator[Path]:
    path.mkdir(exist_ok=True)
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(path)], capture_output=True, check=False)
    if done.returncode:
        pytest.skip(NO_MOUNTS)
    try:
        yield path
    finally:
        subprocess.run(["umount", "--lazy", str(path)], check=True)


@pytest.fixture
def read_only(tmp_path: Path) -> Iterator[Path]:
    """A folder with one file in it that nobody may write to, root neither."""
    if shutil.which("mount") is None:
        pytest.skip(NO_MOUNTS)
    with mounted(tmp_path / "read only", "size=1m") as folder:
        record(folder / "old.safetensors")
        subprocess.run(["mount", "-o", "remount,ro", str(folder)], check=True)
        yield folder


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """A disk of 1 MB."""
    if shutil.which("mount") is None:
        pytest.skip(NO_MOUNTS)
    with mounted(tmp_path / "small", "size=1m") as folder:
        yield folder


def record(path: Path, seed: int = 1, **fields) -> AttentionStore:
    """A small recording, saved."""
    recorder = Recorder()
    SyntheticHost(**fields).run(seed, recorder)
    store = recorder.take()
    store.save(path)
    return store


def all_files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


#: Where a recording goes: what is there, and what is said.
FOLDERS = [
    ("a file", lambda at: at.write_bytes(b"x"), lambda at: at, "File exists: '{}'"),
    ("below a file", lambda at: at.write_bytes(b"x"), lambda at: at / "deeper", "Not a directory: '{}/deeper'"),
    ("a pipe", lambda at: os.mkfifo(at), lambda at: at, "File exists: '{}'"),
    ("a link to nothing", lambda at: at.symlink_to(at.with_name("none")), lambda at: at, "File exists: '{}'"),
    ("a link to itself", lambda at: at.symlink_to(at), lambda at: at, "File exists: '{}'|symbolic links: '{}'"),
    ("a name too long", lambda at: None, lambda at: at / ("a" * 256), "File name too long: '{}/a{{256}}'"),
    ("a path too long", lambda at: None, lambda at: Path(at, *["a" * 200] * 25), "File name too long: '{}/"),
]


@pytest.mark.parametrize(("make", "where", "said"), [pytest.param(*case, id=name) for name, *case in FOLDERS])
def test_a_folder_that_is_none_is_refused_before_the_first_call(host, tmp_path, make, where, said):
    at, calls = tmp_path / "at", []
    make(at)

    def backend(q, k, v):
        calls.append(1)
        return v

    with pytest.raises(OSError, match=said.format(at, at)):
        host().run(1, Recorder(tier="disk", folder=where(at)), backend=backend)
    assert calls == []


def test_a_folder_that_is_not_there_yet_is_made(host, disk):
    recorder = Recorder(tier="disk", folder=disk / "new" / "and deeper")
    host().run(1, recorder)
    assert len(recorder.take()) == 18


def test_recording_into_a_read_only_folder_is_refused_before_the_first_call(host, read_only):
    before = all_files(read_only)
    with pytest.raises(OSError, match=f"Read-only file system: '{read_only}/vdit-recording-"):
        host().run(1, Recorder(tier="disk", folder=read_only))
    assert all_files(read_only) == before


@pytest.mark.parametrize("name", ["new.safetensors", "old.safetensors"])
def test_saving_into_a_read_only_folder_says_so(read_only, name):
    before = {path: path.read_bytes() for path in read_only.iterdir()}
    said = f"The attention store could not be written to {read_only}/{name}: .*Read-only file system"
    with pytest.raises(OSError, match=said):
        record(read_only / name)
    assert {path: path.read_bytes() for path in read_only.iterdir()} == before


def test_what_lies_in_a_read_only_folder_can_be_used(host, read_only):
    transfer = Transfer(AttentionStore.load(read_only / "old.safetensors"))
    assert same(host().run(1, transfer), host().run(1))


#: How much is on the disk already, in kB: the disk is full in a file's header, in its entries, in the last of them.
FILLED = [0, 300, 700, 1000, 1016, 1020, 1024]


def fill(folder: Path, kilobytes: int) -> None:
    with contextlib.suppress(OSError):
        (folder / "others").write_bytes(bytes(kilobytes * 1024))


@pytest.mark.parametrize("filled", FILLED)
def test_a_recording_that_fills_the_disk_ends_the_run(host, small, filled):
    fill(small, filled)
    before = all_files(small)
    recorder = Recorder(tier="disk", folder=small)
    with pytest.raises(OSError, match=r"No space left on device.*: '.*/small/vdit-recording-"):
        host(**LARGE).run(1, recorder)
    assert all_files(small) == before
    with pytest.raises(RuntimeError, match="no recording"):
        recorder.take()
    (small / "others").unlink(missing_ok=True)
    host().run(1, recorder)  # a smaller one, once there is room
    assert len(recorder.take()) == 18


@pytest.mark.parametrize("filled", FILLED)
def test_saving_onto_a_full_disk_says_so_and_leaves_the_old_file(host, small, filled):
    recorder = Recorder()
    host(**LARGE).run(1, recorder)
    path = small / "a.safetensors"
    if filled < 900:
        record(path)
    fill(small, filled)
    before = {name: (small / name).read_bytes() for name in all_files(small)}
    said = rf"The attention store could not be written to {path}: .*No space left on device"
    with pytest.raises(OSError, match=said):
        recorder.store.save(path)
    assert {name: (small / name).read_bytes() for name in all_files(small)} == before


def test_a_disk_that_is_full_in_a_files_header_names_the_file(host, small, monkeypatch):
    """Where a file's entries just fitted, its header comes last."""
    plain = StoreWriter.finish

    def finish(writer):
        fill(small, 2000)
        plain(writer)

    monkeypatch.setattr(StoreWriter, "finish", finish)
    grid = TokenGrid(1, 20, 20)  # entries begin on a page of their own, behind the header's
    with pytest.raises(OSError, match=r"No space left on device while writing: '.*/000\d\.safetensors\.part'"):
        host(grid=grid, layers=60, heads=1, sigmas=(1.0,), branches=("cond",), head_dim=4).run(
            1, Recorder(tier="disk", folder=small)
        )
    (small / "others").unlink()
    assert all_files(small) == []


@contextlib.contextmanager
def largest_file(size: int) -> Iterator[None]:
    """No file may grow beyond this: what a quota does, and needs no root."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("size", [0, 1, 4096, 100_000, 700_000])
@pytest.mark.parametrize("what", ["record", "save"])
def test_files_that_may_not_be_that_large_are_none(host, disk, what, size):
    recorder = Recorder(tier="disk" if what == "record" else "RAM", folder=disk)
    do = {
        "record": lambda: host(**LARGE).run(1, recorder),
        "save": lambda: recorder.store.save(disk / "a.safetensors"),
    }
    if what == "save":
        host(**LARGE).run(1, recorder)
    with largest_file(size), pytest.raises(OSError, match=f"File too large while writing: '{disk}/"):
        do[what]()
    assert all_files(disk) == []


@pytest.mark.parametrize("call", [0, 1, 6, 12, 17])
@pytest.mark.parametrize("what", ["all of it", "its files"])
def test_a_folder_removed_in_mid_run_ends_the_run(host, disk, what, call):
    """Another program cleans up; whatever was seen of it, the run does not end as if there were a recording."""

    def remove() -> None:
        (folder,) = disk.iterdir()
        if what == "all of it":
            shutil.rmtree(folder)
        else:
            for path in folder.iterdir():
                path.unlink()

    recorder = Recorder(tier="disk", folder=disk)
    if (call, what) == (0, "its files"):  # there are none yet
        host().run(1, At(call, remove), recorder)
        assert len(recorder.take()) == 18
        return
    with pytest.raises(FileNotFoundError, match=r"No such file or directory.*: '.*/vdit-recording-"):
        host().run(1, At(call, remove), recorder)
    with pytest.raises(RuntimeError, match="no recording"):
        recorder.take()
    host().run(1, recorder)
    assert len(recorder.take()) == 18


#: Names that files may have, and how many bytes of 255 they take.
NAMES = [
    ("short", "a.safetensors"),
    ("as long as allowed", "a" * 243 + ".safetensors"),
    ("as long as allowed, of four bytes each", "𝔞" * 60 + ".safetensors"),
    ("without an ending", "a" * 255),
    ("blanks and quotes", " a 'b' \"c\" .safetensors"),
    ("a line break", "a\nb.safetensors"),
    ("hidden", "..safetensors"),
    ("like an option", "-rf.safetensors"),
]


@pytest.mark.parametrize("name", [pytest.param(name, id=label) for label, name in NAMES])
def test_a_name_that_the_disk_takes_is_taken(tmp_path, name):
    store = record(tmp_path / name)
    again = AttentionStore.load(tmp_path / name)
    assert (again.header, len(again)) == (store.header, 18)
    assert [path.name for path in tmp_path.iterdir() if path.name != "disk"] == [name]


def test_a_name_that_is_no_text_is_said_to_be(tmp_path):
    """The safetensors library reads files by names in UTF-8 only."""
    path = tmp_path / os.fsdecode(b"\xff.safetensors")
    record(path)
    with pytest.raises(StoreFileError, match="is not valid UTF-8"):
        AttentionStore.load(path)


TARGETS = [
    ("no folder", lambda at: at / "none" / "a.safetensors", "No such file or directory"),
    ("below a file", lambda at: make_file(at / "file") / "a.safetensors", "Not a directory"),
    ("a folder", lambda at: make_folder(at / "folder"), "Is a directory"),
    ("a full folder", lambda at: make_file(make_folder(at / "folder") / "file").parent, "Is a directory"),
    ("a name too long", lambda at: at / ("a" * 256), "File name too long"),
    ("a path too long", lambda at: Path(at, *["a" * 200] * 25), "File name too long"),
]


def make_file(path: Path) -> Path:
    path.write_bytes(b"x")
    return path


def make_folder(path: Path) -> Path:
    path.mkdir()
    return path


@pytest.mark.parametrize(("target", "said"), [pytest.param(*case, id=name) for name, *case in TARGETS])
def test_what_cannot_be_saved_to_is_said(tmp_path, target, said):
    path = target(tmp_path)
    before = all_files(tmp_path)
    with pytest.raises(OSError, match=f"The attention store could not be written to .*: .*{said}"):
        record(path)
    assert all_files(tmp_path) == before


@pytest.mark.parametrize("what", ["a store", "another file", "itself", "a link"])
def test_saving_over_what_is_there_replaces_it_whole(host, disk, tmp_path, what):
    path = disk / "a.safetensors"
    store = record(path)
    if what == "a store":
        record(path, seed=2)
    elif what == "another file":
        path.write_bytes(b"x" * 10**6)
    elif what == "itself":
        store = AttentionStore.load(path)
    elif what == "a link":
        (tmp_path / "elsewhere").write_bytes(b"x")
        path.unlink()
        path.symlink_to(tmp_path / "elsewhere")
    store.save(path)
    again = AttentionStore.load(path)
    wanted = host().sites()
    for site in wanted:
        (key,) = [key for key in again._keys if key == key_of(site)]
        q, _, _ = host().tensors(1, site)
        assert torch.equal(again.get(key, CPU, torch.float32)[0], q)
    assert all_files(disk) == ["a.safetensors"]
    if what == "a link":
        assert (tmp_path / "elsewhere").read_bytes() == b"x"


def key_of(site) -> Key:
    return Key(Evaluation(site.sigma, site.visit), site.rows[0].branch, site.layer)


def test_a_store_that_was_saved_over_itself_says_that_it_has_changed(disk):
    path = disk / "a.safetensors"
    record(path)
    os.utime(path, (1, 1))
    loaded = AttentionStore.load(path)
    loaded.save(path)
    with pytest.raises(ValueError, match=r"has changed since it was loaded\. Load it again"):
        loaded.get(next(iter(loaded._keys)), CPU, torch.float32)
