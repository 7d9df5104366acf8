"""The file format of attention stores, version 2: one safetensors file.

Its metadata holds "format": "vdit attention store", "version": "2", "header": the JSON of `Header`, "entries": a JSON
list of [noise level, visit, branch, layer], and "digest": the SHA-256 of these two. Entry number n is the tensor pair
"n.q", "n.k", each (samples, heads, tokens, head_dim); with quantization int8 also "n.q.scale", "n.k.scale".

Version 1, of 0.1.0-dev, called the quantization "precision", and none of it "none".
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any

import torch

from ...call import ModelSignature, TokenGrid
from ...json_fields import UNREADABLE, number, whole, whole_numbers
from ...provenance import Provenance
from .. import quantization as codec
from .schema import DTYPES, Evaluation, Header, Key, StoreFileError

FORMAT, VERSION = "vdit attention store", "2"
FILE_DTYPES = {torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16", torch.int8: "I8"}


def metadata(header: Header, keys: Sequence[Key]) -> dict[str, str]:
    """What a file with these entries says of itself."""
    of_all = json.dumps(asdict(header) | {"model": header.model.as_json()})
    entries = json.dumps([[key.evaluation.sigma, key.evaluation.visit, key.branch, key.layer] for key in keys])
    return {
        "format": FORMAT,
        "version": VERSION,
        "header": of_all,
        "entries": entries,
        "digest": digest(of_all, entries),
    }


def digest(header: str, entries: str) -> str:
    """What tells a damaged header from a true one: SHA-256 of both texts, hexadecimal."""
    return hashlib.sha256(f"{header}\n{entries}".encode()).hexdigest()


def read_metadata(metadata: dict[str, str]) -> tuple[Header, list[Key]]:
    """The header and the keys of a file, every field checked.

    Raises:
        StoreFileError: naming what is wrong.
    """
    if metadata.get("format") != FORMAT:
        raise StoreFileError("it is a safetensors file of another kind")
    if metadata.get("version") not in ("1", VERSION):
        raise StoreFileError(f"it has format version {metadata.get('version')!r}; this pack reads version {VERSION}")
    if metadata.get("digest") != digest(metadata.get("header", ""), metadata.get("entries", "")):
        raise StoreFileError("its header is damaged")
    try:
        raw = json.loads(metadata["header"])
        header = Header(
            model=ModelSignature.from_json(raw["model"]),
            grid=TokenGrid(**whole_numbers(raw["grid"])),
            sigmas=tuple(number(sigma, "noise level") for sigma in raw["sigmas"]),
            heads=tuple(whole(i) for i in raw["heads"]),
            samples=whole(raw["samples"]),
            quantization=_quantization(raw),
            dtype=str(raw["dtype"]),
            kind=str(raw.get("kind", "")),
            made=_provenance(raw.get("made", {})),
            joint=raw.get("joint", False) is True,
        )
        keys = [
            Key(Evaluation(number(sigma, "noise level"), whole(visit)), str(branch), whole(layer))
            for sigma, visit, branch, layer in json.loads(metadata["entries"])
        ]
    except UNREADABLE as error:
        raise StoreFileError(f"its header cannot be read ({type(error).__name__}: {error})") from None
    if header.quantization not in codec.QUANTIZATIONS or header.dtype not in DTYPES:
        raise StoreFileError(f"its header has quantization {header.quantization!r} and dtype {header.dtype!r}")
    if not header.sigmas:
        raise StoreFileError("its header has no steps")
    if len(set(keys)) != len(keys) or list(header.heads) != sorted(set(header.heads)):
        raise StoreFileError("its header lists a call or a head twice, or heads that are not in rising order")
    if any(k.layer >= header.model.layers for k in keys) or any(i >= header.model.heads for i in header.heads):
        raise StoreFileError(f"its header lists layers or heads that a model of {header.model} does not have")
    return header, keys


def _quantization(raw: dict[str, Any]) -> str:
    found = str(raw["quantization"] if "quantization" in raw else raw["precision"])
    return {"exact": "none"}.get(found, found)


def _provenance(raw: dict[str, Any]) -> Provenance:
    """Files of newer packs may know more of a run; what this one does not know is left out."""
    known: dict[str, Any] = {}
    for name, read in _PROVENANCE.items():
        if raw.get(name) is not None:
            known[name] = read(raw[name])
    return Provenance(**known)


def _noise(value: Any) -> tuple[tuple[float, ...], ...]:
    return tuple(tuple(number(x) for x in row) for row in value)


_PROVENANCE: dict[str, Callable[[Any], Any]] = {
    **dict.fromkeys(("width", "height", "frames", "seed"), whole),
    **dict.fromkeys(("shift", "denoise", "cfg"), number),
    **dict.fromkeys(("sampler", "scheduler"), str),
    "noise": _noise,
}
