"""``Probe``: a victim with clips for checks, and the test of chance for a difference."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from staanet.attacks import craft_batch, logits_of
from staanet.config.fields import PAPER_EPSILON
from staanet.core import Attack, Clip, Untargeted, Victim
from staanet.defences import Defended
from staanet.results.adversarial_set import AdversarialClip
from staanet.results.checks import Check

Bools = NDArray[np.bool_]
ALPHA = 0.01
"""A difference that chance makes as large once in a hundred honest evaluations is a failure."""
MIN_CLIPS = 7
"""With fewer clips no paired difference, however clear, is that improbable: ``0.5**7 < ALPHA``."""
BATCH = 4
EOT_DRAWS = 4
"""Draws of a randomised victim, whose mean an attack follows."""
BLACK_BOX = ("sparsers", "onepixel")


def p_worse(weak: Bools, strong: Bools) -> float:
    """Returns how likely chance alone makes ``strong [N]`` lose so many clips that ``weak [N]`` won.

    It is the one-sided exact McNemar test on clips that only one of two equal attacks fooled.

    >>> p_worse(np.array([True] * 3), np.array([False] * 3))  # 3 of 3 coins
    0.125
    """
    from scipy.stats import binomtest

    lost, won = int((weak & ~strong).sum()), int((~weak & strong).sum())
    return float(binomtest(lost, lost + won, alternative="greater").pvalue) if lost else 1.0


class Probe:
    """A victim and clips to try it on; an attack that several checks need is made once.

    ``epsilon`` is the one that the evaluation under examination allows.
    """

    def __init__(
        self,
        victim: Victim,
        clips: Sequence[Clip],
        *,
        epsilon: float = PAPER_EPSILON,
        progress: Callable[[str], None] = lambda what: None,
    ) -> None:
        self.victim, self.clips, self.epsilon = victim, list(clips), epsilon
        self.progress = progress
        self._attacked: dict[Attack, list[AdversarialClip]] = {}
        self._fooled: dict[Attack, Bools] = {}
        self.clean = answers(victim, self.clips)

    def attacked(self, attack: Attack) -> list[AdversarialClip]:
        """Returns every clip attacked on the victim."""
        if attack not in self._attacked:
            source, done = self.victim, list[AdversarialClip]()
            if isinstance(source, Defended) and source.randomised:  # an adaptive attacker
                source = source.with_eot(EOT_DRAWS)
            for start in range(0, len(self.clips), BATCH):
                done += craft_batch(attack, source, self.clips[start : start + BATCH])
                self.progress(f"{type(attack).__name__} {len(done)}/{len(self.clips)}")
            self._attacked[attack] = done
        return self._attacked[attack]

    def fooled(self, attack: Attack) -> Bools:
        """Returns whether the victim's answer to each clip changes, ``[N]``."""
        if attack not in self._fooled:
            self._fooled[attack] = self.fooled_by(self.attacked(attack))
        return self._fooled[attack]

    def fooled_by(self, pairs: Sequence[AdversarialClip]) -> Bools:
        """Returns whether the victim's answer changes on clips attacked on any source, ``[N]``."""
        after = answers(
            self.victim, [replace(pair.clean, pcm16=pair.adversarial) for pair in pairs]
        )
        is_changed: Bools = after != self.clean
        return is_changed


def answers(victim: Victim, clips: Sequence[Clip]) -> NDArray[np.intp]:
    """Returns the index of each clip's answer, ``[N]``."""
    indices: NDArray[np.intp] = logits_of(victim, clips).argmax(axis=1)
    return indices


def answer_goal(victim: Victim, clip: Clip) -> Untargeted:
    """Returns the goal to change the victim's clean answer."""
    return Untargeted(int(answers(victim, [clip])[0]))


def no_gradient(name: str, victim: Victim) -> Check:
    """Returns a check that is left out, since the victim is a black box."""
    return Check.skip(name, victim.name, "a black box: it gives answers and no gradients")
