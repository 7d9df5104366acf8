"""The attention store: the queries and keys of a sampling run, from which any of its attention maps can be had again.

A full map of Wan2.1 at 32,760 tokens weighs 25.8 GB per layer and step; its queries and keys 0.20 GB. So these are
kept, and softmax(Q K^T / sqrt(d)) is computed where it is used.

File format, version 1: one safetensors file. Its metadata holds "format": "vdit attention store", "version": "1",
"header": the JSON of `Header`, "entries": a JSON list of [noise level, visit, branch, layer], and "digest": the SHA-256
of these two. Entry number n is the tensor pair "n.q", "n.k", each (samples, heads, tokens, head_dim); with precision
int8 also "n.q.scale", "n.k.scale".
"""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from . import precision as codec
from .atomic import whole_file
from .call import ModelSignature, TokenGrid

FORMAT, VERSION = "vdit attention store", "1"
_DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
_FILE_DTYPES = {torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16", torch.int8: "I8"}

#: Two noise levels closer than this are the same level: room for rounding between hosts, far less than a step.
SAME_LEVEL = 1e-3


class StoreError(ValueError):
    """A store does not hold what is asked of it."""


class StoreFileError(StoreError):
    """A file is not a whole and valid attention store."""


@dataclass(frozen=True)
class Evaluation:
    """One evaluation of the model: its noise level, and how often the run had been at this level before."""

    sigma: float
    visit: int = 0


@dataclass(frozen=True)
class Header:
    """What all entries of a store have in common.

    sigmas: the noise level of every step of the recorded run, recorded or not. heads: which heads each entry holds.
    samples: how many videos. dtype: of q and k in the model ("float32", "float16" or "bfloat16"). kind: `Run.kind`;
    files of before this field have none.
    """

    model: ModelSignature
    grid: TokenGrid
    sigmas: tuple[float, ...]
    heads: tuple[int, ...]
    samples: int
    precision: str
    dtype: str
    kind: str = ""

    def shape(self) -> tuple[int, int, int, int]:
        """The shape of one recorded q or k."""
        return self.samples, len(self.heads), self.grid.tokens, self.model.head_dim

    def parts(self) -> dict[str, tuple[tuple[int, ...], torch.dtype]]:
        """Name suffix, shape and dtype of every tensor of one entry."""
        one = codec.layout(self.shape(), _DTYPES[self.dtype], self.precision)
        return {f".{name}{suffix}": spec for name in "qk" for suffix, spec in one.items()}

    def entry_bytes(self) -> int:
        """What one entry (q and k of one layer, evaluation and branch) weighs."""
        return sum(math.prod(shape) * dtype.itemsize for shape, dtype in self.parts().values())


@dataclass(frozen=True)
class Key:
    """Which call an entry is of."""

    evaluation: Evaluation
    branch: str
    layer: int


class AttentionStore:
    """Recorded queries and keys in memory, one entry per `Key`; a `record.Recorder` fills it."""

    def __init__(self, header: Header) -> None:
        self.header = header
        self._entries: dict[Key, dict[str, Tensor]] = {}
        self._evaluations: dict[Evaluation, None] = {}  # in the order of the run

    def __contains__(self, key: Key) -> bool:
        return key in self._entries

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def evaluations(self) -> tuple[Evaluation, ...]:
        """The recorded evaluations, in the order of the run."""
        return tuple(self._evaluations)

    @property
    def branches(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(key.branch for key in self._entries))

    @property
    def layers(self) -> tuple[int, ...]:
        return tuple(sorted({key.layer for key in self._entries}))

    def put(self, key: Key, q: Tensor, k: Tensor, device: str | None = "cpu") -> None:
        """Keep copies of q and k, (samples, heads, tokens, head_dim), on `device` (None: where they are).

        Raises:
            StoreError: if the shape is not the header's.
        """
        entry = {}
        for name, x in ((".q", q), (".k", k)):
            if tuple(x.shape) != self.header.shape():
                raise StoreError(f"{name[1:]} has shape {tuple(x.shape)}; this store holds {self.header.shape()}.")
            for suffix, part in codec.encode(x.to(_DTYPES[self.header.dtype]), self.header.precision).items():
                lent = part.data_ptr() == x.data_ptr()  # a host only lends its tensors
                entry[name + suffix] = part.to(device or part.device, copy=lent)
        self._keep(key, entry)

    def _keep(self, key: Key, entry: dict[str, Tensor]) -> None:
        self._entries[key] = entry
        self._evaluations[key.evaluation] = None

    def get(self, key: Key, device: torch.device, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """The q and k of an entry, each (samples, heads, tokens, head_dim).

        Raises:
            StoreError: naming the call that was not recorded, and what was.
        """
        if key not in self._entries:
            raise StoreError(
                f"Layer {key.layer} of branch {key.branch!r} at noise level {key.evaluation.sigma:.4f} was not "
                f"recorded. The store holds {self.summary()}."
            )
        parts = {name: part.to(device, non_blocking=True) for name, part in self._entries[key].items()}
        q, k = (codec.decode({n[2:]: p for n, p in parts.items() if n.startswith(x)}, dtype) for x in (".q", ".k"))
        return q, k

    def find(self, sigma: float, visit: int = 0, gap: float = SAME_LEVEL) -> Evaluation | None:
        """The recorded evaluation nearest to a noise level, or None if none is within `gap`.

        Of several visits to that level the one with the same number counts, else the last before it.
        """
        near = min(self.evaluations, key=lambda e: abs(e.sigma - sigma), default=None)
        if near is None or abs(near.sigma - sigma) > gap:
            return None
        visits = [e for e in self.evaluations if e.sigma == near.sigma]
        return max((e for e in visits if e.visit <= visit), key=lambda e: e.visit, default=visits[0])

    @property
    def nbytes(self) -> int:
        """What the store weighs now."""
        return sum(part.nbytes for entry in self._entries.values() for part in entry.values())

    def size(self) -> str:
        """Half a line: how many calls (layer x evaluation x branch) it holds, and what they weigh."""
        return f"{len(self)} calls, {self.nbytes / 2**20:.1f} MiB"

    def summary(self) -> str:
        """One line: what the store holds and what it weighs."""
        h = self.header
        return (
            f"{len(self.layers)} of {h.model.layers} layers, {len(h.heads)} of {h.model.heads} heads, "
            f"{len(self.evaluations)} evaluations of {len(h.sigmas)} steps, branches {' + '.join(self.branches)}, "
            f"{h.samples} sample{'s' if h.samples > 1 else ''} of {h.grid}, {h.precision} {h.dtype}, "
            f"{self.nbytes / 2**20:.1f} MiB"
        )

    def __str__(self) -> str:
        return f"AttentionStore({self.summary()})"

    def save(self, path: Path) -> None:
        """Write the store as one whole file, or leave nothing behind.

        Raises:
            OSError: as the disk says.
        """
        keys = [[key.evaluation.sigma, key.evaluation.visit, key.branch, key.layer] for key in self._entries]
        tensors = {f"{n}{name}": part for n, e in enumerate(self._entries.values()) for name, part in e.items()}
        header, entries = json.dumps(asdict(self.header)), json.dumps(keys)
        metadata = {
            "format": FORMAT,
            "version": VERSION,
            "header": header,
            "entries": entries,
            "digest": digest(header, entries),
        }
        try:
            with whole_file(path) as part:
                save_file(tensors, part, metadata=metadata)
        except (SafetensorError, OSError) as error:
            raise OSError(f"The attention store could not be written to {path}: {error}") from None

    @classmethod
    def load(cls, path: Path) -> AttentionStore:
        """Read a file; names, shapes and dtypes of all its tensors are checked before any is read.

        Raises:
            StoreFileError: naming the file and what is wrong with it.
            FileNotFoundError: if there is none.
        """
        path = Path(path)
        if not path.is_file():
            raise FileNotFoundError(f"There is no attention store at {path}.")
        try:
            with safe_open(path, framework="pt") as file:
                header, keys = _read_metadata(file.metadata() or {})
                _check_tensors(file, header, len(keys))
                store = cls(header)
                for n, key in enumerate(keys):
                    store._keep(key, {name: file.get_tensor(f"{n}{name}") for name in header.parts()})
                return store
        except (SafetensorError, StoreFileError) as error:
            raise StoreFileError(f"{path} is not a whole attention store: {error}. Record it again.") from None


def digest(header: str, entries: str) -> str:
    """What tells a damaged header from a true one: SHA-256 of both texts, hexadecimal."""
    return hashlib.sha256(f"{header}\n{entries}".encode()).hexdigest()


def _check_tensors(file: Any, header: Header, entries: int) -> None:
    expected = {f"{n}{name}": spec for n in range(entries) for name, spec in header.parts().items()}
    if odd := sorted(set(file.keys()) ^ set(expected)):
        raise StoreFileError(f"its tensors are not those its header names (first: {odd[0]})")
    for name, (shape, dtype) in expected.items():
        found = file.get_slice(name)
        if tuple(found.get_shape()) != shape or found.get_dtype() != _FILE_DTYPES[dtype]:
            raise StoreFileError(
                f"tensor {name} is {found.get_dtype()} {tuple(found.get_shape())}, "
                f"expected {_FILE_DTYPES[dtype]} {shape}"
            )


def _read_metadata(metadata: dict[str, str]) -> tuple[Header, list[Key]]:
    """The header and the keys of a file, every field checked."""
    if metadata.get("format") != FORMAT:
        raise StoreFileError("it is a safetensors file of another kind")
    if metadata.get("version") != VERSION:
        raise StoreFileError(f"it has format version {metadata.get('version')!r}; this pack reads version {VERSION}")
    if metadata.get("digest") != digest(metadata.get("header", ""), metadata.get("entries", "")):
        raise StoreFileError("its header is damaged")
    try:
        raw = json.loads(metadata["header"])
        header = Header(
            model=ModelSignature(**_whole_numbers(raw["model"])),
            grid=TokenGrid(**_whole_numbers(raw["grid"])),
            sigmas=tuple(_level(sigma) for sigma in raw["sigmas"]),
            heads=tuple(_whole(i) for i in raw["heads"]),
            samples=_whole(raw["samples"]),
            precision=str(raw["precision"]),
            dtype=str(raw["dtype"]),
            kind=str(raw.get("kind", "")),
        )
        keys = [
            Key(Evaluation(_level(sigma), _whole(visit)), str(branch), _whole(layer))
            for sigma, visit, branch, layer in json.loads(metadata["entries"])
        ]
    except (AttributeError, KeyError, TypeError, ValueError, RecursionError) as error:
        raise StoreFileError(f"its header cannot be read ({type(error).__name__}: {error})") from None
    if header.precision not in codec.PRECISIONS or header.dtype not in _DTYPES:
        raise StoreFileError(f"its header has precision {header.precision!r} and dtype {header.dtype!r}")
    if len(set(keys)) != len(keys) or len(set(header.heads)) != len(header.heads):
        raise StoreFileError("its header lists a call or a head twice")
    if any(k.layer >= header.model.layers for k in keys) or any(i >= header.model.heads for i in header.heads):
        raise StoreFileError(f"its header lists layers or heads that a model of {header.model} does not have")
    return header, keys


def _level(value: Any) -> float:
    if not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError(f"{value!r} is not a noise level")
    return float(value)


def _whole(value: Any) -> int:
    if type(value) is not int or value < 0:
        raise ValueError(f"{value!r} is not a whole number")
    return value


def _whole_numbers(values: dict[str, Any]) -> dict[str, int]:
    return {name: _whole(value) for name, value in values.items()}
