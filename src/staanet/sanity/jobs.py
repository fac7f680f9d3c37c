"""What is checked, in which order: name, subject and work of each check."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache, partial

from staanet import sanity
from staanet.attacks import PGD
from staanet.core import Budget, Clip, Victim
from staanet.errors import InvalidInput
from staanet.evaluation import CONTROLS
from staanet.sanity import Check, Probe
from staanet.sanity.figures import accuracy, beats_control, planted_example, rates
from staanet.sanity.files import disk, predictions
from staanet.sanity.held_out import clean_audio, split, unlabelled, unlabelled_told
from staanet.sanity.knowledge import white_box_marks
from staanet.sanity.run_folder import Finished, Made, learned, sampled
from staanet.sanity.verdicts import Tell, no_victim
from staanet.victims import Ensemble

Job = tuple[str, str, Callable[[Tell], Check]]


def jobs_of(run: Finished, count: int, seed: int) -> Iterator[Job]:
    """Name, subject and work of each check, in the order in which they help to understand.

    What several of them need is made when the first one asks, so that a failure is that check's.
    """
    if not run.sets:
        raise InvalidInput(
            "holds no adversarial set", where=run.folder, remedy="Run staanet attack first"
        )
    yield "known_optimum", "linear", lambda tell: sanity.finds_known_optimum(_pgd, seed)
    most = max(run.sets.values(), key=lambda one: len(one.rows))
    ids = sampled(most, count, seed)
    clips = cache(lambda: [most.pair(clip_id).clean for clip_id in ids])
    epsilon = max(one.epsilon for one in run.sets.values())
    tried = {
        name: cache(partial(_probe, victim, clips, epsilon)) for name, victim in run.victims.items()
    }
    for name, victim in run.victims.items():
        yield from _victim_jobs(run, name, victim, clips, seed)
        yield from _attack_jobs(name, tried)
    for one in run.sets.values():
        yield from _set_jobs(run, one, count, seed)
    yield "clean_audio", "", lambda tell: clean_audio(run, tell)
    yield "split", "", lambda tell: split(run, tell)
    for _, place in learned(run, "generator"):
        if unlabelled_told(place):
            yield "unlabelled", place.name, partial(unlabelled, run, place)
    yield "white_box_marks", "", lambda tell: white_box_marks(run, clips())
    yield "rates", "", lambda tell: rates(run)


def _victim_jobs(
    run: Finished, name: str, victim: Victim, clips: Callable[[], list[Clip]], seed: int
) -> Iterator[Job]:
    yield "eval_mode", name, lambda tell: sanity.eval_mode(victim, clips())
    yield "deterministic", name, lambda tell: sanity.deterministic(victim, clips())
    yield "logits", name, lambda tell: sanity.gives_logits(victim, clips())
    yield "gradients", name, lambda tell: sanity.gradients(victim, clips()[:8], seed)
    yield "clean_accuracy", name, lambda tell: accuracy(run, name)
    yield "planted_example", name, lambda tell: planted_example(victim, clips())


def _attack_jobs(name: str, tried: Mapping[str, Callable[[], Probe]]) -> Iterator[Job]:
    for check in (sanity.more_steps, sanity.larger_epsilon, sanity.huge_epsilon):
        yield check.__name__, name, partial(_on_probe, check, tried[name])

    def rivalled(probe: Probe) -> Check:
        return sanity.white_box_wins(probe, [tried[other]() for other in tried if other != name])

    yield "white_box_wins", name, partial(_on_probe, rivalled, tried[name])


def _set_jobs(run: Finished, one: Made, count: int, seed: int) -> Iterator[Job]:
    ids = cache(lambda: sampled(one, count, seed))
    yield "disk", one.name, lambda tell: disk(run, one)
    yield "predictions", one.name, lambda tell: predictions(run, one, ids())
    if one.algorithm not in CONTROLS:
        yield "beats_control", one.name, lambda tell: beats_control(run, one)
        yield "direction", one.name, lambda tell: _direction(run, one, ids(), seed)


def _probe(victim: Victim, clips: Callable[[], list[Clip]], epsilon: float) -> Probe:
    return Probe(victim, clips(), epsilon=epsilon)


def _on_probe(check: Callable[[Probe], Check], probe: Callable[[], Probe], tell: Tell) -> Check:
    probe().progress = tell
    return check(probe())


def _pgd(budget: Budget) -> PGD:
    return PGD(budget=budget)


def _direction(run: Finished, one: Made, ids: Sequence[str], seed: int) -> Check:
    victim = _attacked(run, one.key[1])
    if victim is None:
        return no_victim("direction", one.name, one.key[1])
    kind, _, label = str(one.card.get("goal", "")).partition(": ")
    return sanity.direction(
        victim,
        [one.pair(clip_id) for clip_id in ids],
        one.name,
        algorithm=one.algorithm,
        goal_label=label if kind == "targeted" else None,
        seed=seed,
    )


def _attacked(run: Finished, source: str) -> Victim | None:
    """The victim of this name, or the ensemble of several; None where one is not in the run."""
    members = [run.victims[name] for name in source.split(",") if name in run.victims]
    if len(members) <= source.count(","):
        return None
    return members[0] if len(members) == 1 else Ensemble(members)
