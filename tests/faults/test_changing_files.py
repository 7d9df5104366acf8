"""Files that change while a transfer reads from them: noticed, never other numbers than those recorded."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from faults.breaking import At
from faults.broken_files import promptly, refused
from synthetic_host import same

from vdit_core.recording.recorder import Recorder
from vdit_core.recording.store import AttentionStore, StoreFileError
from vdit_core.transfer import Transfer


def rewritten(path: Path, other: bytes) -> None:
    path.write_bytes(other)


def replaced(path: Path, other: bytes) -> None:
    new = path.with_name("new")
    new.write_bytes(other)
    os.replace(new, path)


def flipped(path: Path, other: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(-4, 2)
        file.write(b"\1\2\3\4")


def by_a_pipe(path: Path, other: bytes) -> None:
    path.unlink()
    os.mkfifo(path)


def by_a_folder(path: Path, other: bytes) -> None:
    path.unlink()
    path.mkdir()


HAS_CHANGED = r"a\.safetensors has changed since it was loaded\. Load it again"
BETWEEN = r"|No such file or directory: .*a\.safetensors"  # as a thread may see it
CHANGES = [
    ("rewritten with other numbers", rewritten, HAS_CHANGED),
    ("replaced by another recording", replaced, HAS_CHANGED),
    ("four bytes are changed", flipped, HAS_CHANGED),
    ("cut by a byte", lambda path, other: os.truncate(path, path.stat().st_size - 1), HAS_CHANGED),
    ("cut in half", lambda path, other: os.truncate(path, path.stat().st_size // 2), HAS_CHANGED),
    ("emptied", lambda path, other: os.truncate(path, 0), HAS_CHANGED),
    ("longer", lambda path, other: os.truncate(path, path.stat().st_size + 4096), HAS_CHANGED),
    ("deleted", lambda path, other: path.unlink(), r"No such file or directory: .*a\.safetensors"),
    (
        "moved away",
        lambda path, other: path.rename(path.with_name("b")),
        r"No such file or directory: .*a\.safetensors",
    ),
    ("replaced by a pipe", by_a_pipe, HAS_CHANGED + BETWEEN),
    ("replaced by a folder", by_a_folder, HAS_CHANGED + BETWEEN),
    (
        "replaced by a link to itself",
        lambda path, other: (path.unlink(), path.symlink_to(path)),
        "symbolic links|No such file",
    ),
]


@pytest.mark.parametrize("call", [0, 6, 13])
@pytest.mark.parametrize(("change", "said"), [pytest.param(*case, id=name) for name, *case in CHANGES])
def test_a_file_that_changes_in_mid_run_ends_it(host, tmp_path, change, said, call):
    path, recorders = tmp_path / "a.safetensors", [Recorder(), Recorder()]
    for seed, recorder in enumerate(recorders):
        host().run(seed, recorder)
    mine, other = (recorder.take() for recorder in recorders)
    other.save(path)
    changed = path.read_bytes()
    mine.save(path)
    os.utime(path, (1, 1))  # so that a change now is a change of the clock's reading, however coarse it is
    transfer, wanted = Transfer(AttentionStore.load(path)), host().run(2, Transfer(mine))
    with promptly(), pytest.raises((StoreFileError, OSError), match=said):
        host().run(2, At(call, lambda: change(path, changed)), transfer)
    if path.is_dir():
        path.rmdir()
    path.unlink(missing_ok=True)
    mine.save(path)
    again = Transfer(AttentionStore.load(path))
    assert same(host().run(2, again), wanted)


@pytest.mark.parametrize("part", [0, 1, 2, 3])
def test_a_change_while_an_entry_is_read_is_noticed(host, tmp_path, monkeypatch, part):
    """Before each of an entry's four tensors."""
    path, recorder, made = tmp_path / "a.safetensors", Recorder(quantization="int8"), []
    host().run(1, recorder)
    recorder.take().save(path)
    os.utime(path, (1, 1))
    store, plain = AttentionStore.load(path), torch.empty

    def empty(*args, **options):
        made.append(1)
        if len(made) == part + 1:
            flipped(path, b"")
        return plain(*args, **options)

    (key, *_) = store._keys
    monkeypatch.setattr(torch, "empty", empty)
    with pytest.raises(StoreFileError, match=HAS_CHANGED):
        store.get(key, torch.device("cpu"), torch.float32)


def test_a_file_replaced_while_it_is_opened_is_refused(host, tmp_path, content, large, monkeypatch):
    """What is checked is what will be read."""
    from vdit_core.recording.store import reader

    path, plain = tmp_path / "a.safetensors", reader.safe_open
    path.write_bytes(content)

    def opened(*args, **options):
        replaced(path, large)
        return plain(*args, **options)

    monkeypatch.setattr(reader, "safe_open", opened)
    refused(path, "it is being written to")


@pytest.mark.parametrize("step", range(3))
@pytest.mark.parametrize(
    ("change", "said"), [pytest.param(*case, id=name) for name, *case in CHANGES if "mov" not in name]
)
def test_a_recording_on_disk_that_is_changed_is_not_used(host, disk, tmp_path, change, said, step):
    """The shards of a recording that lives on disk: a whole file of other numbers too."""
    said = said.replace(r"a\.safetensors", rf"000{step}\.safetensors")
    recorders = [Recorder(tier="disk", folder=disk), Recorder(tier="disk", folder=disk)]
    for seed, recorder in enumerate(recorders):
        host().run(seed, recorder)
    shards = {recorder: sorted(recorder.store._storage.path.iterdir()) for recorder in recorders}
    path, other = shards[recorders[0]][step], shards[recorders[1]][step].read_bytes()
    os.utime(path, (1, 1))
    change(path, other)
    with promptly(), pytest.raises((StoreFileError, OSError), match=said):
        host().run(2, Transfer(recorders[0].take()))
