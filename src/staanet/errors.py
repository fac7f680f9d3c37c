"""Errors that a user can cause, each with the problem, its place, and the remedy.

The command line prints ``staanet: error: <where>: <what>. <remedy>`` and leaves with ``exit_code``.

>>> print(InvalidInput("'fear' has 0 test clips", where="emodb", remedy="Choose another --seed"))
emodb: 'fear' has 0 test clips. Choose another --seed
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any


class StaaNetError(Exception):
    """An error that the reader can fix: the problem, its place, and the remedy."""

    exit_code = 3

    def __init__(self, what: str, *, where: object = None, remedy: str = "") -> None:
        self.what, self.where, self.remedy = what, None if where is None else str(where), remedy
        super().__init__(what)

    def __str__(self) -> str:
        prefix = f"{printable(self.where)}: " if self.where else ""
        what = (
            self.what if self.what.endswith((".", "?", "!")) or not self.remedy else f"{self.what}."
        )
        return f"{prefix}{what} {self.remedy}".strip()

    def to_dict(self) -> dict[str, Any]:
        """The same error for ``--json``."""
        return {
            "error": type(self).__name__,
            "where": None if self.where is None else printable(self.where),
            "what": self.what,
            "remedy": self.remedy,
            "exit_code": self.exit_code,
        }


class InvalidInput(StaaNetError):
    """The command stops and nothing is written: a wrong recipe, card, label, option value."""

    exit_code = 3


class MissingExtra(InvalidInput):
    """A package that the command needs is not installed.

    >>> print(MissingExtra("transformers", "ssl"))
    the package transformers is not installed. Install it: pip install 'staanet[ssl]'
    """

    def __init__(self, package: str, extra: str) -> None:
        self.extra = extra
        super().__init__(
            f"the package {package} is not installed",
            remedy=f"Install it: pip install 'staanet[{extra}]'",
        )


@contextmanager
def needs_extra(package: str, extra: str) -> Iterator[None]:
    """Raises ``MissingExtra`` where an import in its block fails.

    >>> with needs_extra("transformers", "ssl"):
    ...     import transformers_of_no_one
    Traceback (most recent call last):
    staanet.errors.MissingExtra: the package transformers is not installed. Install it: pip install 'staanet[ssl]'
    """
    try:
        yield
    except ImportError as problem:
        raise MissingExtra(package, extra) from problem


class UnusableClip(StaaNetError):
    """One clip cannot be used: it goes to the quarantine, and the run continues."""

    exit_code = 4


class VictimError(UnusableClip):
    """A victim raised an error on a clip: the clip goes to the quarantine, and the run continues."""


class BudgetExceeded(StaaNetError):
    """An attack returned audio that its budget does not allow; ``craft`` never lets it pass."""

    exit_code = 3


class StorageFault(StaaNetError):
    """The disk failed (full, read-only, quota): finished work is valid, the same command resumes."""

    exit_code = 5


class FolderLocked(StaaNetError):
    """Another run holds the folder."""

    exit_code = 6


class WorkerError(StaaNetError):
    """An error that a worker process sent as ``to_dict``, with the exit code that it has there.

    >>> WorkerError(FolderLocked("another run holds the folder", where="runs/a").to_dict()).exit_code
    6
    """

    def __init__(self, error: Mapping[str, Any]) -> None:
        super().__init__(error["what"], where=error["where"], remedy=error["remedy"])
        self.exit_code = int(error["exit_code"])


SHOWN = 5
"""Names that a message shows of a list."""
_SHOWN, _LISTED = 200, 60
"""Characters of a mistyped name, and known names, that an error shows."""


def printable(text: str) -> str:
    """``text`` with control, bidirectional and undecodable characters escaped.

    >>> printable("a\\u202eb\\n")
    'a\\\\u202eb\\\\n'
    """
    return "".join(
        c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode("ascii")
        for c in text
    )


def first_names(names: Sequence[str], limit: int = SHOWN) -> str:
    """Returns at most ``limit`` names, safe to print, and the number of the others.

    >>> first_names(list("abcdefg"))
    'a, b, c, d, e and 2 more'
    """
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(map(printable, names[:limit])) + more


def unknown_name(
    kind: str, name: str, choices: Iterable[str], *, where: object = None
) -> InvalidInput:
    """The error for a mistyped name, with the nearest known one.

    >>> print(unknown_name("attack", "pdg", ["pgd", "staa"]))
    unknown attack 'pdg'. Did you mean 'pgd'? Known: pgd, staa
    >>> len(str(unknown_name("speaker", "9" * 5000, [f"s{n}" for n in range(5000)]))) < 700
    True
    """
    names = sorted(choices)
    close = difflib.get_close_matches(name[:_SHOWN], names, n=1)
    hint = f"Did you mean '{close[0]}'? " if close else ""
    cut = "..." * (len(name) > _SHOWN)
    return InvalidInput(
        f"unknown {kind} '{printable(name[:_SHOWN])}{cut}'",
        where=where,
        remedy=f"{hint}Known: {first_names(names, _LISTED)}",
    )
