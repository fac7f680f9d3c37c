"""``DetectorGated``: a victim that abstains where a detector fires, and its view for adaptive attackers."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor

from staanet import storage
from staanet.core import Untargeted, Victim
from staanet.defences.defended import INNER, read_wrapper, write_wrapper_card
from staanet.defences.detectors import Detector, build_detector
from staanet.errors import InvalidInput

DETECTOR = "detector"
"""The folder of the detector's weights inside a gated victim's folder."""


class DetectorGated(Victim):
    """A victim that abstains from clips whose ``detector_score`` is above ``threshold``.

    Its logits are the inner victim's; ``abstains`` says separately whether it answers at all.

    Args:
        inner: The victim behind the detector.
        detector: What gives each clip a score.
        threshold: The highest score of a clip that is answered.
        scale: The deviation of clean clips' scores: the unit of the abstaining class's logit in
            ``reject_class_view``.
        false_positive_rate: The share of clean clips that ``threshold`` was chosen to reject, if known.
        name: The victim's name; by default ``INNER+DETECTOR``.

    Raises:
        InvalidInput: Threshold or scale is not finite, or the scale is not positive.
    """

    architecture = "detector_gated"
    may_abstain = True

    def __init__(
        self,
        inner: Victim,
        detector: Detector,
        *,
        threshold: float,
        scale: float = 1.0,
        false_positive_rate: float | None = None,
        name: str | None = None,
    ) -> None:
        if not (math.isfinite(threshold) and math.isfinite(scale) and scale > 0):
            raise InvalidInput(
                f"the detector's threshold is {threshold}, its scale {scale}",
                remedy="Choose them on clean clips: staanet detect",
            )
        super().__init__(
            name=name or f"{inner.name}+{detector.name}",
            labels=inner.labels,
            sample_rate=inner.sample_rate,
            tolerance=inner.tolerance,
        )
        self.inner, self.detector = inner, detector
        self.threshold, self.scale = threshold, scale
        self.false_positive_rate = false_positive_rate
        self.minimum_samples, self.differentiable = inner.minimum_samples, inner.differentiable
        self.exact_gradient, self.randomised = inner.exact_gradient, inner.randomised
        text = json.dumps([detector.name, threshold])  # so that no hash takes it for its inner
        self.register_buffer("settings_text", torch.tensor(list(text.encode()), dtype=torch.uint8))
        self.requires_grad_(False).eval()

    @property
    def device(self) -> torch.device:
        return self.inner.device

    def forward(self, waveforms: Tensor, lengths: Tensor | None = None) -> Tensor:
        logits: Tensor = self.inner(waveforms, lengths)
        return logits

    def detector_score(self, waveforms: Tensor, lengths: Tensor | None = None) -> Tensor:
        """How suspicious each clip is, ``[B, T] -> [B]``."""
        score: Tensor = self.detector(self.inner, waveforms, lengths)
        return score

    def abstains(self, waveforms: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Which clips get no answer, ``[B, T] -> [B]`` bool."""
        return self.detector_score(waveforms, lengths) > self.threshold

    def reject_class_view(self) -> RejectClassView:
        """The view that an adaptive attacker attacks."""
        return RejectClassView(self)

    def settings(self) -> dict[str, Any]:
        return {
            "detector": self.detector.name,
            "threshold": self.threshold,
            "scale": self.scale,
            "false_positive_rate": self.false_positive_rate,
        }

    def save_pretrained(self, folder: Path | str, **card: Any) -> None:
        """Write ``inner/``, the detector's weights where it has any, and then ``card.json``."""
        folder = Path(folder)
        self.inner.save_pretrained(folder / INNER, **card.pop("inner_card", {}))
        weights = self.detector.state_dict()
        if weights:
            storage.save_model(
                folder / DETECTOR,
                kind="detector",
                tensors=weights,
                card={"name": self.detector.name},
            )
        self.sha256 = _sha256(folder, self.settings())
        write_wrapper_card(self, folder, card)

    @classmethod
    def from_pretrained(
        cls, folder: Path | str, load: Callable[[Path], Victim] | None = None
    ) -> Self:
        """Read what ``save_pretrained`` wrote; ``load`` reads the inner victim.

        ``staanet.load_victim`` is such a ``load``. Raises ``InvalidInput`` where the parts do not fit.
        """
        folder = Path(folder)
        inner, card, settings = read_wrapper(folder, load, _sha256, command="staanet detect")
        detector = build_detector(str(settings.get("detector")))
        if detector.state_dict():
            tensors, _ = storage.load_model(folder / DETECTOR, kind="detector")
            storage.fill_module(detector, tensors, folder / DETECTOR)
        victim = storage.build_from_card(
            lambda: cls(
                inner,
                detector,
                threshold=float(settings["threshold"]),
                scale=float(settings["scale"]),
                false_positive_rate=settings["false_positive_rate"],
                name=str(card["name"]),
            ),
            folder,
        )
        victim.sha256 = str(card["sha256"])
        return victim


def _sha256(folder: Path, settings: Mapping[str, Any]) -> str:
    """The sha256 of a gated victim: of the inner victim's, the settings' and the detector's."""
    parts = [storage.read_card(folder / INNER, "victim").get("sha256"), dict(settings)]
    if (folder / DETECTOR / storage.CARD).exists():
        parts.append(storage.read_card(folder / DETECTOR, "detector").get("sha256"))
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


class RejectClassView(Victim):
    """A gated victim with abstaining as one more class, ``[B, T] -> [B, K + 1]``.

    The logit of that class is above all others just where the victim abstains (Carlini and Wagner
    2017, arXiv 1705.07263). Give the view to an attack with the goal ``Undetected``.
    """

    architecture = "reject_class_view"

    def __init__(self, gated: DetectorGated) -> None:
        super().__init__(
            name=gated.name, labels=(*gated.labels, "(abstains)"), sample_rate=gated.sample_rate
        )
        self.gated = gated
        self.minimum_samples, self.differentiable = gated.minimum_samples, gated.differentiable
        self.eval()

    @property
    def device(self) -> torch.device:
        return self.gated.device

    def forward(self, waveforms: Tensor, lengths: Tensor | None = None) -> Tensor:
        logits = self.gated(waveforms, lengths)
        score = self.gated.detector_score(waveforms, lengths)
        excess = (score - self.gated.threshold) / self.gated.scale
        return torch.cat([logits, (logits.amax(dim=1) + excess)[:, None]], dim=1)


@dataclass(frozen=True, slots=True)
class Undetected(Untargeted):
    """Any answer but ``label``, and no abstaining, which is the last of the ``K + 1`` logits."""

    def margin(self, logits: Tensor) -> Tensor:
        """``max(z_c, z_abstain) - max of the others``, ``[B, K + 1] -> [B]``.

        >>> goal = Undetected(0)
        >>> goal.margin(torch.tensor([[3.0, 1.0, 2.0], [1.0, 3.0, 4.0], [1.0, 3.0, 2.0]]))
        tensor([ 2.,  1., -1.])
        """
        labels = torch.as_tensor(self.label, device=logits.device).expand(len(logits))[:, None]
        refused = logits.gather(1, labels).squeeze(1).maximum(logits[:, -1])
        others = logits[:, :-1].scatter(1, labels.clamp_max(logits.shape[1] - 2), -math.inf)
        return refused - others.amax(dim=1)

    def achieved(self, logits: Tensor) -> Tensor:
        """Whether another answer was given, ``[B, K + 1] -> [B]`` bool."""
        answer, abstaining = logits.argmax(dim=1), logits.shape[1] - 1
        label = torch.as_tensor(self.label, device=logits.device).expand(len(logits))
        return (answer != label) & (answer != abstaining)
