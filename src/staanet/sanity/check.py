"""What checks are made of: a verdict, a victim tried on clips, and the odds that chance did it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from staanet.attacks import craft_batch, logits_of
from staanet.core import Attack, Clip, Untargeted, Victim
from staanet.defences import Defended
from staanet.results.adversarial_set import AdversarialClip

Verdict = Literal["pass", "fail", "warn", "skipped"]
Figure = float | int | str | None
Bools = NDArray[np.bool_]
ALPHA = 0.01
"""A difference that chance makes as large once in a hundred honest evaluations is a failure."""
FEWEST = 7
"""With fewer clips no paired difference, however clear, is that improbable: ``0.5**7 < ALPHA``."""
BATCH = 4
DRAWS = 4
"""Of a randomised victim, that an attack follows the mean of."""
BLACK_BOX = ("sparsers", "onepixel")


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One question and its answer; ``subject`` is the victim or adversarial set that it is about."""

    name: str
    verdict: Verdict
    subject: str = ""
    figures: Mapping[str, Figure] = field(default_factory=dict)
    explanation: str
    remedy: str = ""


def p_worse(weak: Bools, strong: Bools) -> float:
    """How likely chance alone makes ``strong [N]`` lose so many clips that ``weak [N]`` won.

    One-sided exact McNemar test on clips that only one of two equal attacks fooled.

    >>> p_worse(np.array([True] * 3), np.array([False] * 3))  # 3 of 3 coins
    0.125
    """
    from scipy.stats import binomtest

    lost, won = int((weak & ~strong).sum()), int((~weak & strong).sum())
    return float(binomtest(lost, lost + won, alternative="greater").pvalue) if lost else 1.0


class Probe:
    """A victim and clips to try it on; an attack that several checks ask for is made once.

    ``epsilon`` is the one that the evaluation under examination allows.
    """

    def __init__(
        self,
        victim: Victim,
        clips: Sequence[Clip],
        *,
        epsilon: float = 0.03,
        progress: Callable[[str], None] = lambda what: None,
    ) -> None:
        self.victim, self.clips, self.epsilon = victim, list(clips), epsilon
        self.progress = progress
        self._made: dict[Attack, list[AdversarialClip]] = {}
        self.clean = answers(victim, self.clips)

    def made(self, attack: Attack) -> list[AdversarialClip]:
        """Every clip attacked on the victim."""
        if attack not in self._made:
            source, done = self.victim, list[AdversarialClip]()
            if isinstance(source, Defended) and source.randomised:  # as one who knows it does
                source = source.with_eot(DRAWS)
            for start in range(0, len(self.clips), BATCH):
                done += craft_batch(attack, source, self.clips[start : start + BATCH])
                self.progress(f"{type(attack).__name__} {len(done)}/{len(self.clips)}")
            self._made[attack] = done
        return self._made[attack]

    def fooled(self, attack: Attack) -> Bools:
        """Whether the victim's answer changes, ``[N]``."""
        return self.misled(self.made(attack))

    def misled(self, pairs: Sequence[AdversarialClip]) -> Bools:
        """Whether the victim's answer changes on clips that were attacked anywhere, ``[N]``."""
        after = answers(
            self.victim, [replace(pair.clean, pcm16=pair.adversarial) for pair in pairs]
        )
        changed: Bools = after != self.clean
        return changed


def answers(victim: Victim, clips: Sequence[Clip]) -> NDArray[np.intp]:
    """Index of each clip's answer, ``[N]``."""
    found: NDArray[np.intp] = logits_of(victim, clips).argmax(axis=1)
    return found


def answer_goal(victim: Victim, clip: Clip) -> Untargeted:
    """The goal to change the victim's clean answer."""
    return Untargeted(int(answers(victim, [clip])[0]))


def no_gradient(name: str, victim: Victim) -> Check:
    """Left out: the victim is a black box."""
    return Check(
        name=name,
        subject=victim.name,
        verdict="skipped",
        explanation="a black box: it gives answers and no gradients",
    )
