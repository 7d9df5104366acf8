"""The ways to leave parts of a map out, by name: patterns of blocks, which are fast, and two exact ones."""

from __future__ import annotations

from .patterns import PATTERNS

#: Name -> the rule of `attention.reference.masked_attention`.
EXACT = {"exact top-k": "top-k", "exact top-p": "top-p"}

METHODS = (*PATTERNS, *EXACT)

#: The methods whose density is a mass to be reached; of the others it is a share of the map.
TOP_P = ("block top-p", "exact top-p")

#: The methods that keep the strongest keys of a query, a share of them: of these a `DensityProfile` speaks.
BY_STRENGTH = ("block top-k", "exact top-k")

#: Names of version 0.1.0-dev, in files of then.
RENAMED = {
    "top blocks": "block top-k",
    "mass": "block top-p",
    "exact share": "exact top-k",
    "exact mass": "exact top-p",
}
