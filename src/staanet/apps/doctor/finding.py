"""The result of one check of an installation, and the wrapper that turns any error into one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from staanet.errors import StaaNetError, printable

Verdict = Literal["pass", "warn", "fail", "absent"]


@dataclass(frozen=True, slots=True)
class Finding:
    """The result of one check: subject, verdict, detail, and remedy."""

    group: str
    name: str
    verdict: Verdict
    detail: str
    remedy: str = ""


Probe = Callable[[], str]
"""Runs the check and returns its detail as text; raises where something does not work."""


def run_probe(group: str, name: str, probe: Probe, remedy: str = "") -> Finding:
    """Runs a probe; whatever it raises becomes a finding, so that a broken package is one line."""
    try:
        return Finding(group, name, "pass", printable(probe()))
    except StaaNetError as error:
        return Finding(group, name, "fail", error.what, error.remedy or remedy)
    except Exception as error:  # a broken package may raise anything
        text = " ".join(str(error).split()) or "no reason given"
        detail = f"{type(error).__name__}: {printable(text)[:200]}"
        return Finding(group, name, "fail", detail, remedy)
