"""staanet: find out how easily an audio classifier is fooled, and make it harder to fool.

Research software for measuring and hardening one's own models. Names are loaded when first used, so
that importing the package costs nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from staanet.attacks import ATTACKS as ATTACKS
    from staanet.attacks import craft as craft
    from staanet.config import load_recipe as load_recipe
    from staanet.core import Attack as Attack
    from staanet.core import Budget as Budget
    from staanet.core import Clip as Clip
    from staanet.core import Corpus as Corpus
    from staanet.core import Shift as Shift
    from staanet.core import Targeted as Targeted
    from staanet.core import Untargeted as Untargeted
    from staanet.core import Utterance as Utterance
    from staanet.core import Victim as Victim
    from staanet.corpora import CORPORA as CORPORA
    from staanet.corpora import load_corpus as load_corpus
    from staanet.defences import Defended as Defended
    from staanet.errors import StaaNetError as StaaNetError
    from staanet.evaluation import transfer_matrix as transfer_matrix
    from staanet.generators.registry import build_generator as build_generator
    from staanet.generators.registry import load_generator as load_generator
    from staanet.pipeline import run as run
    from staanet.results.adversarial_set import AdversarialSet as AdversarialSet
    from staanet.results.transfer_matrix import TransferMatrix as TransferMatrix
    from staanet.transforms import TRANSFORMS as TRANSFORMS
    from staanet.victims import VICTIMS as VICTIMS
    from staanet.victims import load_victim as load_victim
    from staanet.victims.callables import CallableVictim as CallableVictim
    from staanet.victims.torch_victim import TorchVictim as TorchVictim

_HOME = {
    "ATTACKS": "attacks",
    "AdversarialSet": "results.adversarial_set",
    "Attack": "core",
    "Budget": "core",
    "CORPORA": "corpora",
    "Clip": "core",
    "Corpus": "core",
    "Defended": "defences",
    "StaaNetError": "errors",
    "TRANSFORMS": "transforms",
    "Shift": "core",
    "Targeted": "core",
    "TransferMatrix": "results.transfer_matrix",
    "Untargeted": "core",
    "Utterance": "core",
    "CallableVictim": "victims.callables",
    "TorchVictim": "victims.torch_victim",
    "VICTIMS": "victims",
    "Victim": "core",
    "build_generator": "generators.registry",
    "craft": "attacks",
    "load_corpus": "corpora",
    "load_generator": "generators.registry",
    "load_recipe": "config",
    "load_victim": "victims",
    "run": "pipeline",
    "transfer_matrix": "evaluation",
}

__all__ = [
    "ATTACKS",
    "AdversarialSet",
    "Attack",
    "Budget",
    "CORPORA",
    "Clip",
    "Corpus",
    "Defended",
    "StaaNetError",
    "TRANSFORMS",
    "Shift",
    "Targeted",
    "TransferMatrix",
    "Untargeted",
    "Utterance",
    "VICTIMS",
    "Victim",
    "build_generator",
    "craft",
    "load_corpus",
    "load_generator",
    "load_recipe",
    "CallableVictim",
    "TorchVictim",
    "load_victim",
    "run",
    "transfer_matrix",
]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("staanet")
    if name not in _HOME:
        raise AttributeError(f"module 'staanet' has no attribute '{name}'")
    return getattr(importlib.import_module(f"staanet.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
