"""The blueprint of a classifier: its network without weights, as JSON, to build it again elsewhere."""

from __future__ import annotations

from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

from staanet.core import Victim
from staanet.errors import unknown_name
from staanet.victims import hub
from staanet.victims.hugging_face import HuggingFaceVictim
from staanet.victims.self_supervised import NETWORKS, SelfSupervised

Blueprint = Mapping[str, Any]


def blueprint(victim: Victim) -> Blueprint | None:
    """What ``built`` needs; None where it is no transformer over waveforms."""
    about = {"labels": list(victim.labels), "sample_rate": victim.sample_rate}
    if isinstance(victim, HuggingFaceVictim):
        return {
            **about,
            "architecture": victim.architecture,
            "name": victim.name,
            "config": victim.network.config.to_dict(),
            "normalised": victim.normalised,
        }
    if isinstance(victim, SelfSupervised):
        return {**about, "architecture": victim.architecture, **victim.settings()}
    return None


def build_from_blueprint(plan: Blueprint) -> Victim:
    """An untrained victim of that kind, in ``eval()``; ``InvalidInput`` for an unknown kind."""
    architecture, config = str(plan["architecture"]), plan["config"]
    if architecture == HuggingFaceVictim.architecture:
        front_end = SimpleNamespace(
            sampling_rate=plan["sample_rate"], do_normalize=plan["normalised"]
        )
        victim = HuggingFaceVictim(str(plan["name"]), hub.build_untrained(config), front_end)
        return victim.requires_grad_(True)
    if architecture not in NETWORKS:
        raise unknown_name("network", architecture, NETWORKS)
    kind = NETWORKS[architecture]
    return kind(plan["labels"], config=config, sample_rate=plan["sample_rate"]).eval()
