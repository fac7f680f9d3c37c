"""Lists the checks of a finished run, each with name, subject and work, in order."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cache, partial
from typing import NamedTuple

from staanet.attacks import PGD
from staanet.audio import FULL_SCALE
from staanet.config.fields import PAPER_EPSILON
from staanet.core import Budget, Clip, Victim
from staanet.errors import InvalidInput, StaaNetError
from staanet.evaluation import CONTROLS
from staanet.results.checks import Check
from staanet.results.stored import StoredSet
from staanet.sanity import attack_checks, victim_checks
from staanet.sanity.change_checks import direction
from staanet.sanity.gradient_check import gradients
from staanet.sanity.held_out import (
    Report,
    clean_audio,
    content,
    split,
    unlabelled,
    unlabelled_entry,
)
from staanet.sanity.loaded_run import LoadedRun, no_victim, sample_ids
from staanet.sanity.probe import Probe
from staanet.sanity.run_figures import accuracy, beats_control, planted_example, rates
from staanet.sanity.run_files import disk, predictions
from staanet.sanity.white_box import white_box_marks
from staanet.victims import Ensemble

GRADIENT_CLIPS = 8
PROBE_S = 0.5
"""Seconds of each clip that the checks of attacks work on: the middle of the clip."""
PROBE_CLIPS = 12
"""At most so many clips are attacked, which takes 100 gradients for each, or have their changes tried."""


class Job(NamedTuple):
    """One check to make; ``work`` receives a function that shows how far it is."""

    name: str
    subject: str
    work: Callable[[Report], Check]

    def run(self, progress: Report) -> Check:
        """Returns the check; one that raises becomes a failure with the reason."""
        try:
            return self.work(progress)
        except StaaNetError as error:
            reason, remedy = str(error), error.remedy
        except RuntimeError as error:  # torch: no gradient, no memory, a model that refuses a batch
            reason = (str(error).splitlines() or ["no reason"])[0]
            remedy = "Mend the victim: an attack or an evaluation fails on it likewise"
        return Check.judge(
            self.name,
            self.subject,
            is_wrong=True,
            explanation=f"could not be carried out: {reason}",
            remedy=remedy,
        )


def jobs_of(run: LoadedRun, count: int, seed: int) -> Iterator[Job]:
    """Yields each check of a run, in the order in which they help to understand.

    What several checks need is made when the first one needs it, so that a failure is that check's.

    Args:
        run: The finished run.
        count: How many test clips victims are tried on.
        seed: Draws these clips, and what is random in checks.
    """
    sets = run.files.sets.values()
    if not sets:
        raise InvalidInput(
            "holds no adversarial set", where=run.files.folder, remedy="Run staanet attack first"
        )
    yield Job("known_optimum", "linear", lambda _: attack_checks.finds_known_optimum(_pgd, seed))
    largest = max(sets, key=lambda stored: len(stored.rows))
    ids = sample_ids(largest, count, seed)
    clips = cache(lambda: [largest.pair(clip_id).clean for clip_id in ids])
    attacked = cache(lambda: clips()[:PROBE_CLIPS])
    budgets = [stored.budget or Budget(epsilon=PAPER_EPSILON) for stored in sets]
    probes = {
        name: cache(partial(_probe, victim, attacked, budgets))
        for name, victim in run.victims.items()
    }
    for name, victim in run.victims.items():
        yield from _victim_jobs(run, name, victim, clips, seed)
        yield from _attack_jobs(name, probes)
    for stored in sets:
        yield from _set_jobs(run, stored, count, seed)
    yield Job("clean_audio", "", partial(clean_audio, run))
    yield Job("split", "", partial(split, run))
    yield Job("content", "", lambda _: content(run))
    for _, folder in run.trained("generator"):
        if unlabelled_entry(folder):
            yield Job("unlabelled", folder.name, partial(unlabelled, run, folder))
    yield Job("white_box_marks", "", lambda _: white_box_marks(run, clips()))
    yield Job("rates", "", lambda _: rates(run))


def _victim_jobs(
    run: LoadedRun, name: str, victim: Victim, clips: Callable[[], list[Clip]], seed: int
) -> Iterator[Job]:
    yield Job("eval_mode", name, lambda _: victim_checks.eval_mode(victim, clips()))
    yield Job("deterministic", name, lambda _: victim_checks.deterministic(victim, clips()))
    yield Job("logits", name, lambda _: victim_checks.gives_logits(victim, clips()))
    yield Job("gradients", name, lambda _: gradients(victim, clips()[:GRADIENT_CLIPS], seed))
    yield Job("clean_accuracy", name, lambda _: accuracy(run, name))
    yield Job("planted_example", name, lambda _: planted_example(victim, clips()))


def _attack_jobs(name: str, probes: Mapping[str, Callable[[], Probe]]) -> Iterator[Job]:
    def rivalled(probe: Probe) -> Check:
        others = [probes[other]() for other in probes if other != name]
        return attack_checks.white_box_wins(probe, others)

    checks = {
        "more_steps": attack_checks.more_steps,
        "larger_epsilon": attack_checks.larger_epsilon,
        "huge_epsilon": attack_checks.huge_epsilon,
        "white_box_wins": rivalled,
    }
    for check_name, check in checks.items():
        yield Job(check_name, name, partial(_on_probe, check, probes[name]))


def _set_jobs(run: LoadedRun, stored: StoredSet, count: int, seed: int) -> Iterator[Job]:
    ids = cache(lambda: sample_ids(stored, count, seed))
    yield Job("disk", stored.name, lambda _: disk(run, stored))
    yield Job("predictions", stored.name, lambda _: predictions(run, stored, ids()))
    if stored.algorithm not in CONTROLS:
        yield Job("beats_control", stored.name, lambda _: beats_control(run, stored))
        yield Job(
            "direction", stored.name, lambda _: _direction(run, stored, ids()[:PROBE_CLIPS], seed)
        )


def _probe(victim: Victim, clips: Callable[[], list[Clip]], budgets: Sequence[Budget]) -> Probe:
    """A probe at the largest epsilon of some budgets; a relative one is that of the median clip."""
    length = max(round(PROBE_S * victim.sample_rate), victim.minimum_samples)
    middles = [_middle(clip, length) for clip in clips()]
    steps = max(
        statistics.median(b.for_clip(c.pcm16, c.sample_rate).epsilon_lsb for c in middles)
        for b in budgets
    )
    return Probe(victim, middles, epsilon=steps / FULL_SCALE)


def _middle(clip: Clip, length: int) -> Clip:
    """The middle ``length`` samples of a clip; the whole clip if it is shorter."""
    start = max(0, (len(clip.pcm16) - length) // 2)
    return replace(clip, pcm16=clip.pcm16[start : start + length])


def _on_probe(
    check: Callable[[Probe], Check], probe: Callable[[], Probe], progress: Report
) -> Check:
    probe().progress = progress
    return check(probe())


def _pgd(budget: Budget) -> PGD:
    return PGD(budget=budget)


def _direction(run: LoadedRun, stored: StoredSet, ids: Sequence[str], seed: int) -> Check:
    victim = _source_of(run, stored.key[1])
    if victim is None:
        return no_victim("direction", stored.name, stored.key[1])
    kind, _, label = str(stored.card.get("goal", "")).partition(": ")
    return direction(
        victim,
        [stored.pair(clip_id) for clip_id in ids],
        stored.name,
        algorithm=stored.algorithm,
        goal_label=label if kind == "targeted" else None,
        seed=seed,
    )


def _source_of(run: LoadedRun, source: str) -> Victim | None:
    """The victim of this name, or the ensemble of several; None where one is not in the run."""
    members = [run.victims[name] for name in source.split(",") if name in run.victims]
    if len(members) <= source.count(","):
        return None
    return members[0] if len(members) == 1 else Ensemble(members)
