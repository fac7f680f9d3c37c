"""Runs a classifier in an ONNX file by onnxruntime (extra ``onnx``).

Where torch can run its graph as well, and both answer the same, gradients go through torch: then it is a
white box. Answers without a gradient always come from onnxruntime.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from staanet.errors import InvalidInput, needs_extra, printable
from staanet.nn.padding import require_samples, run_by_length
from staanet.victims.external import BlackBox, Floats, refuse_pointers, sha256_of_files
from staanet.victims.model_card import (
    ModelCard,
    check_outputs,
    logits_from_probabilities,
    read_model_card,
)
from staanet.victims.onnx_graph import OnnxGraph
from staanet.victims.onnx_node import UnsupportedGraph

ONNX_FILE = "model.onnx"
"""The name of the copy of an ONNX model inside a victim folder."""
EXACT = 1e-4
"""So much may the logits of torch and onnxruntime differ for a white box, relative to the largest logit above 1."""
_TYPES = {"tensor(float)": "f4", "tensor(double)": "f8", "tensor(float16)": "f2"}
_TYPES |= {"tensor(int64)": "i8", "tensor(int32)": "i4", "tensor(bool)": "?"}


class OnnxVictim(BlackBox):
    """A model in an ONNX file, described by its metadata and by a card beside it.

    The card may be left out where the metadata holds ``labels`` and ``sample_rate``. Inputs for a mask or
    for lengths are filled. Raises ``InvalidInput`` where file or card is missing or damaged, or they do
    not fit each other.

    Args:
        file: The model; its card is ``FILE.toml``.
        about: What is known of the model from elsewhere; the card has priority.
    """

    architecture = "onnx"

    def __init__(self, file: Path | str, *, about: Mapping[str, Any] | None = None) -> None:
        path = Path(file)
        if not path.is_file():
            raise InvalidInput("no such file", where=path, remedy="Give an ONNX file: onnx:FILE")
        session = onnx_session(str(path), where=path)
        card = read_model_card(path, "onnx", _metadata(session) if about is None else about)
        super().__init__(
            name=path.stem,
            labels=card.labels,
            sample_rate=card.sample_rate,
            tolerance=card.tolerance,
        )
        self.path, self.session = path, session
        self.inputs = {entry.name: entry for entry in session.get_inputs()}
        self.card = _fit_to_input(card, self.inputs, path)
        self.output = _find_output(card, session.get_outputs(), path)
        self.probabilities, self.minimum_samples = card.probabilities, card.minimum_samples
        self.sha256 = sha256_of_files(self.model_files())
        self.graph, self.why_black_box = self._convert()
        self.differentiable = self.graph is not None
        self.eval()

    @property
    def notes(self) -> tuple[str, ...]:
        return tuple(filter(None, (self.card.note, self.why_black_box)))

    def model_files(self) -> dict[str, bytes]:
        return {
            ONNX_FILE: self.path.read_bytes(),
            f"{ONNX_FILE}.toml": self.card.as_toml().encode(),
        }

    def forward(self, waveforms: Tensor, lengths: Tensor | None = None) -> Tensor:
        if self.graph is None or not (waveforms.requires_grad and torch.is_grad_enabled()):
            return super().forward(waveforms, lengths)
        return run_by_length(self._torch_logits, waveforms, lengths)

    def predict(self, waveforms: Floats) -> Any:
        x = self.card.prepare(torch.from_numpy(waveforms)).numpy()
        batch = self.inputs[self.card.input].shape[0]
        if not isinstance(batch, int):
            return self._run(x)
        rows = np.arange(-(-len(x) // batch) * batch).reshape(-1, batch) % len(x)
        return np.concatenate([self._run(x[chunk]) for chunk in rows])[: len(x)]

    def _run(self, x: Floats) -> Any:
        try:
            return self.session.run([self.output], self._feeds(x))[0]
        except Exception as problem:  # onnxruntime has a dozen, with no common base of their own
            raise InvalidInput(
                f"onnxruntime could not run it ({printable(str(problem))[:200]})",
                where=self.path,
                remedy="It must take 32-bit waveforms of any length in [-1, 1]",
            ) from problem

    def _feeds(self, x: Any) -> dict[str, Any]:
        """The waveforms, and what fills the other inputs: a mask of ones, or lengths."""
        batch, time = len(x), x.shape[-1]
        feeds = {}
        for name, entry in self.inputs.items():
            if name == self.card.input:
                feeds[name] = x
            elif _is_mask(name):
                feeds[name] = np.ones((batch, time), _TYPES[entry.type])
            else:
                feeds[name] = np.full(batch, time, _TYPES[entry.type])
        return feeds

    def _torch_logits(self, clips: Tensor) -> Tensor:
        require_samples(self, clips.shape[1])
        assert self.graph is not None, "forward asks for a gradient where there is a copy"
        outputs = self.graph(self._feeds(self.card.prepare(clips)), self.output)
        check_outputs(self.name, self.labels, outputs, len(clips))
        return logits_from_probabilities(self.name, outputs) if self.probabilities else outputs

    def _convert(self) -> tuple[OnnxGraph | None, str]:
        """The graph in torch, where it answers as onnxruntime does; else why not."""
        try:
            self.graph = OnnxGraph(self.path)
            difference = self._difference()
        except UnsupportedGraph as problem:
            return None, f"is a black box, because torch cannot run its graph: {problem}"
        if difference <= EXACT:
            return self.graph, ""
        return None, f"is a black box: in torch its logits differ by {difference:.2g}"

    def _difference(self) -> float:
        """The largest difference of logits between torch and onnxruntime on noise of two lengths; see ``EXACT``."""
        generator = torch.Generator().manual_seed(0)
        difference = 0.0
        for batch, seconds in ((1, 1.0), (2, 0.63)):
            time = max(self.minimum_samples, int(seconds * self.sample_rate))
            x = 0.1 * torch.randn(batch, time, generator=generator)
            try:
                with torch.no_grad():
                    expected, answer = self._logits_of(x), self._torch_logits(x)
            except UnsupportedGraph:
                raise
            except Exception as problem:  # of any operator of torch or onnxruntime
                reason = printable(" ".join(str(problem).split()))[:200]
                raise UnsupportedGraph(f"{type(problem).__name__}: {reason}") from problem
            scale = expected.abs().amax().clamp_min(1)  # float32 keeps digits, not decimals
            difference = max(difference, float((answer - expected).abs().amax() / scale))
        return difference


def _is_mask(name: str) -> bool:
    return "mask" in name.lower()


def _fit_to_input(card: ModelCard, inputs: Mapping[str, Any], path: Path) -> ModelCard:
    """The card with the name, axes and length of the waveform as the graph has them."""
    rest = [name for name in inputs if not _is_mask(name) and "len" not in name.lower()]
    name = card.input or (rest[0] if len(rest) == 1 else "")
    unfilled = [other for other in rest if other != name]
    if name not in inputs or unfilled:
        raise InvalidInput(
            f"takes the inputs {_listing(inputs.values())}; the waveform is '{printable(name)}'",
            where=path,
            remedy="Name the waveform in the card, input = ...; only masks and lengths are filled",
        )
    shape, kind = inputs[name].shape, inputs[name].type
    if len(shape) not in (2, 3) or kind != "tensor(float)":
        raise InvalidInput(
            f"takes an input of {len(shape)} dimensions as {kind}",
            where=path,
            remedy="Export it for waveforms in 32 bit, [batch, time] or [batch, 1, time]",
        )
    if len(shape) == 3 and isinstance(shape[1], int) and shape[1] != 1:
        raise InvalidInput(
            f"takes {_listing([inputs[name]])}: features, or {shape[1]} channels, and no waveform",
            where=path,
            remedy="Compute them before it in a function of your own: python:FILE.py:FACTORY with a "
            "staanet.CallableVictim, or export the model with its front end",
        )
    samples = shape[-1] if isinstance(shape[-1], int) else card.samples
    if card.samples not in (0, samples):
        raise InvalidInput(
            f"takes clips of {samples} samples, its card says {card.samples}",
            where=path,
            remedy="Leave samples out of the card",
        )
    input_shape = "[B, T]" if len(shape) == 2 else "[B, 1, T]"
    return replace(card, input=name, input_shape=input_shape, samples=samples)  # type: ignore[arg-type]


def _find_output(card: ModelCard, outputs: Sequence[Any], path: Path) -> str:
    """The name of the output that the card says, the only one, or that called ``logits``."""
    names = [entry.name for entry in outputs]
    name: str | None = None
    if isinstance(card.output, int):
        name = names[card.output] if -len(names) <= card.output < len(names) else None
    elif card.output is not None:
        name = card.output if card.output in names else None
    elif len(names) == 1 or "logits" in names:
        name = "logits" if "logits" in names else names[0]
    remedy = f'Name the output with one number per class in {path.name}.toml: output = "..."'
    if name is None:
        which = "no output" if card.output is None else f"the output {card.output!r:.60}"
        raise InvalidInput(
            f"has the outputs {_listing(outputs)}, its card names {which}",
            where=path,
            remedy=remedy,
        )
    shape = outputs[names.index(name)].shape
    width = shape[-1] if shape else 0
    if len(shape) not in (0, 2) or (isinstance(width, int) and width != len(card.labels)):
        raise InvalidInput(
            f"its output {_listing([outputs[names.index(name)]])} does not fit its "
            f"{len(card.labels)} labels; the outputs are {_listing(outputs)}",
            where=path,
            remedy=remedy,
        )
    return name


def _listing(entries: Any) -> str:
    """Inputs or outputs of a graph with their shapes, in one line."""
    named = [f"{entry.name} [{', '.join(map(str, entry.shape or []))}]" for entry in entries]
    return printable(", ".join(named))[:400]


def _metadata(session: Any) -> dict[str, Any]:
    """What the file itself says of labels and rate."""
    texts = {k.lower(): v for k, v in session.get_modelmeta().custom_metadata_map.items()}
    about: dict[str, Any] = {}
    for key in ("labels", "classes", "id2label"):
        if key in texts:
            about.setdefault("labels", _words(texts[key]))
    for key in ("sample_rate", "sampling_rate"):
        if texts.get(key, "").strip().isdecimal():
            about.setdefault("sample_rate", int(texts[key]))
    return about


def _words(text: str) -> list[str]:
    """A list of labels written as JSON, as ``{"0": "anger", ...}``, or with commas between them.

    >>> _words('{"1": "joy", "0": "anger"}'), _words("anger, joy")
    (['anger', 'joy'], ['anger', 'joy'])
    """
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        value = [part.strip() for part in text.split(",")]
    if isinstance(value, dict):
        value = [value[key] for key in sorted(value, key=lambda key: (len(key), key))]
    return [str(word) for word in value] if isinstance(value, list) else []


def onnx_session(model: str | bytes, *, where: object) -> Any:
    """An onnxruntime session on a file or its bytes, with as many threads as torch has."""
    with needs_extra("onnxruntime", "onnx"):
        import onnxruntime
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 4  # errors arrive as exceptions
    try:
        return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    except Exception as problem:
        if isinstance(model, str):
            refuse_pointers(Path(model))
        raise InvalidInput(
            f"is not a model that onnxruntime can load ({printable(str(problem))[:200]})",
            where=where,
            remedy="Export it again",
        ) from problem
