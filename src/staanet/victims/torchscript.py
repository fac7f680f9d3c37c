"""Loads a classifier from a TorchScript file, with its card beside it: ``torchscript:FILE``."""

from __future__ import annotations

import warnings
from pathlib import Path

import torch

from staanet.errors import InvalidInput, printable
from staanet.victims.external import refuse_pointers, sha256_of_files
from staanet.victims.model_card import read_model_card
from staanet.victims.torch_victim import TorchVictim

TORCHSCRIPT_FILE = "model.torchscript"
"""The name of the copy inside a victim folder."""


class TorchScriptVictim(TorchVictim):
    """A model in a TorchScript file: gradients reach the waveform.

    Such a file is a program of torch operations, and no pickle of Python objects. Raises ``InvalidInput``
    where file or card is missing or damaged.
    """

    architecture = "torchscript"

    def __init__(self, file: Path | str) -> None:
        path = Path(file)
        card = read_model_card(path, "torchscript")
        super().__init__(_load(path), card.labels, card.sample_rate, name=path.stem)
        self.path, self.card = path, card
        self.sha256 = sha256_of_files(self.model_files())

    def model_files(self) -> dict[str, bytes]:
        return {
            TORCHSCRIPT_FILE: self.path.read_bytes(),
            f"{TORCHSCRIPT_FILE}.toml": self.card.as_toml().encode(),
        }


def _load(path: Path) -> torch.jit.ScriptModule:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch names its newer format
            module: torch.jit.ScriptModule = torch.jit.load(  # type: ignore[no-untyped-call]
                str(path), map_location="cpu"
            )
    except Exception as problem:
        refuse_pointers(path)
        reason = printable(" ".join(str(problem).split()))[:150]
        raise InvalidInput(
            f"is no TorchScript file ({reason})",
            where=path,
            remedy="Write it with torch.jit.save(torch.jit.trace(model, example), FILE)",
        ) from problem
    return module
