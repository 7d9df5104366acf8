"""`vdit`: the command line. One file a command; each adds its own parser and imports what it needs when it runs."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

from . import compare, demo, edit, generate, paper, roles, sinks, sparsity, structure, sweep

COMMANDS = (demo, generate, edit, structure, compare, roles, sweep, sparsity, sinks, paper)


def main(arguments: Sequence[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
    _share_the_cpu()
    try:
        options.command(options)
    except (ValueError, OSError) as error:
        print(f"vdit: {error}", file=sys.stderr)
        return 2
    except ModuleNotFoundError as error:
        print(f"vdit: {error}. Install the demo's needs: pip install 'vdit-attention[demo]'", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("vdit: interrupted", file=sys.stderr)
        return 130
    return 0


def _share_the_cpu() -> None:
    """Where other processes run, torch's threads (GNU OpenMP) must not spin while they wait: beside one busy process on
    two cores that halves the demo's time. Alone it would add a third, so the load of the last minute decides."""
    if hasattr(os, "getloadavg") and os.getloadavg()[0] > 0.5:
        os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # read when torch is imported


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="vdit", description="See and steer attention inside video diffusion transformers."
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for command in COMMANDS:
        command.add(commands)
    return parser
