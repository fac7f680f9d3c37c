"""A victim behind a detector: it may abstain. And what an attacker sees who knows the detector."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from staanet import storage
from staanet.core import Untargeted, Victim
from staanet.defences.detectors import Detector
from staanet.errors import InvalidInput

INNER, DETECTOR = "inner", "detector"


class DetectorGated(Victim):
    """A victim that abstains from clips whose detector_score is above ``threshold``.

    Its logits are the inner victim's: whether it abstains is told apart, by ``abstains``. ``spread`` is
    the deviation of clean clips' detector_score, the unit in which ``aware`` tells it to an attacker.
    """

    architecture = "guarded"
    may_abstain = True

    def __init__(
        self,
        inner: Victim,
        detector: Detector,
        *,
        threshold: float,
        spread: float = 1.0,
        false_positive_rate: float | None = None,
        name: str | None = None,
    ) -> None:
        if not (math.isfinite(threshold) and math.isfinite(spread) and spread > 0):
            raise InvalidInput(
                f"the detector's threshold is {threshold}, its spread {spread}",
                remedy="Choose them on clean clips: staanet detect",
            )
        super().__init__(
            name=name or f"{inner.name}+{detector.name}",
            labels=inner.labels,
            sample_rate=inner.sample_rate,
        )
        self.inner, self.detector = inner, detector
        self.threshold, self.spread, self.false_positive_rate = (
            threshold,
            spread,
            false_positive_rate,
        )
        self.minimum_samples, self.differentiable = inner.minimum_samples, inner.differentiable
        self.exact_gradient, self.randomised = inner.exact_gradient, inner.randomised
        told = json.dumps([detector.name, threshold])  # so that no hash takes it for its inner
        self.register_buffer("described", torch.tensor(list(told.encode()), dtype=torch.uint8))
        self.requires_grad_(False).eval()

    @property
    def device(self) -> torch.device:
        return self.inner.device

    def forward(self, waveforms: Tensor, lengths: Tensor | None = None) -> Tensor:
        answer: Tensor = self.inner(waveforms, lengths)
        return answer

    def detector_score(self, waveforms: Tensor, lengths: Tensor | None = None) -> Tensor:
        """``[B, T] -> [B]``."""
        found: Tensor = self.detector(self.inner, waveforms, lengths)
        return found

    def abstains(self, waveforms: Tensor, lengths: Tensor | None = None) -> Tensor:
        """``[B, T] -> [B]`` bool: whether there is no answer to a clip."""
        return self.detector_score(waveforms, lengths) > self.threshold

    def aware(self) -> RejectClassView:
        """What an attacker follows who knows the detector."""
        return RejectClassView(self)

    def settings(self) -> dict[str, Any]:
        return {
            "detector": self.detector.name,
            "threshold": self.threshold,
            "spread": self.spread,
            "false_positive_rate": self.false_positive_rate,
        }

    def save_pretrained(self, folder: Path | str, **card: Any) -> None:
        """Write ``inner/``, the detector's weights where it has any, and then ``card.json``."""
        place = Path(folder)
        self.inner.save_pretrained(place / INNER, **card.pop("inner_card", {}))
        weights = self.detector.state_dict()
        if weights:
            storage.save_model(
                place / DETECTOR,
                kind="detector",
                tensors=weights,
                card={"name": self.detector.name},
            )
        self.sha256 = _seal(place, self.settings())
        storage.write_card(
            place,
            {
                "kind": "victim",
                "architecture": self.architecture,
                "name": self.name,
                "labels": list(self.labels),
                "sample_rate": self.sample_rate,
                "settings": self.settings(),
                **card,
                "sha256": self.sha256,
            },
        )


def read_guarded(
    folder: Path, load: Callable[[Path], Victim], build: Callable[[str], Detector]
) -> DetectorGated:
    """Read what ``save_pretrained`` wrote; ``staanet.load_victim`` brings what reads the parts.

    Raises ``InvalidInput`` where they do not fit each other.
    """
    card = storage.read_card(folder, "victim")
    inner = load(folder / INNER)
    settings = card.get("settings")
    if not isinstance(settings, dict) or card.get("sha256") != _seal(folder, settings):
        raise InvalidInput(
            "its detector or the victim inside was changed since it was written: their sha256 "
            "differs from the card's",
            where=folder / storage.CARD,
            remedy="Write it again with staanet detect",
        )
    detector = build(str(settings.get("detector")))
    if detector.state_dict():
        tensors, _ = storage.load_model(folder / DETECTOR, kind="detector")
        storage.fill_module(detector, tensors, folder / DETECTOR)
    return storage.build_from_card(
        lambda: DetectorGated(
            inner,
            detector,
            threshold=float(settings["threshold"]),
            spread=float(settings["spread"]),
            false_positive_rate=settings["false_positive_rate"],
            name=str(card["name"]),
        ),
        folder,
    )


def _seal(folder: Path, settings: Mapping[str, Any]) -> str:
    parts = [storage.read_card(folder / INNER, "victim").get("sha256"), dict(settings)]
    if (folder / DETECTOR / storage.CARD).exists():
        parts.append(storage.read_card(folder / DETECTOR, "detector").get("sha256"))
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


class RejectClassView(Victim):
    """A guarded victim with abstaining as one more class, ``[B, T] -> [B, K + 1]`` (Carlini and Wagner
    2017, arXiv 1705.07263): its logit is above all others just where the victim abstains.

    Give it to an attack with the goal ``Undetected``.
    """

    architecture = "aware"

    def __init__(self, guarded: DetectorGated) -> None:
        super().__init__(
            name=guarded.name,
            labels=(*guarded.labels, "(abstains)"),
            sample_rate=guarded.sample_rate,
        )
        self.guarded = guarded
        self.minimum_samples, self.differentiable = guarded.minimum_samples, guarded.differentiable
        self.eval()

    @property
    def device(self) -> torch.device:
        return self.guarded.device

    def forward(self, waveforms: Tensor, lengths: Tensor | None = None) -> Tensor:
        logits = self.guarded(waveforms, lengths)
        above = (
            self.guarded.detector_score(waveforms, lengths) - self.guarded.threshold
        ) / self.guarded.spread
        return torch.cat([logits, (logits.amax(dim=1) + above)[:, None]], dim=1)


@dataclass(frozen=True, slots=True)
class Undetected(Untargeted):
    """Any answer but ``label``, and no abstaining, which is the last of the ``K + 1`` logits."""

    def margin(self, logits: Tensor) -> Tensor:
        """``max(z_c, z_abstain) - max of the others``, ``[B, K + 1] -> [B]``.

        >>> goal = Undetected(0)
        >>> goal.margin(torch.tensor([[3.0, 1.0, 2.0], [1.0, 3.0, 4.0], [1.0, 3.0, 2.0]]))
        tensor([ 2.,  1., -1.])
        """
        rows = torch.as_tensor(self.label, device=logits.device).expand(len(logits))[:, None]
        own = logits.gather(1, rows).squeeze(1).maximum(logits[:, -1])
        others = logits[:, :-1].scatter(1, rows.clamp_max(logits.shape[1] - 2), -math.inf)
        return own - others.amax(dim=1)

    def achieved(self, logits: Tensor) -> Tensor:
        """``[B, K + 1] -> [B]`` bool: another answer was given."""
        answer, last = logits.argmax(dim=1), logits.shape[1] - 1
        own = torch.as_tensor(self.label, device=logits.device).expand(len(logits))
        return (answer != own) & (answer != last)
