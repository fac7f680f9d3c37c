"""The command line: parses, calls one function, prints one table. Only this package prints or exits.

A file per group of commands; heavy libraries are imported inside the commands, so that
``staanet --help`` answers at once.
"""

from __future__ import annotations

import json
import os
import re
import signal
import sys
from collections.abc import Sequence
from itertools import pairwise
from types import FrameType
from typing import NoReturn

from staanet.cli import runs, models, attacks, tune, scale, defences, guard, web, service  # isort: skip  # in the order of --help
from staanet.cli.shell import Terminated, app, say

__all__ = [
    "app", "entry", "attacks", "defences", "guard", "models", "runs", "scale", "service", "tune",
    "web",
]  # fmt: skip


def entry() -> NoReturn:
    """The console script."""
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # spinning threads starve an LSTM's own
    signal.signal(signal.SIGTERM, _terminated)
    try:
        if empty := _empty(sys.argv[1:]):
            sys.exit(_misused(f"{empty} is given nothing: is a variable of the shell not set?", 2))
        if "--json" in sys.argv[1:]:
            sys.exit(_for_a_machine())
        app()
    except BrokenPipeError:  # the reader of a pipe has gone: nothing left to say
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    sys.exit(0)


def _for_a_machine() -> int:
    """As ``app()``, and a mistake in the command line itself is told as JSON, too."""
    from typer.exceptions import TyperException

    try:
        return int(app(standalone_mode=False) or 0)
    except TyperException as error:
        return _misused(error.format_message(), error.exit_code)


def _misused(what: str, code: int) -> int:
    told = {"error": "UsageError", "where": None, "what": what, "remedy": "See --help",
            "exit_code": code}  # fmt: skip
    if "--json" in sys.argv[1:]:
        print(json.dumps(told))
    say(f"staanet: error: {what}")
    return code


def _empty(words: Sequence[str]) -> str | None:
    """What is given nothing: an empty folder would be the one where we are, an empty shard all of them.

    >>> _empty(["attack", "x.wav", "--out", ""])
    '--out'
    """
    for before, word in pairwise(["", *words]):
        if word == "":
            return before if before.startswith("--") else "an argument"
        if re.fullmatch(r"--[a-z0-9-]+=", word):
            return word[:-1]
    return None


def _terminated(number: int, frame: FrameType | None) -> NoReturn:
    raise Terminated
