"""Models inside the package: small victims and a generator, for a first attack without training.

Laid out like a run's folder, ``models/victims/NAME`` and ``models/generators/NAME``, as 16-bit floats;
a ``MODEL_CARD.md`` beside each says what it is, what it was trained on and how well it does.
"""

from __future__ import annotations

from pathlib import Path

from staanet.errors import unknown_name

SCHEME = "shipped"
"""``shipped:NAME`` stands for a victim or generator of this name."""
ROOT = Path(__file__).parents[1] / "models"


def names(kind: str) -> list[str]:
    """The shipped ``victims`` or ``generators``.

    >>> names("victims")
    ['emo18', 'wav2vec2_tiny', 'zhao19']
    """
    return sorted(path.parent.name for path in (ROOT / kind).glob("*/card.json"))


def folder(kind: str, name: str) -> Path:
    """Where the shipped model ``name`` of ``kind`` is; ``InvalidInput`` names those that there are."""
    names_of_kind = names(kind)
    if name not in names_of_kind:
        raise unknown_name(f"shipped {kind.removesuffix('s')}", name, names_of_kind)
    return ROOT / kind / name
