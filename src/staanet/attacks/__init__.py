"""Attacks. ``ATTACKS`` names them; ``craft`` turns one, a source and clips into adversarial audio."""

from __future__ import annotations

from staanet.attacks.crafting import collate, craft, craft_batch
from staanet.attacks.gradient import PGD
from staanet.attacks.random import Random
from staanet.attacks.staa import Staa, chosen

__all__ = ["ATTACKS", "PGD", "Random", "Staa", "chosen", "collate", "craft", "craft_batch"]

ATTACKS = {"pgd": PGD, "random": Random, "staa": Staa}
