"""A classifier in an ONNX file, run by onnxruntime (extra ``onnx``), as a victim without gradient."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from pydantic import TypeAdapter, ValidationError

from staanet.core import standardise
from staanet.errors import InvalidInput, MissingExtra, printable
from staanet.victims.external import BlackBox, Floats, sha256_of_files

ONNX_FILE = "model.onnx"
"""The name of the copy of an ONNX model inside a victim folder."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OnnxCard:
    """What ``FILE.toml`` says of ``FILE`` (``emo18.onnx.toml`` of ``emo18.onnx``)."""

    __pydantic_config__: ClassVar = {"extra": "forbid"}
    sample_rate: int
    labels: tuple[str, ...]
    """In the order of the model's outputs."""
    input: str = "waveforms"
    """The name of the input, ``[B, T]`` or ``[B, 1, T]`` in 32 bit; the first output is the answer."""
    standardise: bool = False
    """Bring each clip to zero mean and unit deviation before the model, which does not do it itself."""
    probabilities: bool = False
    minimum_samples: int = 1


class OnnxVictim(BlackBox):
    """A model in an ONNX file with its card beside it.

    Raises ``InvalidInput`` where either is missing or damaged, or they do not fit each other.
    """

    architecture = "onnx"

    def __init__(self, file: Path | str) -> None:
        path = Path(file)
        card = read_onnx_card(path)
        super().__init__(name=path.stem, labels=card.labels, sample_rate=card.sample_rate)
        self.path, self.card = path, card
        self.probabilities, self.minimum_samples = card.probabilities, card.minimum_samples
        self.session = onnx_session(str(path), where=path)
        inputs = {entry.name: entry.shape for entry in self.session.get_inputs()}
        if list(inputs) != [card.input]:
            raise InvalidInput(
                f"takes the inputs {', '.join(map(printable, inputs))}, its card names "
                f"'{printable(card.input)}'",
                where=path,
                remedy='Name its only input in the card: input = "..."'
                if len(inputs) == 1
                else "Export it with one input, the waveform [batch, time]",
            )
        self.shape = inputs[card.input]
        if len(self.shape) not in (2, 3):
            raise InvalidInput(
                f"takes an input of {len(self.shape)} dimensions",
                where=path,
                remedy="Export it for waveforms, [batch, time] or [batch, 1, time]",
            )
        self.sha256 = sha256_of_files(self.model_files())
        self.eval()

    def model_files(self) -> dict[str, bytes]:
        card = self.path.with_name(f"{self.path.name}.toml")
        return {ONNX_FILE: self.path.read_bytes(), f"{ONNX_FILE}.toml": card.read_bytes()}

    def predict(self, waveforms: Floats) -> Any:
        if self.card.standardise:
            waveforms = standardise(torch.from_numpy(waveforms)).numpy()
        batch, time = self.shape[0], self.shape[-1]
        if isinstance(batch, int) and batch != 1 and batch != len(waveforms):
            raise InvalidInput(
                f"takes batches of {batch} clips only",
                where=self.path,
                remedy="Export it with a dynamic batch dimension",
            )
        if isinstance(time, int) and time != waveforms.shape[1]:
            raise InvalidInput(
                f"takes clips of {time} samples only, this one has {waveforms.shape[1]}",
                where=self.path,
                remedy="Export it with a dynamic time dimension",
            )
        batches = waveforms[:, None] if batch == 1 else waveforms[None]
        return np.concatenate([self._run(clips) for clips in batches])

    def _run(self, waveforms: Floats) -> Any:
        x = waveforms if len(self.shape) == 2 else waveforms[:, None]
        try:
            return self.session.run(None, {self.card.input: x})[0]
        except Exception as problem:  # onnxruntime has a dozen, with no common base of their own
            raise InvalidInput(
                f"onnxruntime could not run it ({printable(str(problem))[:200]})",
                where=self.path,
                remedy="It must take 32-bit waveforms of any length in [-1, 1]",
            ) from problem


def read_onnx_card(path: Path) -> OnnxCard:
    """The card beside an ONNX file; ``InvalidInput`` says which key is missing or wrong."""
    if not path.is_file():
        raise InvalidInput("no such file", where=path, remedy="Give an ONNX file: onnx:FILE")
    card_path = path.with_name(f"{path.name}.toml")
    remedy = f'Write {card_path.name} with, say: sample_rate = 16000, labels = ["anger", "joy"]'
    if not card_path.is_file():
        raise InvalidInput("has no card beside it", where=path, remedy=remedy)
    try:
        card = TypeAdapter(OnnxCard).validate_python(tomllib.loads(card_path.read_text("utf-8")))
    except ValidationError as problem:
        first = problem.errors(include_url=False)[0]
        key = ".".join(str(part) for part in first["loc"])
        raise InvalidInput(
            f"{printable(key)}: {first['msg'].lower()}", where=card_path, remedy=remedy
        ) from problem
    except (OSError, ValueError, RecursionError) as problem:
        raise InvalidInput(
            f"is not a readable TOML file ({printable(str(problem))[:200]})",
            where=card_path,
            remedy=remedy,
        ) from problem
    if card.sample_rate < 1 or len(card.labels) < 2 or len({*card.labels}) < len(card.labels):
        raise InvalidInput(
            f"sample_rate is {card.sample_rate}, labels are {list(card.labels)}",
            where=card_path,
            remedy="Give a rate in Hz and two or more different labels",
        )
    return card


def onnx_session(model: str | bytes, *, where: object) -> Any:
    """An onnxruntime session on a file or its bytes, with as many threads as torch has."""
    try:
        import onnxruntime
    except ImportError as problem:
        raise MissingExtra("onnxruntime", "onnx") from problem
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3
    try:
        return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    except Exception as problem:
        raise InvalidInput(
            f"is not a model that onnxruntime can load ({printable(str(problem))[:200]})",
            where=where,
            remedy="Export it again",
        ) from problem
