"""Checks the knowledge of each attack: white box means that source and target share weights."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence

import numpy as np

from staanet import storage
from staanet.attacks import logits_of
from staanet.core import Clip, Victim
from staanet.results.checks import Check
from staanet.sanity.loaded_run import LoadedRun, no_victim


def weights_hash(victim: Victim) -> str:
    """Returns the sha256 of a victim's tensors, whatever their names."""
    parts = sorted(
        hashlib.sha256(
            f"{tuple(tensor.shape)}".encode() + tensor.detach().cpu().contiguous().numpy().tobytes()
        ).hexdigest()
        for tensor in victim.state_dict().values()
    )
    return hashlib.sha256("".join(parts).encode()).hexdigest()


def white_box_marks(run: LoadedRun, clips: Sequence[Clip]) -> Check:
    """A cell is marked white box where source and target are one function, and nowhere else.

    They are one where their tensors are, or where their logits are equal on the clips.
    """
    hashes = {name: weights_hash(victim) for name, victim in run.victims.items()}
    logits = {name: logits_of(victim, clips) for name, victim in run.victims.items()}

    def is_same(a: str, b: str) -> bool:
        if a == b or (run.victims[a].state_dict() and hashes[a] == hashes[b]):
            return True
        x, y = logits[a], logits[b]
        return x.shape == y.shape and bool(np.allclose(x, y, rtol=1e-4, atol=1e-5))

    wrong = []
    cells = [
        cell
        for cell in run.files.cells
        if {*cell.source.split(","), cell.target} <= run.victims.keys()
    ]
    for cell in cells:
        is_source = any(is_same(member, cell.target) for member in cell.source.split(","))
        if is_source != cell.white_box:
            wrong.append(
                f"{cell.attack} from {cell.source} on {cell.target}: "
                + (
                    "the target is the source's copy and is not marked white box"
                    if is_source
                    else "is marked white box, but the target is another model"
                )
            )
    wrong += list(_other_sources(run))
    if not cells:
        return no_victim("white_box_marks", "", "of any cell")
    return Check.list_wrong(
        "white_box_marks",
        "",
        wrong,
        len(cells),
        "white box is what shares the source's weights",
        "Count a copy of the source as the white box, and take it out of transfer figures",
    )


def _other_sources(run: LoadedRun) -> Iterator[str]:
    for kind, folder in run.trained("generator", "vector"):
        card = storage.read_card(folder, kind)
        source = run.files.folder / "victims" / str(card.get("source"))
        if (source / storage.CARD).is_file():
            sha256 = storage.read_card(source, "victim").get("sha256")
            if sha256 != card.get("source_sha256"):
                yield f"the {kind} {folder.name} was trained on other weights of {source.name}"
