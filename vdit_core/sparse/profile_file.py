"""Profiles of either kind from their files: "format" says which it is."""

from __future__ import annotations

import json
from pathlib import Path

from ..json_fields import UNREADABLE
from .density_profile import DensityProfile
from .profile import SparseProfile


def load_profile(path: Path) -> SparseProfile | DensityProfile:
    """Raises ProfileError naming the file and what is wrong with it, or FileNotFoundError if there is no file."""
    text = SparseProfile.text_of(path)
    try:
        found = json.loads(text)
        density = isinstance(found, dict) and found.get("format") == DensityProfile.format
    except UNREADABLE:
        density = False
    return (DensityProfile if density else SparseProfile).from_json(text, str(path))
