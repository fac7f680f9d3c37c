"""How a check of a run ends: judged, left out for want of something, or stopped by a fault."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from staanet.errors import StaaNetError
from staanet.sanity import Check
from staanet.sanity.run_folder import Finished

AGAIN = "Attack and evaluate again: a figure is that of its files or none"
Tell = Callable[[str], None]


def judged(
    name: str, subject: str, wrong: Sequence[str], count: int, right: str, remedy: str
) -> Check:
    """Fail with the first few of what is ``wrong``; else pass with what is ``right``."""
    more = f", and {len(wrong) - 3} more" if len(wrong) > 3 else ""
    return Check(
        name=name,
        subject=subject,
        verdict="fail" if wrong else "pass",
        figures={"wrong": len(wrong), "count": count},
        explanation="; ".join(wrong[:3]) + more if wrong else right,
        remedy=remedy if wrong else "",
    )


def no_victim(name: str, subject: str, victim: str) -> Check:
    """Left out: the victim that it is about is not in the run."""
    return Check(
        name=name,
        subject=subject,
        verdict="skipped",
        explanation=f"the victim {victim} is not in victims/",
        remedy="Check it from Python: selfcheck(run, victims={NAME: VICTIM})",
    )


def no_corpus(name: str, run: Finished) -> Check:
    """Left out: the run's corpus is not at hand."""
    return Check(
        name=name,
        verdict="skipped",
        explanation=f"no corpus to compare with: {run.problem}",
        remedy="Pass --corpus KIND:PATH",
    )


def guarded(name: str, subject: str, work: Callable[[], Check]) -> Check:
    """What cannot be carried out, for the run's own files or its victim, is a failure that says why."""
    try:
        return work()
    except StaaNetError as error:
        return Check(
            name=name,
            subject=subject,
            verdict="fail",
            explanation=f"could not be carried out: {error}",
            remedy=error.remedy,
        )
    except RuntimeError as error:  # torch: no gradient, no memory, a model that refuses a batch
        return Check(
            name=name,
            subject=subject,
            verdict="fail",
            explanation=f"could not be carried out: {(str(error).splitlines() or ['no reason'])[0]}",
            remedy="Mend the victim: an attack or an evaluation fails on it likewise",
        )
