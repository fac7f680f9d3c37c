"""Handles signals: a working command stops at a safe point, any other stops at once."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import NoReturn

from staanet.errors import StaaNetError

STOPPED = 130
"""The exit code after Ctrl-C."""
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Terminated(KeyboardInterrupt):
    """SIGTERM or SIGHUP came. No ``Exception``: a library that swallows those must not swallow it."""


class Interrupted(StaaNetError):
    """A signal ended the command; finished work is valid."""

    exit_code = 5


@contextmanager
def stoppable() -> Iterator[None]:
    """Makes signals raise exceptions while a command works, so that it stops at a safe point."""
    before = {}
    if threading.current_thread() is threading.main_thread():
        for number in SIGNALS:
            if signal.getsignal(number) is not signal.SIG_IGN:  # such as SIGHUP under nohup
                before[number] = signal.signal(number, _stop)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _stop(number: int, frame: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt if number == signal.SIGINT else Terminated(signal.Signals(number).name)


def leave_at_once(number: int, frame: FrameType | None) -> NoReturn:
    """Ends the process at once; installed while no command works, when nothing can be lost."""
    with suppress(OSError):
        os.write(2, b"staanet: stopped\n")
    os._exit(STOPPED if number == signal.SIGINT else Interrupted.exit_code)
