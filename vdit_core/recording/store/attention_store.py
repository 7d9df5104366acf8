"""The attention store: the queries and keys of a sampling run, from which any of its attention maps can be had again.

A full map of Wan2.1 at 32,760 tokens weighs 25.8 GB per layer and step; its queries and keys 0.20 GB. So these are
kept, and softmax(Q K^T / sqrt(d)) is computed where it is used.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from ...atomic import whole_file
from .. import quantization as codec
from .page_locked import POOL
from .reader import StoreReader
from .schema import DTYPES, TEXT, Entry, Evaluation, Header, Key, StoreError
from .storage import File, Memory, Storage
from .writer import StoreWriter

#: Two noise levels closer than this are the same level: room for rounding between hosts, far less than a step.
SAME_LEVEL = 1e-3


class AttentionStore:
    """Recorded queries and keys, one entry per `Key`; a `record.Recorder` fills it.

    storage: where the entries are kept; RAM if none is given.
    """

    def __init__(self, header: Header, storage: Storage | None = None) -> None:
        self.header = header
        self._storage = storage or Memory()
        self._keys: dict[Key, None] = {}
        self._evaluations: dict[Evaluation, None] = {}  # in the order of the run
        self._dropped = False

    def __contains__(self, key: Key) -> bool:
        return key in self._keys

    def __len__(self) -> int:
        return len(self._keys)

    @property
    def evaluations(self) -> tuple[Evaluation, ...]:
        """The recorded evaluations, in the order of the run."""
        return tuple(self._evaluations)

    @property
    def branches(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(key.branch for key in self._keys))

    @property
    def layers(self) -> tuple[int, ...]:
        return tuple(sorted({key.layer for key in self._keys}))

    @property
    def on_disk(self) -> bool:
        """Whether entries are read from files when they are used."""
        return self._storage.slow

    def put(self, key: Key, q: Tensor, k: Tensor, text: Tensor | None = None) -> None:
        """Keep copies of q and k, (samples, heads, tokens, head_dim), and, where the run's attention is joint, of the
        share that went to text, (samples, heads).

        Raises:
            StoreError: if a shape is not the header's.
            OSError: if they, or earlier ones, cannot be kept.
        """
        for name, x in (("q", q), ("k", k)):
            if tuple(x.shape) != self.header.shape():
                raise StoreError(f"{name} has shape {tuple(x.shape)}; this store holds {self.header.shape()}.")
        if self.header.joint and (text is None or text.shape != q.shape[:2]):
            raise StoreError(f"The share that went to text is missing; this store holds {tuple(q.shape[:2])}.")
        dtype, quantization, pack = DTYPES[self.header.dtype], self.header.quantization, None
        if q.device.type == "cuda":
            if not codec.packs_in_one_pass(q, quantization):
                quantization, pack = "none", partial(_packed, self.header.quantization)  # beside the model's work
            self._storage.make_room(q.numel() * 2 * dtype.itemsize if pack else self.header.entry_bytes())
        entry = {}
        for name, x in ((".q", q), (".k", k)):
            for suffix, part in codec.encode(x.detach().to(dtype), quantization).items():
                lent = part.data_ptr() == x.data_ptr()  # a host only lends its tensors
                entry[name + suffix] = part.clone() if lent else part
        if text is not None and self.header.joint:
            entry[TEXT] = text.detach().float().clone()
        self._storage.put(key, entry, pack)
        self._list(key)

    def finish(self) -> None:
        """All has been put: wait until it is in its place, so that it can be had.

        Raises:
            OSError: if something could not be kept.
        """
        self._storage.finish()

    def drop(self) -> None:
        """Leave nothing behind, whatever is still under way."""
        self._dropped = True
        self._storage.drop()
        self._keys.clear()
        self._evaluations.clear()

    def _list(self, key: Key) -> None:
        self._keys[key] = None
        self._evaluations[key.evaluation] = None

    def get(self, key: Key, device: torch.device, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """The q and k of an entry, each (samples, heads, tokens, head_dim); see `get_all`."""
        return self.get_all(key, device, dtype)[:2]

    def get_all(self, key: Key, device: torch.device, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor | None]:
        """The q and k of an entry, and the share of its attention that went to text, (samples, heads), or None.

        Raises:
            StoreError: naming the call that was not recorded, and what was; or the file that has changed.
        """
        if key not in self._keys:
            raise StoreError(
                f"Layer {key.layer} of branch {key.branch!r} at noise level {key.evaluation.sigma:.4f} was not "
                f"recorded. The store holds {self.summary()}."
            )
        entry = self._storage.get(key, pinned=device.type == "cuda")
        parts = {name: part.to(device, non_blocking=True) for name, part in entry.items()}
        if device.type == "cuda":
            POOL.in_use(entry.values(), torch.cuda.current_stream(device).record_event())
        q, k = (codec.decode({n[2:]: p for n, p in parts.items() if n.startswith(x)}, dtype) for x in (".q", ".k"))
        return q, k, parts.get(TEXT)

    def find(self, sigma: float, visit: int = 0, gap: float = SAME_LEVEL) -> Evaluation | None:
        """The recorded evaluation nearest to a noise level, or None if none is within `gap`.

        Of several visits to that level the one with the same number counts, else the last before it.

        Raises:
            StoreError: if the store was dropped: whoever still uses it must not take that for a level not recorded.
        """
        if self._dropped:
            raise StoreError("This recording was dropped while it was in use.")
        near = min(self.evaluations, key=lambda e: abs(e.sigma - sigma), default=None)
        if near is None or not abs(near.sigma - sigma) <= gap:
            return None
        visits = [e for e in self.evaluations if e.sigma == near.sigma]
        return max((e for e in visits if e.visit <= visit), key=lambda e: e.visit, default=visits[0])

    @property
    def nbytes(self) -> int:
        """What the store weighs now."""
        return len(self) * self.header.entry_bytes()

    def size(self) -> str:
        """Half a line: how many calls (layer x evaluation x branch) it holds, and what they weigh."""
        return f"{len(self)} calls, {self.nbytes / 2**20:.1f} MiB"

    def summary(self) -> str:
        """One line: what the store holds and what it weighs."""
        h = self.header
        return (
            f"{len(self.layers)} of {h.model.layers} layers, {len(h.heads)} of {h.model.heads} heads, "
            f"{len(self.evaluations)} evaluations of {len(h.sigmas)} steps, branches {' + '.join(self.branches)}, "
            f"{h.samples} sample{'s' if h.samples > 1 else ''} of {h.grid}, {h.values()}, "
            f"{self.nbytes / 2**20:.1f} MiB"
        )

    def __str__(self) -> str:
        return f"AttentionStore({self.summary()})"

    def save(self, path: Path, on_entry: Callable[[], None] = lambda: None) -> None:
        """Write the store as one whole file, entry by entry, or leave nothing behind.

        on_entry: called before each; what it raises ends the writing.

        Raises:
            OSError: as the disk says.
        """
        try:
            with whole_file(path) as part:
                writer = StoreWriter(part, self.header, tuple(self._keys))
                for key in self._keys:
                    on_entry()
                    writer.write(writer.reserve(key), {name: x.cpu() for name, x in self._storage.get(key).items()})
                writer.finish()
        except OSError as error:
            raise OSError(f"The attention store could not be written to {path}: {error}") from None

    @classmethod
    def load(cls, path: Path) -> AttentionStore:
        """Open a file: all that it says of its entries is checked now, each is read when it is used.

        Raises:
            StoreFileError: naming the file and what is wrong with it.
            FileNotFoundError: if there is none.
        """
        reader = StoreReader(path)
        store = cls(reader.header, File(reader))
        for key in reader.numbers:
            store._list(key)
        return store


def _packed(quantization: str, entry: Entry) -> Entry:
    """An entry of q and k, each as it is, with these packed."""
    parts: Entry = {}
    for name, part in entry.items():
        packed = {"": part} if name == TEXT else codec.encode(part, quantization)
        parts |= {name + suffix: one for suffix, one in packed.items()}
    return parts
