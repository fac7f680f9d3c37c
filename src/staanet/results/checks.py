"""``Check``: one question about a victim, attack or run with its verdict, and lists of them on disk."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, cast, get_args

Verdict = Literal["pass", "fail", "warn", "skipped"]
Figure = float | int | str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One question and its answer; ``subject`` is the victim or adversarial set that it is about.

    >>> Check.judge("rates", "", is_wrong=False, explanation="all equal", remedy="Evaluate again")
    Check(name='rates', verdict='pass', subject='', figures={}, explanation='all equal', remedy='')
    """

    name: str
    verdict: Verdict
    subject: str = ""
    figures: Mapping[str, Figure] = field(default_factory=dict)
    explanation: str
    remedy: str = ""

    @classmethod
    def judge(
        cls,
        name: str,
        subject: str,
        *,
        is_wrong: bool,
        explanation: str,
        remedy: str = "",
        figures: Mapping[str, Figure] | None = None,
    ) -> Check:
        """Returns a failure with its ``remedy`` where ``is_wrong``, and else a pass without one."""
        return cls(
            name=name,
            verdict="fail" if is_wrong else "pass",
            subject=subject,
            figures=figures or {},
            explanation=explanation,
            remedy=remedy if is_wrong else "",
        )

    @classmethod
    def list_wrong(
        cls, name: str, subject: str, wrong: Sequence[str], count: int, right: str, remedy: str
    ) -> Check:
        """Returns a failure with the first few of what is ``wrong``, or a pass with what is ``right``.

        Args:
            name: What is asked.
            subject: What it is asked of.
            wrong: Each finding as a phrase.
            count: How many things were looked at.
            right: What holds where nothing is wrong.
            remedy: What to do where something is.
        """
        more = f", and {len(wrong) - 3} more" if len(wrong) > 3 else ""
        return cls.judge(
            name,
            subject,
            is_wrong=bool(wrong),
            figures={"wrong": len(wrong), "count": count},
            explanation="; ".join(wrong[:3]) + more if wrong else right,
            remedy=remedy,
        )

    @classmethod
    def skip(cls, name: str, subject: str, explanation: str, remedy: str = "") -> Check:
        """Returns a check that was left out, and why."""
        return cls(
            name=name, verdict="skipped", subject=subject, explanation=explanation, remedy=remedy
        )

    @classmethod
    def from_dict(cls, raw: Mapping[str, Any]) -> Check:
        """Reads a check of ``selfcheck.json``.

        Raises ``KeyError`` or ``ValueError`` where it is not what staanet writes.
        """
        texts = {key: str(raw[key]) for key in ("name", "subject", "explanation", "remedy")}
        if raw["verdict"] not in get_args(Verdict):
            raise ValueError(f"verdict {raw['verdict']!r}")
        return cls(
            verdict=cast(Verdict, raw["verdict"]), figures=dict(raw.get("figures", {})), **texts
        )
