"""Classifiers under study: ``VICTIMS`` lists trainable networks, ``load_victim`` loads a model."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from staanet import storage
from staanet.config import SAMPLE_RATE
from staanet.core import Victim
from staanet.defences import DEFENCES
from staanet.errors import InvalidInput, MissingExtra, unknown_name
from staanet.storage import pretrained
from staanet.victims.audonnx import AudonnxVictim
from staanet.victims.callables import CallableVictim
from staanet.victims.egemaps import Egemaps
from staanet.victims.emo18 import Emo18
from staanet.victims.ensemble import Ensemble, joint_sha256, members_of
from staanet.victims.hugging_face import hugging_face
from staanet.victims.logmel_cnn import LogmelCnn
from staanet.victims.onnx import ONNX_FILE, OnnxVictim
from staanet.victims.python_file import python_copy, python_victim
from staanet.victims.self_supervised import NETWORKS, Hubert, SelfSupervised, Wav2Vec2, WavLM
from staanet.victims.torch_victim import TorchVictim
from staanet.victims.torchscript import TORCHSCRIPT_FILE, TorchScriptVictim
from staanet.victims.zhao19 import Zhao19

__all__ = [
    "SCHEMES",
    "VICTIMS",
    "CallableVictim",
    "Egemaps",
    "Emo18",
    "Ensemble",
    "LogmelCnn",
    "TorchVictim",
    "Zhao19",
    "build_victim",
    "joint_sha256",
    "learning_rate",
    "load_victim",
    "load_victims",
    "members_of",
    "missing_extra",
    "victim_folder",
]

VICTIMS: dict[str, type[Emo18 | LogmelCnn | Zhao19 | SelfSupervised | Egemaps]] = {
    "egemaps": Egemaps,
    "emo18": Emo18,
    "hubert": Hubert,
    "logmel_cnn": LogmelCnn,
    "wav2vec2": Wav2Vec2,
    "wavlm": WavLM,
    "zhao19": Zhao19,
}
"""Written out, because shells complete the names from this text (``staanet/cli/names.py``)."""
SCHEMES: dict[str, Callable[[str], Victim]] = {
    "audonnx": AudonnxVictim,
    "hf": hugging_face,
    "onnx": OnnxVictim,
    "python": python_victim,
    "torchscript": TorchScriptVictim,
}
"""What loads a model that was made elsewhere, by the word before the colon of its name."""
COPIES: dict[str, Callable[[Path], Victim]] = {
    "hugging_face": lambda folder: hugging_face(str(folder)),
    "onnx": lambda folder: OnnxVictim(folder / ONNX_FILE),
    "python": python_copy,
    "torchscript": lambda folder: TorchScriptVictim(folder / TORCHSCRIPT_FILE),
}
"""What reads the copy of such a model inside a victim folder, by the architecture in the card."""
PACKAGES = {
    "egemaps": ("opensmile", "opensmile"),
    "hugging_face": ("transformers", "ssl"),
    "onnx": ("onnxruntime", "onnx"),
    **dict.fromkeys(NETWORKS, ("transformers", "ssl")),
}
"""The package that an architecture needs beside those of the core, and the extra that installs it."""


def build_victim(
    name: str,
    labels: tuple[str, ...],
    *,
    pretrained: str | None = None,
    config: str | None = None,
    sample_rate: int = SAMPLE_RATE,
) -> Victim:
    """An untrained network by its registry name; torch's global generator draws its weights.

    ``wav2vec2``, ``wavlm`` and ``hubert`` start from the weights of ``pretrained``, a hub name or a
    local folder (default: the published base model), or from scratch in a small ``config``. Every network
    built from scratch takes any ``sample_rate`` in Hz. Raises ``InvalidInput`` where the name is unknown
    or the options do not fit it.
    """
    if name not in VICTIMS:
        raise unknown_name("victim", name, VICTIMS)
    kind = VICTIMS[name]
    if issubclass(kind, SelfSupervised):
        return kind.build(labels, pretrained=pretrained, config=config, sample_rate=sample_rate)
    if pretrained is not None or config is not None:
        raise InvalidInput(
            f"{name} has one configuration and is trained from scratch",
            remedy="Leave out pretrained and config",
        )
    return kind(labels, sample_rate=sample_rate)


def learning_rate(name: str, *, config: str | None = None) -> float:
    """The learning rate of Adam in the paper; it is small where published weights are fine-tuned.

    >>> learning_rate("emo18"), learning_rate("wavlm")
    (0.001, 3e-05)
    """
    is_fine_tuned = issubclass(VICTIMS.get(name, Emo18), SelfSupervised) and config is None
    return 3e-5 if is_fine_tuned else 1e-3


def load_victim(spec: Path | str) -> Victim:
    """A trained victim, frozen and in ``eval()``; its ``origin`` is ``spec``.

    ``spec`` is the folder that ``train-victim`` wrote, ``shipped:NAME``, or one of ``SCHEMES``:
    ``hf:NAME-OR-FOLDER``, ``onnx:FILE``, ``audonnx:FOLDER``, ``torchscript:FILE``,
    ``python:FILE.py:FACTORY``. Raises ``InvalidInput`` where it is no victim, is damaged, or is of an unknown kind.
    """
    scheme, colon, name = str(spec).partition(":")
    is_external = bool(colon) and scheme in SCHEMES
    victim = SCHEMES[scheme](name) if is_external else _from_folder(Path(victim_folder(spec)))
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
        return _from_copy(folder, card)
    if architecture in DEFENCES:
        return DEFENCES[architecture].from_pretrained(folder, load_victim)
    if architecture not in VICTIMS:
        raise unknown_name("victim", architecture, VICTIMS, where=folder / "card.json")
    return VICTIMS[architecture].from_pretrained(folder)


def _from_copy(folder: Path, card: Mapping[str, Any]) -> Victim:
    """A model that was made elsewhere, from its copy inside a victim folder."""
    victim = COPIES[str(card["architecture"])](folder)
    if victim.sha256 != card.get("sha256"):
        raise InvalidInput(
            "the model was changed since it was copied: its sha256 differs from card.json",
            where=folder,
            remedy="Copy the folder again, or defend the original again",
        )
    victim.name = str(card.get("name"))
    victim.tolerance = tuple(card.get("tolerance", victim.tolerance))
    return victim


def victim_folder(spec: Path | str) -> Path | str:
    """The folder that ``shipped:NAME`` stands for; any other spec as it is."""
    scheme, colon, name = str(spec).partition(":")
    return pretrained.folder("victims", name) if colon and scheme == pretrained.SCHEME else spec


def missing_extra(spec: Path | str) -> MissingExtra | None:
    """The extra that loading a victim's folder (or ``shipped:NAME``) needs and this machine lacks, if any."""
    for path in sorted(
        Path(victim_folder(spec)).rglob(storage.CARD)
    ):  # inner victims have cards too
        card = storage.read_json(path)
        package = PACKAGES.get(str(card.get("architecture"))) if isinstance(card, dict) else None
        if package and find_spec(package[0]) is None:
            return MissingExtra(*package)
    return None


def load_victims(specs: Sequence[Path | str]) -> Victim:
    """One victim, or the ensemble of several; see ``load_victim``."""
    victims = [load_victim(spec) for spec in specs]
    return victims[0] if len(victims) == 1 else Ensemble(victims)
