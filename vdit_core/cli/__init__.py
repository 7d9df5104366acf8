"""`vdit`: the command line. One file a command; each adds its own parser and imports what it needs when it runs."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from . import compare, demo, generate, paper, sparsity, structure, sweep

COMMANDS = (demo, generate, structure, compare, sweep, sparsity, paper)


def main(arguments: Sequence[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
    try:
        options.command(options)
    except (ValueError, OSError) as error:
        print(f"vdit: {error}", file=sys.stderr)
        return 2
    except ModuleNotFoundError as error:
        print(f"vdit: {error}. Install the demo's needs: pip install 'comfyui-vdit-attention[demo]'", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("vdit: interrupted", file=sys.stderr)
        return 130
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="vdit", description="See and steer attention inside video diffusion transformers."
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for command in COMMANDS:
        command.add(commands)
    return parser
