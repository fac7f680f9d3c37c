"""The command line: parses, calls one function, prints one table. Only this package prints or exits.

A file per group of commands; heavy libraries are imported inside the commands, so that
``staanet --help`` answers at once.
"""

from __future__ import annotations

import os
import signal
import sys
from types import FrameType
from typing import NoReturn

from staanet.cli import runs, models, attacks, scale  # isort: skip  # in the order of --help
from staanet.cli.shell import Interrupted, app

__all__ = ["app", "entry", "attacks", "models", "runs", "scale"]


def entry() -> NoReturn:
    """The console script."""
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # spinning threads starve an LSTM's own
    signal.signal(signal.SIGTERM, _terminated)
    try:
        app()
    except BrokenPipeError:  # the reader of a pipe has gone: nothing left to say
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    sys.exit(0)


def _terminated(number: int, frame: FrameType | None) -> NoReturn:
    raise Interrupted(
        "stopped by SIGTERM", remedy="Finished work is kept: run the same command again"
    )
