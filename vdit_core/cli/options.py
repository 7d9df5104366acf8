"""The options that several commands share."""

from __future__ import annotations

import argparse
from typing import Any


def positive(text: str) -> int:
    if (number := int(text)) < 1:
        raise argparse.ArgumentTypeError(f"{text} is not at least 1")
    return number


def add_sampling(parser: argparse.ArgumentParser) -> None:
    """Where and how the demo model samples."""
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--steps", type=positive, help="sampling steps")
    parser.add_argument("--guidance", type=float, help="classifier-free guidance scale")


def sampling(options: argparse.Namespace) -> dict[str, Any]:
    """The settings that were given; the model's own serve for the rest."""
    return {name: value for name in ("steps", "guidance") if (value := getattr(options, name)) is not None}
