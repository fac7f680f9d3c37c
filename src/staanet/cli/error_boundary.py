"""Turns an exception of a command into one line or JSON, and an exit code."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import typer

from staanet.cli.options import Output
from staanet.cli.printing import say
from staanet.cli.signals import STOPPED, Interrupted, Terminated, stoppable
from staanet.errors import StaaNetError, StorageFault, printable

LOST_WORKER = ("BrokenProcessPool", "WorkerCrashedError", "ProcessExitedException")
"""Errors that multiprocessing, Ray and torch raise where the system ended a worker."""


@contextmanager
def error_boundary(output: Output) -> Iterator[None]:
    """Turns each error of a command into a message and an exit code; ``--debug`` shows the traceback."""
    try:
        with stoppable():
            yield
    except (typer.Exit, typer.Abort, BrokenPipeError):
        raise
    except Exception as error:
        if output.debug:
            raise
        fault = error if isinstance(error, StaaNetError) else machine_fault(error) or bug(error)
        _report(fault, output)
        raise typer.Exit(fault.exit_code) from None
    except Terminated as stop:
        stopped = Interrupted(
            f"stopped by {stop}", remedy="Finished work is kept: run the same command again"
        )
        _report(stopped, output)
        raise typer.Exit(stopped.exit_code) from None
    except KeyboardInterrupt:
        say("staanet: stopped; finished work is kept: run the same command again")
        raise typer.Exit(STOPPED) from None


def _report(error: StaaNetError, output: Output) -> None:
    if output.json:
        with suppress(OSError):  # what cannot be written there is said here
            print(json.dumps(error.to_dict()), flush=True)
    say(f"staanet: error: {error}")


def machine_fault(error: Exception) -> StaaNetError | None:
    """The error for a fault of the machine and not of the input; None for a bug of ours.

    >>> print(machine_fault(MemoryError("Unable to allocate 114. PiB")))
    out of memory (Unable to allocate 114. PiB). Give shorter clips or a smaller batch, run again
    """
    text = printable(" ".join(str(error).split()))[:200]
    memory = re.search(
        r"allocate (?:memory|.*\bGiB)|out of memory|bad_alloc|failed to map segment|array_new|create a primitive",
        str(error),
    )
    if isinstance(error, MemoryError) or memory:
        needed = re.search(r"tried to allocate ([0-9]+) bytes", str(error))
        need = f"needs about {int(needed[1]) / 2**30:.1f} GiB more" if needed else text
        return StorageFault(
            f"out of memory ({need})" if need else "out of memory",
            remedy="Give shorter clips or a smaller batch, run again",
        )
    if isinstance(error, PermissionError):
        return StorageFault(
            "permission denied",
            where=error.filename,
            remedy="Choose another --out, or ask for the right to use it; finished work is kept",
        )
    if type(error).__name__ in LOST_WORKER:
        return StorageFault(
            "a worker process was ended from outside, often for want of memory",
            remedy="Give smaller batches or fewer workers, run again: finished work is kept",
        )
    if isinstance(error, OSError) and error.errno is not None:
        return StorageFault(
            f"the system failed ({os.strerror(error.errno)})",
            where=error.filename,
            remedy="Finished work is kept: mend it and run the same command again",
        )
    return None


class Bug(StaaNetError):
    """An unforeseen error: a mistake of ours, or a file damaged in a way that nothing checks."""

    exit_code = 70


def bug(error: Exception) -> Bug:
    """One line instead of a traceback, which ``--debug`` shows."""
    text = printable(" ".join(str(error).split()))[:200]
    return Bug(
        f"a bug in staanet, or a damaged file that it does not know ({type(error).__name__}: {text})",
        remedy="Run again with --debug, and report what it prints",
    )
