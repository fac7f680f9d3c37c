"""Classifiers under study. ``VICTIMS`` names the networks; ``load_victim`` reads a trained one."""

from __future__ import annotations

from pathlib import Path

from staanet import storage
from staanet.core import Victim
from staanet.errors import InvalidInput, unknown_name
from staanet.victims.emo18 import Emo18
from staanet.victims.zhao19 import Zhao19

__all__ = ["VICTIMS", "Emo18", "Zhao19", "build_victim", "load_victim"]

VICTIMS: dict[str, type[Emo18] | type[Zhao19]] = {"emo18": Emo18, "zhao19": Zhao19}


def build_victim(name: str, labels: tuple[str, ...]) -> Victim:
    """An untrained network by its registry name; weights from torch's global generator."""
    if name not in VICTIMS:
        raise unknown_name("victim", name, VICTIMS)
    return VICTIMS[name](labels)


def load_victim(folder: Path | str) -> Victim:
    """A trained victim from the folder that ``train-victim`` wrote, frozen and in ``eval()``.

    Raises ``InvalidInput`` where the folder is not a victim, is damaged, or is of an unknown kind.
    """
    if str(folder) in VICTIMS and not Path(folder).exists():
        raise InvalidInput(
            f"'{folder}' names an untrained network",
            remedy=f"Train it first: staanet train-victim CORPUS {folder} --out DIR, then pass DIR",
        )
    card = storage.read_card(Path(folder), "victim")
    architecture = str(card.get("architecture"))
    if architecture not in VICTIMS:
        raise unknown_name("victim", architecture, VICTIMS, where=Path(folder) / "card.json")
    return VICTIMS[architecture].from_pretrained(folder)
