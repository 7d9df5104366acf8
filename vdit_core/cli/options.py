"""The options that several commands share."""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

#: One more than the largest seed of torch and ComfyUI.
SEEDS = 2**64


def positive(text: str) -> int:
    if (number := int(text)) < 1:
        raise argparse.ArgumentTypeError(f"{text} is not at least 1")
    return number


def seed(text: str) -> int:
    if not 0 <= (number := int(text)) < SEEDS:
        raise argparse.ArgumentTypeError(f"{text} is not a seed; seeds are 0 to 2^64 - 1")
    return number


def make_folder(folder: Path) -> None:
    """Make a folder for results, before any is computed.

    Raises:
        ValueError: if it cannot be made or written to.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        raise ValueError(
            f"{folder} is not a folder that can be written to ({error.strerror}); choose another --out."
        ) from None


def add_sampling(parser: argparse.ArgumentParser) -> None:
    """Where and how the demo model samples."""
    parser.add_argument("--device", default=parser.argument_default or "cpu", help="cpu or cuda")
    parser.add_argument("--steps", type=positive, help="sampling steps")
    parser.add_argument("--guidance", type=float, help="classifier-free guidance scale")


def sampling(options: argparse.Namespace) -> dict[str, Any]:
    """The settings that were given; the model's own serve for the rest."""
    return {name: value for name in ("steps", "guidance") if (value := getattr(options, name)) is not None}
