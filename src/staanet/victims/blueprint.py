"""The blueprint of a classifier: its architecture without weights as JSON, to rebuild it elsewhere."""

from __future__ import annotations

from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

from torch import nn

from staanet.core import Victim
from staanet.errors import unknown_name
from staanet.nn.front_ends import Normalise
from staanet.victims import hub
from staanet.victims.hugging_face import HuggingFaceVictim
from staanet.victims.logmel_cnn import LogmelCnn
from staanet.victims.self_supervised import NETWORKS, SelfSupervised
from staanet.victims.speech_head import has_speech_head, untrained_speech_classifier

Blueprint = Mapping[str, Any]


def blueprint(victim: Victim) -> Blueprint | None:
    """What ``built`` needs; None where it has no such description."""
    about = {"labels": list(victim.labels), "sample_rate": victim.sample_rate}
    if isinstance(victim, HuggingFaceVictim) and victim.takes_waveforms:
        return {
            **about,
            "architecture": victim.architecture,
            "name": victim.name,
            "config": victim.network.config.to_dict(),
            "normalised": victim.normalised,
            "speech_head": has_speech_head(victim.network),
        }
    if isinstance(victim, SelfSupervised | LogmelCnn):
        return {**about, "architecture": victim.architecture, **victim.settings()}
    return None


def build_from_blueprint(plan: Blueprint) -> Victim:
    """An untrained victim of that kind, in ``eval()``; ``InvalidInput`` for an unknown kind."""
    architecture, labels, rate = str(plan["architecture"]), plan["labels"], plan["sample_rate"]
    if architecture == LogmelCnn.architecture:
        return LogmelCnn(labels, sample_rate=rate).eval()
    config = plan["config"]
    if architecture == HuggingFaceVictim.architecture:
        extractor = SimpleNamespace(sampling_rate=plan["sample_rate"])
        front_end = Normalise() if plan["normalised"] else nn.Identity()
        is_speech = plan.get("speech_head", False)
        network = untrained_speech_classifier(config) if is_speech else hub.build_untrained(config)
        victim = HuggingFaceVictim(str(plan["name"]), network, extractor, front_end)
        return victim.requires_grad_(True)
    if architecture not in NETWORKS:
        raise unknown_name("network", architecture, NETWORKS)
    kind = NETWORKS[architecture]
    return kind(labels, config=config, sample_rate=rate).eval()
