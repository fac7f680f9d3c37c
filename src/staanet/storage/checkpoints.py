"""Training checkpoints: keeps the newest two, and reads only complete ones."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from staanet.errors import InvalidInput
from staanet.storage.files import storage_faults, write_bytes
from staanet.storage.weights import deserialise, read_safetensors, serialise

if TYPE_CHECKING:
    from torch import Tensor


def save_checkpoint(
    folder: Path | str, step: int, tensors: Mapping[str, Tensor], state: Mapping[str, Any]
) -> None:
    """Write ``step-00000120.safetensors`` with ``state`` (JSON) inside; keep the newest two.

    Files of later steps belong to a course that was given up, and go.
    """
    text = json.dumps(state, allow_nan=False, sort_keys=True)
    sealed = json.dumps({"state": text, "sha256": _seal(text, tensors)})
    write_bytes(
        Path(folder) / f"step-{step:08d}.safetensors", serialise(tensors, {"checkpoint": sealed})
    )
    past = [(s, path) for s, path in _checkpoints(folder) if s <= step]
    for entry in _checkpoints(folder):
        if entry not in past[-2:]:
            with storage_faults(entry[1]):
                entry[1].unlink(missing_ok=True)


def latest_checkpoint(folder: Path | str) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
    """Tensors and state of the newest checkpoint that is whole; None where there is none."""
    for _, path in reversed(_checkpoints(folder)):
        try:
            data, header = read_safetensors(path)
            sealed = header["__metadata__"]["checkpoint"]
            seal = json.loads(sealed)
            tensors = deserialise(data, path)
            if seal["sha256"] == _seal(seal["state"], tensors):
                state: dict[str, Any] = json.loads(seal["state"])
                return tensors, state
        except (InvalidInput, LookupError, TypeError, ValueError):
            continue  # torn or damaged: the one before it is taken
    return None


def discard_checkpoints(folder: Path | str) -> None:
    """Remove all checkpoints of ``folder``, half-written ones too, once their result is saved."""
    for path in Path(folder).glob("step-*.safetensors*"):
        with storage_faults(path):
            path.unlink(missing_ok=True)


def _checkpoints(folder: Path | str) -> list[tuple[int, Path]]:
    """Steps and files, oldest first."""
    named = (
        (re.fullmatch(r"step-(\d{8,})\.safetensors", p.name), p) for p in Path(folder).glob("*")
    )
    return sorted((int(match[1]), path) for match, path in named if match)


def _seal(text: str, tensors: Mapping[str, Tensor]) -> str:
    """The sha256 of names, types, shapes and values."""
    import torch

    digest = hashlib.sha256(text.encode("utf-8"))
    for name in sorted(tensors):
        values = tensors[name].detach().to("cpu").contiguous()
        digest.update(json.dumps([name, str(values.dtype), list(values.shape)]).encode("ascii"))
        digest.update(values.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
