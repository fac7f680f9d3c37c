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
from pathlib import Path
from typing import NoReturn

from staanet.cli import runs, models, attacks, tune, scale, defences, guard, web, service  # isort: skip  # in the order of --help
from staanet.cli.shell import app, fault_of, say
from staanet.cli.signals import SIGNALS, leave_at_once
from staanet.errors import StorageFault

__all__ = [
    "app",
    "entry",
    "attacks",
    "defences",
    "guard",
    "models",
    "runs",
    "scale",
    "service",
    "tune",
    "web",
]


SPINS = "2000"
"""How often a thread of OpenMP iterations for work before it sleeps. Spinning for good starves an LSTM's own threads
where others work too; sleeping at once costs more than the work itself where a virtual core is slow to wake."""


def entry() -> NoReturn:
    """The console script."""
    _fill_gaps()
    os.environ["MPLBACKEND"] = "agg"  # pictures are files; a notebook's or a wrong one is not asked
    if "OMP_WAIT_POLICY" not in os.environ:  # else the user has said how threads wait
        os.environ["OMP_WAIT_POLICY"] = "PASSIVE"
        os.environ.setdefault("GOMP_SPINCOUNT", SPINS)
    for number in SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, leave_at_once)
    try:
        if _is_nowhere():
            sys.exit(_misused("the working folder was removed: change to another", 2))
        if empty := _empty(sys.argv[1:]):
            sys.exit(_misused(f"{empty} is given nothing: is a variable of the shell not set?", 2))
        if "--json" in sys.argv[1:]:
            sys.exit(_for_a_machine())
        app()
    except BrokenPipeError:  # the reader of a pipe has gone: nothing left to say
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    except OSError as error:  # of --help and --version; commands tell their own
        say(f"staanet: error: {fault_of(error)}")
        os._exit(StorageFault.exit_code)  # what is left in the stream cannot be written either
    sys.exit(0)


def _is_nowhere() -> bool:
    """Whether the working folder is gone, where torch's own libraries are not found either."""
    try:
        Path.cwd()
    except OSError:
        return True
    return False


def _fill_gaps() -> None:
    """Standard streams that are closed lead nowhere: else the next file that is opened got their number,
    and what libraries say to standard error were written into it."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest number that is free: this one
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w" if number else "r", encoding="utf-8"))  # noqa: SIM115


def _for_a_machine() -> int:
    """As ``app()``, and a mistake in the command line itself is told as JSON, too."""
    try:
        from typer.exceptions import TyperException
    except ImportError:  # typer before 0.26 raises the exceptions of click
        from click.exceptions import ClickException as TyperException  # type: ignore[assignment]

    try:
        return int(app(standalone_mode=False) or 0)
    except TyperException as error:
        return _misused(error.format_message(), error.exit_code)


def _misused(what: str, code: int) -> int:
    told = {
        "error": "UsageError",
        "where": None,
        "what": what,
        "remedy": "See --help",
        "exit_code": code,
    }
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
