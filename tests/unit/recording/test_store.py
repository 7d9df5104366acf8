from __future__ import annotations

import json
import os
import struct

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from vdit_core.call import ModelSignature, TokenGrid
from vdit_core.recording.store import AttentionStore, Evaluation, Header, Key, StoreError, StoreFileError
from vdit_core.recording.store.format import digest
from vdit_core.recording.store.writer import StoreWriter

CPU = torch.device("cpu")


def make(quantization: str = "none", dtype: torch.dtype = torch.float16, evaluations: int = 2) -> AttentionStore:
    """A small store of random queries and keys: layers 0 and 2 of 3, both branches."""
    header = Header(
        ModelSignature(3, 2, 8), TokenGrid(2, 2, 2), (1.0, 0.5, 0.25), (0, 1), 1, quantization,
        str(dtype).removeprefix("torch."), "wan t2v 16 -> 16",
    )  # fmt: skip
    store, generator = AttentionStore(header), torch.Generator().manual_seed(0)
    for sigma in (1.0, 0.5)[:evaluations]:
        for branch in ("cond", "uncond"):
            for layer in (0, 2):
                q, k = torch.randn(2, *header.shape(), generator=generator).to(dtype)
                store.put(Key(Evaluation(sigma), branch, layer), q, k)
    return store


def keys(store: AttentionStore) -> list[Key]:
    return [Key(e, b, i) for e in store.evaluations for b in store.branches for i in store.layers]


@pytest.mark.parametrize("quantization", ["none", "int8"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_a_file_gives_back_every_bit(tmp_path, quantization, dtype):
    store = make(quantization, dtype)
    store.save(tmp_path / "a.safetensors")
    again = AttentionStore.load(tmp_path / "a.safetensors")
    assert again.header == store.header
    assert keys(again) == keys(store)
    assert again.nbytes == store.nbytes == len(store) * store.header.entry_bytes()
    for key in keys(store):
        for x, y in zip(store.get(key, CPU, dtype), again.get(key, CPU, dtype), strict=True):
            assert torch.equal(x, y)
    assert [p.name for p in tmp_path.iterdir()] == ["a.safetensors"]


@pytest.mark.parametrize("quantization", ["none", "int8"])
def test_the_store_keeps_copies(quantization):
    store = make(quantization, evaluations=1)
    q = torch.randn(store.header.shape()).half()
    key = Key(Evaluation(0.25), "cond", 1)
    store.put(key, q, q.clone())
    before = store.get(key, CPU, torch.float32)[0].clone()
    q.zero_()
    assert torch.equal(store.get(key, CPU, torch.float32)[0], before)
    assert before.abs().sum() > 0


def test_errors_name_what_is_missing_and_what_is_there():
    store = make()
    with pytest.raises(
        StoreError, match=r"Layer 1 of branch 'cond' at noise level 1\.0000 was not recorded.*2 of 3 layers"
    ):
        store.get(Key(Evaluation(1.0), "cond", 1), CPU, torch.float32)
    with pytest.raises(StoreError, match=r"q has shape \(1, 2, 9, 8\); this store holds \(1, 2, 8, 8\)"):
        store.put(Key(Evaluation(1.0), "cond", 0), torch.ones(1, 2, 9, 8), torch.ones(1, 2, 8, 8))


def test_levels_are_found_by_nearness_and_visits_by_number():
    store = make(evaluations=1)
    entry = torch.ones(store.header.shape()).half()
    for visit in (0, 1):
        store.put(Key(Evaluation(0.5, visit), "cond", 0), entry, entry)
    assert store.find(0.5004) == Evaluation(0.5, 0)
    assert store.find(0.5, visit=1) == Evaluation(0.5, 1)
    assert store.find(0.5, visit=7) == Evaluation(0.5, 1)
    assert store.find(0.7) is None
    assert store.find(0.7, gap=0.25) == Evaluation(0.5, 0)
    assert AttentionStore(store.header).find(0.5) is None


def test_a_truncated_file_is_refused_wherever_it_was_cut(tmp_path):
    make().save(tmp_path / "whole.safetensors")
    data = (tmp_path / "whole.safetensors").read_bytes()
    cut = tmp_path / "cut.safetensors"
    for length in [*range(0, 200, 7), *range(200, len(data), 211), len(data) - 1]:
        cut.write_bytes(data[:length])
        with pytest.raises(StoreFileError, match=r"cut\.safetensors is not a whole attention store"):
            AttentionStore.load(cut)


@pytest.mark.parametrize("length", [2**63, 2**63 - 1, 10**9, 0])
def test_a_file_that_lies_about_its_header_is_refused(tmp_path, length):
    make().save(tmp_path / "a.safetensors")
    data = (tmp_path / "a.safetensors").read_bytes()
    (tmp_path / "a.safetensors").write_bytes(struct.pack("<Q", length) + data[8:])
    with pytest.raises(StoreFileError):
        AttentionStore.load(tmp_path / "a.safetensors")


def rewrite(path, without=(), **changes):
    """Save a small store, then the same tensors under a changed header, some of its fields left out."""
    store = make()
    store.save(path)
    with safe_open(path, framework="pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        metadata = dict(file.metadata())
    header = json.loads(metadata["header"])
    for name, value in changes.items():
        if name in metadata and name != "header":
            metadata[name] = value if isinstance(value, str) else json.dumps(value)
        else:
            header[name] = value
    for name in without:
        del header[name]
    metadata["header"] = json.dumps(header)
    metadata["digest"] = digest(metadata["header"], metadata["entries"])
    save_file(tensors, path, metadata=metadata)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": "pt"}, "another kind"),
        ({"version": "3"}, "format version '3'"),
        ({"entries": "{"}, "cannot be read"),
        ({"entries": []}, "not those its header names"),
        ({"entries": [[1.0, 0, "cond", 0]] * 8}, "a call or a head twice"),
        ({"entries": [[float("nan"), 0, "cond", 0]]}, "not a noise level"),
        ({"entries": [[1.0, 0, "cond", 99]]}, "that a model of"),
        ({"heads": [0, 5]}, "that a model of"),
        ({"heads": [0]}, r"expected F16 \(1, 1, 8, 8\)"),
        ({"samples": -1}, "not a whole number"),
        ({"samples": True}, "not a whole number"),
        ({"dtype": ["x"]}, "dtype"),
        ({"dtype": "float32"}, "expected F32"),
        ({"quantization": "int8"}, "not those its header names"),
        ({"grid": {"frames": 10**30, "height": 2, "width": 2, "prefix": 0, "suffix": 0}}, "expected F16"),
        ({"model": {"layers": 3}}, "cannot be read"),
        ({"model": None}, "cannot be read"),
    ],
)
def test_a_header_that_does_not_fit_its_tensors_is_refused(tmp_path, change, message):
    rewrite(tmp_path / "a.safetensors", **change)
    with pytest.raises(StoreFileError, match=message):
        AttentionStore.load(tmp_path / "a.safetensors")


def test_files_of_before_the_models_kind_was_kept_are_read(tmp_path):
    rewrite(tmp_path / "a.safetensors", without=["kind"])
    loaded = AttentionStore.load(tmp_path / "a.safetensors")
    assert loaded.header.kind == ""
    assert keys(loaded) == keys(make())


def test_files_of_version_1_are_read(tmp_path):
    """What 0.1.0-dev wrote."""
    rewrite(tmp_path / "a.safetensors", without=["quantization"], version="1", precision="exact")
    assert AttentionStore.load(tmp_path / "a.safetensors").header == make().header


def test_another_safetensors_file_is_refused(tmp_path):
    save_file({"x": torch.ones(2)}, tmp_path / "x.safetensors")
    with pytest.raises(StoreFileError, match="another kind"):
        AttentionStore.load(tmp_path / "x.safetensors")
    with pytest.raises(FileNotFoundError, match="no attention store at"):
        AttentionStore.load(tmp_path / "none.safetensors")


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_a_damaged_file_is_read_as_it_was_or_refused(tmp_path, data):
    path = tmp_path / "a.safetensors"
    make(evaluations=1).save(path)
    content = bytearray(path.read_bytes())
    header = 8 + struct.unpack("<Q", content[:8])[0]
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, header - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(content)
    try:
        store = AttentionStore.load(path)
    except StoreFileError:
        return
    whole = make(evaluations=1)
    assert (store.header, keys(store)) == (whole.header, keys(whole))
    assert all(store.get(key, CPU, torch.float32)[0].shape == store.header.shape() for key in keys(store))


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    path = tmp_path / "a.safetensors"
    store = make()
    store.save(path)
    old = path.read_bytes()

    def half_written(writer, number, entry):
        writer.path.write_bytes(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(StoreWriter, "write", half_written)
    with pytest.raises(KeyboardInterrupt):
        make().save(path)
    assert path.read_bytes() == old
    assert list(tmp_path.iterdir()) == [path]


def test_writing_can_be_broken_off_before_each_entry(tmp_path):
    store, done = make(), []

    def stop():
        done.append(1)
        if len(done) == len(store):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        store.save(tmp_path / "a.safetensors", stop)
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_changes_after_it_was_loaded_is_not_read(tmp_path):
    """Of the same size, shorter, or gone: never other numbers than those recorded."""
    path = tmp_path / "a.safetensors"
    make().save(path)
    for change in (lambda: path.write_bytes(path.read_bytes()), lambda: os.truncate(path, 900), path.unlink):
        store = AttentionStore.load(path)
        change()
        with pytest.raises((StoreFileError, FileNotFoundError), match=r"has changed since it was loaded|No such file"):
            store.get(keys(store)[0], CPU, torch.float32)
        make().save(path)


def test_the_safetensors_library_reads_what_we_write(tmp_path):
    """Written entry by entry, and with room left in the header."""
    store = make("int8")
    writer = StoreWriter(tmp_path / "a.safetensors", store.header, [*keys(store), Key(Evaluation(0.25), "cond", 0)])
    given = {}
    for key in reversed(keys(store)):
        entry = store._storage.get(key)
        given |= {f"{len(given) // 4}{name}": part for name, part in entry.items()}
        writer.write(writer.reserve(key), entry)
    writer.finish()
    read = load_file(tmp_path / "a.safetensors")
    assert read.keys() == given.keys()
    assert all(torch.equal(read[name], part) for name, part in given.items())
    again = AttentionStore.load(tmp_path / "a.safetensors")
    assert sorted(map(str, keys(again))) == sorted(map(str, keys(store)))
    with pytest.raises(StoreError, match="was not announced"):
        writer.reserve(Key(Evaluation(0.1), "cond", 0))


def test_a_file_has_the_permissions_of_any_new_file(tmp_path):
    path, plain = tmp_path / "a.safetensors", tmp_path / "plain"
    make().save(path)
    plain.touch()
    assert path.stat().st_mode == plain.stat().st_mode


def test_a_folder_that_cannot_be_written_is_an_os_error(tmp_path):
    with pytest.raises(OSError, match="could not be written"):
        make().save(tmp_path / "none" / "a.safetensors")
