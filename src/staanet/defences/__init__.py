"""Victims that wrap a victim: ``Defended`` by input transforms, ``DetectorGated`` by a detector.

``DEFENCES`` names the two by the architecture in their card. The transforms themselves are in
``staanet.transforms.TRANSFORMS``.
"""

from __future__ import annotations

from staanet.defences.defended import Defended, chain_of
from staanet.defences.detector_gated import DetectorGated, RejectClassView, Undetected
from staanet.defences.detectors import DETECTORS, Detector, build_detector

__all__ = [
    "DEFENCES",
    "DETECTORS",
    "Defended",
    "Detector",
    "DetectorGated",
    "RejectClassView",
    "Undetected",
    "build_detector",
    "chain_of",
]

DEFENCES: dict[str, type[Defended | DetectorGated]] = {
    "defended": Defended,
    "detector_gated": DetectorGated,
}
"""By architecture; ``from_pretrained(folder, load)`` reads one, ``load`` reads the victim inside."""
