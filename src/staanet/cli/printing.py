"""Prints results on standard output and everything else on standard error."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import typer

from staanet.cli.options import Output
from staanet.errors import printable

if TYPE_CHECKING:
    from staanet.pipeline import Quarantine

CHECK_FAILED, QUARANTINED, UNDECIDED = 1, 4, 7
"""Exit codes: a check or an audit failed, clips were quarantined, an audit is inconclusive."""
MAX_ASIDE = 20
"""The largest number of quarantined clips that are listed."""


def say(text: str) -> None:
    """Writes a line to standard error; a closed standard error is ignored."""
    safe = text.encode(sys.stderr.encoding or "ascii", "backslashreplace")
    with suppress(OSError):
        sys.stderr.write(safe.decode(sys.stderr.encoding or "ascii") + "\n")


def show(text: str) -> None:
    """Writes a result to standard output; escapes characters that the terminal cannot show."""
    safe = text.encode(sys.stdout.encoding or "ascii", "backslashreplace")
    sys.stdout.write(safe.decode(sys.stdout.encoding or "ascii") + "\n")


def show_json(result: Mapping[str, Any]) -> None:
    """Writes a result as one line of JSON."""
    print(json.dumps(result, allow_nan=False, default=str), flush=True)


def warn(flags: Sequence[str]) -> dict[str, list[str]]:
    """Says each flag. Returns them as a part of the result, if there are any."""
    for flag in flags:
        say(f"staanet: warning: {flag}")
    return {"flags": list(flags)} if flags else {}


def finish(
    output: Output,
    result: Mapping[str, Any],
    lines: Iterable[str],
    quarantine: Quarantine | None = None,
    *,
    exit_code: int = 0,
) -> None:
    """Prints the result, lists quarantined clips, and exits with the right code.

    Args:
        output: Whether JSON or text is printed.
        result: What ``--json`` prints.
        lines: What is printed otherwise.
        quarantine: The clips that were put aside; None for a command that reads none.
        exit_code: Of a check that failed; it comes before that of clips that were put aside.
    """
    rows = quarantine.rows if quarantine is not None else []
    if quarantine is not None:
        result = {**result, **_with_flags(result, quarantine), **quarantine.recordings.entry()}
    if output.json:
        show_json({**result, "quarantined": rows})
    else:
        for line in lines:
            show(line)
    for row in rows[:MAX_ASIDE]:
        say(f"staanet: put aside: {printable(row['file'])}: {row['reason']}")
    if len(rows) > MAX_ASIDE:
        say(f"staanet: and {len(rows) - MAX_ASIDE} more")
    if exit_code or rows:
        raise typer.Exit(exit_code or QUARANTINED)


def _with_flags(result: Mapping[str, Any], quarantine: Quarantine) -> dict[str, list[str]]:
    """The flags of a result with those of the command, which are printed here, as are its notes."""
    shown = list(result.get("flags") or ())
    new = [flag for flag in quarantine.flags if flag not in shown]
    for flag in new:
        say(f"staanet: warning: {printable(flag)}")
    odd = quarantine.recordings.lines()
    for note in [*quarantine.notes, *odd[:MAX_ASIDE]]:
        say(f"staanet: note: {printable(note)}")
    if len(odd) > MAX_ASIDE:
        say(f"staanet: note: and {len(odd) - MAX_ASIDE} more kinds of odd recordings")
    return {"flags": [*shown, *new]} if new else {}


def decibels(value: float | None) -> str:
    """An SNR; None means that nothing was changed."""
    return "untouched" if value is None else f"{value:.1f}"
