"""Bridge to the Adversarial Robustness Toolbox: victims as estimators, attacks as evasion attacks.

It needs the extra ``baselines``. ART works with NumPy arrays ``[N, T]`` in [-1, 1], all clips of one
length.
"""

from __future__ import annotations

import functools
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from staanet.core import Attack, Targeted, Untargeted, Victim, require_classes
from staanet.errors import InvalidInput, needs_extra


def estimator(victim: Victim, samples: int) -> Any:
    """Returns ``victim`` for clips of ``samples`` samples as a ``PyTorchClassifier`` of ART.

    Its ``labels`` are the victim's, its loss is cross-entropy on the logits, its box is [-1, 1].
    Raises ``InvalidInput`` where ART is missing, the clips are too short or the victim is a black box.
    """
    if samples < victim.minimum_samples:
        raise InvalidInput(
            f"clips of {samples} samples; {victim.name} needs {victim.minimum_samples}",
            remedy="Give longer clips",
        )
    require_classes([victim], "this estimator of ART")
    if not victim.differentiable:
        raise InvalidInput(
            f"{victim.name} is a black box and gives no gradient",
            remedy="Use art.estimators.classification.BlackBoxClassifier with victim's answers",
        )
    kind, _ = _classes()
    classifier = kind(
        model=victim,
        loss=nn.CrossEntropyLoss(),
        input_shape=(samples,),
        nb_classes=len(victim.labels),
        clip_values=(-1.0, 1.0),
        device_type="gpu" if victim.device.type == "cuda" else "cpu",
    )
    classifier.labels = victim.labels
    return classifier


def evasion(
    attack: Attack, classifier: Any, *, targeted: bool = False, batch_size: int = 16
) -> Any:
    """Returns an attack of ``staanet.ATTACKS`` on an ``estimator`` as an ``EvasionAttack`` of ART.

    ``generate(x [N, T], y)`` returns float32 within the attack's budget. ``y`` are class numbers
    ``[N]`` or one-hot rows ``[N, K]``: the true classes, or the target classes if ``targeted``. By
    default they are the classifier's answers. Rounding to the 16-bit grid is left to ``staanet.craft``.
    """
    _, kind = _classes()
    return kind(classifier, attack, targeted, batch_size)


def _answers(victim: Victim, x: torch.Tensor) -> torch.Tensor:
    with torch.inference_mode():
        answer: torch.Tensor = victim(x).argmax(dim=1)
    return answer.clone()


@functools.cache
def _classes() -> tuple[type[Any], type[Any]]:
    """Subclasses of ART's classes; they are built when first used, since importing ART takes seconds."""
    with needs_extra("adversarial-robustness-toolbox", "baselines"):
        from art.attacks.attack import EvasionAttack
        from art.estimators.classification import PyTorchClassifier

    class VictimClassifier(PyTorchClassifier):  # type: ignore[misc]
        """A victim with the names of its classes."""

        labels: tuple[str, ...] = ()

    class Evasion(EvasionAttack):  # type: ignore[misc]
        """One attack of this package."""

        attack_params: ClassVar[list[str]] = [
            *EvasionAttack.attack_params,
            "attack",
            "targeted",
            "batch_size",
        ]
        _estimator_requirements = (VictimClassifier,)

        def __init__(
            self, classifier: Any, attack: Attack, targeted: bool, batch_size: int
        ) -> None:
            super().__init__(estimator=classifier)
            self.attack, self.batch_size = attack, batch_size
            self._targeted = targeted

        def generate(
            self, x: NDArray[Any], y: NDArray[Any] | None = None, **kwargs: Any
        ) -> NDArray[np.float32]:
            victim = self.estimator.model
            if self.targeted and y is None:
                raise InvalidInput("a targeted attack needs y", remedy="Pass the target classes")
            classes = None if y is None else np.asarray(y)
            if classes is not None and classes.ndim > 1:
                classes = classes.argmax(axis=1)
            goal = Targeted if self.targeted else Untargeted
            batches = []
            for start in range(0, len(x), self.batch_size):
                part = slice(start, start + self.batch_size)
                clips = torch.from_numpy(np.asarray(x[part], dtype=np.float32)).to(victim.device)
                labels = (
                    _answers(victim, clips)
                    if classes is None
                    else torch.from_numpy(np.asarray(classes[part], dtype=np.int64)).to(
                        victim.device
                    )
                )
                batches.append(self.attack(victim, clips, goal(labels)).detach().cpu().numpy())
            return np.concatenate(batches) if batches else np.asarray(x, dtype=np.float32)

    return VictimClassifier, Evasion
