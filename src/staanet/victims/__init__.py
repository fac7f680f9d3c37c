"""Classifiers under study. ``VICTIMS`` names the networks; ``load_victim`` reads a trained one."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from staanet import storage
from staanet.core import Victim
from staanet.defences import DEFENCES
from staanet.errors import InvalidInput, MissingExtra, unknown_name
from staanet.storage import pretrained
from staanet.victims.emo18 import Emo18
from staanet.victims.ensemble import Ensemble, joint_sha256, members_of
from staanet.victims.external import ONNX_FILE, CallableVictim, External, OnnxVictim, hugging_face
from staanet.victims.ssl import NETWORKS, Hubert, SelfSupervised, Wav2Vec2, WavLM
from staanet.victims.zhao19 import Zhao19

__all__ = [
    "SCHEMES",
    "VICTIMS",
    "CallableVictim",
    "Emo18",
    "Ensemble",
    "Zhao19",
    "build_victim",
    "joint_sha256",
    "lacking",
    "learning_rate",
    "load_victim",
    "load_victims",
    "members_of",
    "place_of",
]

VICTIMS: dict[str, type[Emo18 | Zhao19 | SelfSupervised]] = {
    "emo18": Emo18,
    "hubert": Hubert,
    "wav2vec2": Wav2Vec2,
    "wavlm": WavLM,
    "zhao19": Zhao19,
}
"""Written out, because shells complete the names from this text (``staanet/cli/names.py``)."""
SCHEMES = {"hf": hugging_face, "onnx": OnnxVictim}
"""Models made elsewhere, by what stands before the colon of their name."""
COPIES: dict[str, Callable[[Path], External]] = {
    "hugging_face": lambda folder: hugging_face(str(folder)),
    "onnx": lambda folder: OnnxVictim(folder / ONNX_FILE),
}
"""What reads the copy of a model that was made elsewhere, from the folder around it."""
PACKAGES = {
    "hugging_face": ("transformers", "ssl"),
    "onnx": ("onnxruntime", "onnx"),
    **dict.fromkeys(NETWORKS, ("transformers", "ssl")),
}
"""The package that an architecture takes beyond the core's, and the extra that brings it."""


def build_victim(
    name: str, labels: tuple[str, ...], *, pretrained: str | None = None, config: str | None = None
) -> Victim:
    """A network to be trained, by its registry name; random weights from torch's global generator.

    ``wav2vec2``, ``wavlm`` and ``hubert`` start from the weights of ``pretrained``, a hub name or a
    local folder (default: the published base model), or from scratch in a small ``config``.
    """
    if name not in VICTIMS:
        raise unknown_name("victim", name, VICTIMS)
    kind = VICTIMS[name]
    if issubclass(kind, SelfSupervised):
        return kind.build(labels, pretrained=pretrained, config=config)
    if pretrained is not None or config is not None:
        raise InvalidInput(
            f"{name} has one configuration and is trained from scratch",
            remedy="Leave out pretrained and config",
        )
    return kind(labels)


def learning_rate(name: str, *, config: str | None = None) -> float:
    """Adam's in the paper: small where published weights are fine-tuned.

    >>> learning_rate("emo18"), learning_rate("wavlm")
    (0.001, 3e-05)
    """
    fine_tuned = issubclass(VICTIMS.get(name, Emo18), SelfSupervised) and config is None
    return 3e-5 if fine_tuned else 1e-3


def load_victim(spec: Path | str) -> Victim:
    """A trained victim, frozen and in ``eval()``: the folder that ``train-victim`` wrote,
    ``hf:NAME-OR-FOLDER``, ``onnx:FILE``, or ``shipped:NAME``.

    Its ``origin`` is ``spec``. Raises ``InvalidInput`` where it is not a victim, is damaged, or is
    of an unknown kind.
    """
    scheme, colon, name = str(spec).partition(":")
    external = bool(colon) and scheme in SCHEMES
    victim = SCHEMES[scheme](name) if external else _from_folder(Path(place_of(spec)))
    victim.origin = str(spec)
    return victim


def _from_folder(folder: Path) -> Victim:
    if str(folder) in VICTIMS and not folder.exists():
        raise InvalidInput(
            f"'{folder}' names an untrained network",
            remedy=f"Train it first: staanet train-victim CORPUS {folder} --out DIR, then pass DIR",
        )
    card = storage.read_card(folder, "victim")
    architecture = str(card.get("architecture"))
    if architecture in COPIES:
        return _copied(folder, card)
    if architecture in DEFENCES:
        return DEFENCES[architecture].from_pretrained(folder, load_victim)
    if architecture not in VICTIMS:
        raise unknown_name("victim", architecture, VICTIMS, where=folder / "card.json")
    return VICTIMS[architecture].from_pretrained(folder)


def _copied(folder: Path, card: Mapping[str, Any]) -> Victim:
    """A model made elsewhere, from its copy inside a folder."""
    victim = COPIES[str(card["architecture"])](folder)
    if victim.sha256 != card.get("sha256"):
        raise InvalidInput(
            "the model was changed since it was copied: its sha256 differs from card.json",
            where=folder,
            remedy="Copy the folder again, or defend the original again",
        )
    victim.name = str(card.get("name"))
    return victim


def place_of(spec: Path | str) -> Path | str:
    """The folder that ``shipped:NAME`` stands for; any other spec as it is."""
    scheme, colon, name = str(spec).partition(":")
    return pretrained.folder("victims", name) if colon and scheme == pretrained.SCHEME else spec


def lacking(spec: Path | str) -> MissingExtra | None:
    """What reading a victim's folder (or ``shipped:NAME``) would fail for want of; None where nothing is."""
    for card in sorted(Path(place_of(spec)).rglob(storage.CARD)):  # one inside another has its own
        told = storage.read_json(card)
        needed = PACKAGES.get(str(told.get("architecture"))) if isinstance(told, dict) else None
        if needed and find_spec(needed[0]) is None:
            return MissingExtra(*needed)
    return None


def load_victims(specs: Sequence[Path | str]) -> Victim:
    """One victim, or the ensemble of several; see ``load_victim``."""
    victims = [load_victim(spec) for spec in specs]
    return victims[0] if len(victims) == 1 else Ensemble(victims)
