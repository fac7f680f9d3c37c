"""A victim's answer as a word: its class, or of numbers which of them moved, and whether up or down.

So whatever counts changed answers (rates, controls, intervals) counts those of a regression victim too.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from staanet.core.goals import Goal, Shift, Targeted, Untargeted
from staanet.core.victim import Victim
from staanet.errors import InvalidInput, unknown_name

UNMOVED = "unmoved"
"""The answer of a regression victim to a clip itself, and to one that moves no number by its tolerance."""
UP, DOWN = "+", "-"


def possible_answers(victim: Victim) -> tuple[str, ...]:
    """What a victim can be made to answer: its labels, or each dimension moved up or down.

    >>> from staanet.core import Victim
    >>> possible_answers(Victim(name="v", labels=["arousal"], tolerance=[0.5]))
    ('arousal+', 'arousal-')
    """
    if victim.task == "classification":
        return victim.labels
    return tuple(f"{label}{way}" for label in victim.labels for way in (UP, DOWN))


def goal_of(victim: Victim, outputs: Tensor, answer: str | None = None) -> Goal:
    """The goal of an attack on clips with these clean ``outputs [B, K]``.

    Args:
        victim: The source of the attack.
        outputs: Its answers to the clean clips.
        answer: One of ``possible_answers`` to reach; None: any change.

    Raises:
        InvalidInput: It cannot give that answer.
    """
    if answer is not None and answer not in possible_answers(victim):
        raise unknown_name(f"answer of {victim.name}", answer, possible_answers(victim))
    if victim.task == "classification":
        if answer is not None:
            return Targeted(victim.labels.index(answer))
        return Untargeted(outputs.clone().argmax(dim=1))
    if answer is None:
        return Shift(None, torch.tensor(victim.tolerance), outputs.clone())
    dimension = victim.labels.index(answer[:-1])
    by = victim.tolerance[dimension] * (1 if answer[-1] == UP else -1)
    return Shift(dimension, by, outputs.clone())


def goal_on(
    victim: Victim, x: Tensor, lengths: Tensor | None = None, answer: str | None = None
) -> Goal:
    """``goal_of`` the clips ``x [B, T]``; the victim is called only where the goal needs its answers."""
    if answer is not None and victim.task == "classification":
        return goal_of(victim, x, answer)
    with torch.inference_mode():
        outputs = victim(x, lengths)
    return goal_of(victim, outputs, answer)  # outside: gradients may go through its copy


def answers_to(
    victim: Victim, clean: Tensor, outputs: Tensor, answer: str | None = None
) -> list[str]:
    """The answer to each clip, as a word, ``[B or 1, K], [B, K] -> B`` words.

    Args:
        victim: Who answers.
        clean: Its outputs for the clean clips, of which a regression victim's numbers are judged.
        outputs: Its outputs for the clips.
        answer: What the attack aimed at, which counts where it was reached; else the number that moved
            furthest in its tolerances does.
    """
    if victim.task == "classification":
        return [victim.labels[index] for index in outputs.argmax(dim=1).tolist()]
    clean = clean.expand_as(outputs)
    sizes = (outputs - clean) / torch.tensor(victim.tolerance).to(outputs)
    words = []
    for row, size in enumerate(sizes):
        index = int(size.abs().argmax())
        word = f"{victim.labels[index]}{UP if size[index] > 0 else DOWN}"
        is_moved = bool(size[index].abs() > 1)
        if answer in possible_answers(victim):
            goal = goal_of(victim, clean[row : row + 1], answer)
            if bool(goal.achieved(outputs[row : row + 1])):
                word, is_moved = str(answer), True
        words.append(word if is_moved else UNMOVED)
    return words


def require_classes(victims: Sequence[Victim], what: str) -> None:
    """Raises ``InvalidInput`` where one of the victims answers with numbers and ``what`` needs a class."""
    for victim in victims:
        if victim.task != "classification":
            raise InvalidInput(
                f"{victim.name} answers with numbers ({', '.join(victim.labels)}), and {what} needs a "
                "class",
                remedy="Give a classifier; attack, sweep, evaluate, everyday, budget, audit and "
                "train-generator also take regression victims",
            )
