"""The command line: parses, calls one function, prints one table. Only this package prints or exits.

A file per group of commands; heavy libraries are imported inside the commands, so that
``staanet --help`` answers at once.
"""

from __future__ import annotations

import json
import os
import signal
import sys
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
        told = {"error": "UsageError", "where": None, "what": error.format_message(),
                "remedy": "See --help", "exit_code": error.exit_code}  # fmt: skip
        print(json.dumps(told))
        say(f"staanet: error: {error.format_message()}")
        return error.exit_code


def _terminated(number: int, frame: FrameType | None) -> NoReturn:
    raise Terminated
