"""Runs scripts of checks inside ComfyUI's Python, each in a process of its own that is forked from this one: ComfyUI's
start takes longer than most scripts, and is paid for once. Started by test_host.py, with the arguments of a script.

Each line of the input is a JSON list: a script, and the files for its output and its errors. The answer is its exit
status.
"""

from __future__ import annotations

import json
import os
import runpy
import signal
import sys

import inside  # noqa: F401 - what every script starts with

MINUTES = 15


def run(script: str, *printed: str) -> None:
    """A script as if Python had been started with it."""
    signal.alarm(60 * MINUTES)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    for stream, file in enumerate(printed, start=1):
        os.dup2(os.open(file, os.O_WRONLY | os.O_CREAT), stream)
    runpy.run_path(script, run_name="__main__")


for line in sys.stdin:
    child = os.fork()
    if child == 0:
        run(*json.loads(line))
        break  # what the script left to do at its exit is done as ever
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
