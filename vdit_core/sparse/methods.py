"""The ways to leave parts of a map out, by name: patterns of blocks, which are fast, and two exact ones, the ruler."""

from __future__ import annotations

from .patterns import PATTERNS

#: Name -> the rule of `exact.masked_attention`.
EXACT = {"exact share": "top-k", "exact mass": "top-p"}

METHODS = (*PATTERNS, *EXACT)

#: Whose `keep` is a mass to be reached; of the others it is a share of the map.
BY_MASS = ("mass", "exact mass")
