"""The fault matrix: whatever goes wrong, nothing is lost or falsified, and what went wrong is said.

Each module is one family, each line of its tables a case: an id, what is done, what must come of it. Beside that, every
case is held to what `held_to` looks at when it is over.
"""

from __future__ import annotations

import gc
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from synthetic_host import Outputs, SyntheticHost, same

from vdit_core.call import TokenGrid
from vdit_core.recording.recorder import Recorder
from vdit_core.recording.store import AttentionStore
from vdit_core.selection import Indices, Selection
from vdit_core.sparse.profile import SparseProfile

_SEED = 11


def our_threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("vdit")]


def not_whole(folder: Path) -> list[str]:
    """What lies in a folder and is no whole file of ours."""
    found = []
    for path in (path for path in folder.rglob("*") if not path.is_dir()):
        try:
            if path.name.startswith(".") or path.suffix not in (".safetensors", ".json"):
                raise ValueError
            (SparseProfile if path.suffix == ".json" else AttentionStore).load(path)
        except (ValueError, OSError):
            found.append(path.name)
    return found


@pytest.fixture(scope="session")
def stock() -> Outputs:
    """What the model gives when nothing of ours has run yet."""
    return SyntheticHost().run(_SEED)


@pytest.fixture(scope="session", autouse=True)
def _quick_collections() -> Iterator[None]:
    """Collecting garbage looks at what the tests make, not at what was imported."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    """The folder that recordings and files go to; a case puts its own broken files elsewhere in `tmp_path`."""
    folder = tmp_path / "disk"
    folder.mkdir()
    return folder


@pytest.fixture(autouse=True)
def held_to(stock: Outputs, disk: Path) -> Iterator[None]:
    """After every case: the stock output, no thread of ours, whole files only."""
    yield
    assert same(SyntheticHost().run(_SEED), stock)
    assert our_threads() == []
    if not_whole(disk):
        gc.collect()  # what a test's own traceback still held
    assert not_whole(disk) == []


@pytest.fixture(scope="session")
def host() -> type[SyntheticHost]:
    return SyntheticHost


@pytest.fixture(scope="session")
def record() -> Callable[..., AttentionStore]:
    """A recording of a run: `record(selection, evaluations=..., **fields of the host)`."""

    def run(selection: Selection | None = None, evaluations: tuple[float, ...] | None = None, **fields: Any):
        recorder = Recorder(selection)
        SyntheticHost(**fields).run(1, recorder, evaluations=evaluations)
        return recorder.take()

    return run


@pytest.fixture(scope="session")
def content(record: Callable[..., AttentionStore], tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A small store's file: layer 0 and 2, one step, one branch, exact."""
    store = record(Selection(Indices("0, 2"), steps=Indices("1"), branches="cond"))
    return _saved(store, tmp_path_factory.mktemp("small"))


@pytest.fixture(scope="session")
def large(record: Callable[..., AttentionStore], tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """More than 200 KB."""
    return _saved(record(grid=TokenGrid(2, 8, 8)), tmp_path_factory.mktemp("large"))


def _saved(store: AttentionStore, folder: Path) -> bytes:
    store.save(folder / "a.safetensors")
    return (folder / "a.safetensors").read_bytes()
