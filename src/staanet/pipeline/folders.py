"""Folders of stages, which are done or not.

A stage writes one folder and closes it with ``card.json``, which names everything that went in. A
folder whose card names the same inputs is done and is skipped; one made from other inputs stops the
run. So a killed run goes on where it stopped, and no stage quietly reuses another experiment's work.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from staanet import storage
from staanet.errors import InvalidInput, printable


def is_done(folder: Path, kind: str, inputs: Mapping[str, Any]) -> bool:
    """Whether a stage's folder is finished and was made from these very inputs.

    Raises ``InvalidInput`` where it is finished but was made from others.
    """
    if not (folder / "card.json").exists():
        return False
    _same(storage.read_card(folder, kind).get("inputs"), inputs, folder, "was made")
    end(folder)
    return True


def begin(folder: Path, inputs: Mapping[str, Any]) -> None:
    """Note what a stage is made from until its card says so.

    Raises ``InvalidInput`` where the folder holds unfinished work that was made from other inputs.
    """
    if (folder / storage.UNFINISHED).exists():
        _same(storage.read_json(folder / storage.UNFINISHED), inputs, folder, "was begun")
    else:
        storage.write_json(folder / storage.UNFINISHED, normal(inputs))


def end(folder: Path) -> None:
    """Remove what only an unfinished stage needs, once its card is written."""
    storage.discard_checkpoints(folder / "checkpoint")
    for name in ("journal.jsonl", storage.UNFINISHED):
        storage.remove(folder / name)


def _same(before: object, inputs: Mapping[str, Any], folder: Path, how: str) -> None:
    made_from = before if isinstance(before, dict) else {}
    wanted = normal(inputs)
    differing = [key for key in wanted if made_from.get(key) != wanted[key]]
    if differing:
        key = differing[0]
        raise InvalidInput(
            f"{how} with {key} = {_brief(made_from.get(key))}, now it is {_brief(wanted[key])}",
            where=folder,
            remedy="Choose another --out, or delete that folder",
        )


def _brief(value: object) -> str:
    text = printable(repr(value))
    return text if len(text) < 300 else f"{text[:300]}..."


def normal(inputs: Mapping[str, Any]) -> dict[str, Any]:
    """Inputs as JSON reads them back, for comparison."""
    normal: dict[str, Any] = json.loads(json.dumps(inputs))
    return normal
