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

from staanet.cli import (
    attack,
    audit,
    completion,
    corpus,
    defend,
    evaluate,
    everyday,
    export,
    listing,
    run,
    service,
    train,
)  # isort: skip  # in the order of --help
from staanet.cli.app import app
from staanet.cli.error_boundary import machine_fault
from staanet.cli.printing import say
from staanet.cli.signals import SIGNALS, leave_at_once
from staanet.errors import StorageFault

__all__ = [
    "app",
    "attack",
    "audit",
    "corpus",
    "defend",
    "entry",
    "evaluate",
    "everyday",
    "export",
    "listing",
    "run",
    "service",
    "train",
]


SPINS = "2000"
"""How often a thread of OpenMP looks for work before it sleeps.

Spinning for ever starves an LSTM's own threads where others work too. Sleeping at once costs more than the
work itself where a virtual core is slow to wake."""


def entry() -> NoReturn:
    """The console script."""
    _open_missing_streams()
    os.environ["MPLBACKEND"] = "agg"  # pictures are files; a notebook's or a wrong one is not asked
    if "OMP_WAIT_POLICY" not in os.environ:  # else the user has said how threads wait
        os.environ["OMP_WAIT_POLICY"] = "PASSIVE"
        os.environ.setdefault("GOMP_SPINCOUNT", SPINS)
    for number in SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, leave_at_once)
    try:
        if _is_folder_gone():
            sys.exit(_report_misuse("the working folder was removed: change to another", 2))
        if empty := _empty_option(sys.argv[1:]):
            sys.exit(
                _report_misuse(f"{empty} is given nothing: is a variable of the shell not set?", 2)
            )
        if "--json" in sys.argv[1:]:
            sys.exit(_run_as_json())
        if completion.is_split_by_bash(os.environ):
            completion.complete(app)
            sys.exit(0)
        app()
    except BrokenPipeError:  # the reader of a pipe has gone: nothing left to say
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    except OSError as error:  # of --help and --version; commands report their own
        say(f"staanet: error: {machine_fault(error)}")
        os._exit(StorageFault.exit_code)  # what is left in the stream cannot be written either
    sys.exit(0)


def _is_folder_gone() -> bool:
    """Whether the working folder is gone, where torch's own libraries are not found either."""
    try:
        Path.cwd()
    except OSError:
        return True
    return False


def _open_missing_streams() -> None:
    """Opens the null device in the place of each standard stream that is closed.

    Else the next file that is opened would get its number, and what libraries write to standard error
    would go into that file.
    """
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest number that is free: this one
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w" if number else "r", encoding="utf-8"))  # noqa: SIM115


def _run_as_json() -> int:
    """Runs the application; a mistake in the command line itself is reported as JSON, too."""
    try:
        from typer.exceptions import TyperException
    except ImportError:  # typer before 0.26 raises the exceptions of click
        from click.exceptions import ClickException as TyperException  # type: ignore[assignment]

    try:
        return int(app(standalone_mode=False) or 0)
    except TyperException as error:
        return _report_misuse(error.format_message(), error.exit_code)


def _report_misuse(what: str, code: int) -> int:
    error = {
        "error": "UsageError",
        "where": None,
        "what": what,
        "remedy": "See --help",
        "exit_code": code,
    }
    if "--json" in sys.argv[1:]:
        print(json.dumps(error))
    say(f"staanet: error: {what}")
    return code


def _empty_option(words: Sequence[str]) -> str | None:
    """The first option or argument with an empty value, or None.

    An empty folder would be the working folder, and an empty shard all clips.

    >>> _empty_option(["attack", "x.wav", "--out", ""])
    '--out'
    """
    for before, word in pairwise(["", *words]):
        if word == "":
            return before if before.startswith("--") else "an argument"
        if re.fullmatch(r"--[a-z0-9-]+=", word):
            return word[:-1]
    return None
