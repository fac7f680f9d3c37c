"""Classifiers that were made elsewhere: Hugging Face models, ONNX files, any Python function.

A model that takes waveforms stays differentiable. Whatever else answers from outside torch is a
black box: it can be attacked without gradients and judged as a target, and it raises where a gradient
is asked for, because a silent zero would read as robustness.
"""

from __future__ import annotations

import hashlib
import tomllib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import TypeAdapter, ValidationError
from torch import Tensor

from staanet import storage
from staanet.core import Victim, standardise
from staanet.core.victim import tensors_sha256
from staanet.errors import InvalidInput, MissingExtra, printable
from staanet.nn.padding import receptive_field, require_samples, run_by_length
from staanet.victims import hub

Floats = NDArray[np.float32]
ONNX_FILE = "model.onnx"
"""What a copy of an ONNX model is called inside a victim folder."""
WAVEFORM_EXTRACTOR = "Wav2Vec2FeatureExtractor"
ANALYSIS_WINDOW = 400
"""Samples of the 25 ms window of every spectrogram front end in use at 16 kHz."""


class External(Victim):
    """A victim whose weights, if it has any that we can see, are kept elsewhere."""

    architecture = "external"

    def files(self) -> dict[str, bytes]:
        """All that it is read from again, by file name; nothing where it cannot be copied."""
        return {}

    def save_pretrained(self, folder: Path | str, **card: Any) -> None:
        """Write a copy of the model and ``card.json``, as the inside of a defended victim.

        Raises ``InvalidInput`` where it is no file, such as a Python function.
        """
        files = self.files()
        if not files:
            raise InvalidInput(
                f"{self.name} was made elsewhere and is not saved as a victim folder",
                where=folder,
                remedy="Keep the original, and name it again as you did",
            )
        for name, data in files.items():
            storage.write_bytes(Path(folder) / name, data)
        storage.write_card(
            folder,
            {
                "kind": "victim",
                "architecture": self.architecture,
                "name": self.name,
                "labels": list(self.labels),
                "sample_rate": self.sample_rate,
                **card,
                "sha256": self.sha256,
            },
        )


class BlackBox(External):
    """Answers that torch does not follow: a subclass gives ``ask``, ``[B, T] -> [B, K]`` in NumPy."""

    differentiable = False
    probabilities = False
    """Whether ``ask`` gives probabilities, whose logarithms are then the logits."""

    def forward(self, waveforms: Tensor, lengths: Tensor | None = None) -> Tensor:
        if waveforms.requires_grad and torch.is_grad_enabled():
            raise InvalidInput(
                f"{self.name} is a black box: it gives answers and no gradients",
                remedy="Use an attack that needs none (random, sparse_rs, one_pixel), or craft against another source "
                "and evaluate on this one",
            )
        clips = waveforms.detach().cpu()
        counts = None if lengths is None else lengths.cpu()
        return run_by_length(self._answer, clips, counts).to(waveforms.device)

    def ask(self, waveforms: Floats) -> Any:
        """Clips of one length ``[B, T]`` in [-1, 1], nothing padded -> ``[B, K]``."""
        raise TypeError(f"{type(self).__name__} does not implement ask")

    def _answer(self, clips: Tensor) -> Tensor:
        batch, time = clips.shape
        require_samples(self, time)
        answer = np.array(self.ask(clips.numpy()), dtype=np.float32)
        wanted = (batch, len(self.labels))
        if answer.shape != wanted:
            raise InvalidInput(
                f"{self.name} answered {list(answer.shape)} where {list(wanted)} is due: "
                f"{batch} clips, {len(self.labels)} labels",
                remedy="Give as many labels as it has classes, in its order",
            )
        if not np.isfinite(answer).all():
            raise InvalidInput(
                f"{self.name} answered {int((~np.isfinite(answer)).sum())} non-finite numbers",
                remedy="Correct the model: such an answer names no class",
            )
        return torch.from_numpy(self._logits(answer) if self.probabilities else answer)

    def _logits(self, answer: Floats) -> Floats:
        total = answer.sum(axis=1)
        if answer.min() < -1e-4 or np.abs(total - 1).max() > 1e-2:
            raise InvalidInput(
                f"{self.name} was said to answer probabilities, but a row sums to "
                f"{total[np.abs(total - 1).argmax()]:.3g} and the least value is {answer.min():.3g}",
                remedy="Leave out probabilities where it answers logits",
            )
        logs: Floats = np.log(answer.clip(1e-30))
        return logs


class CallableVictim(BlackBox):
    """Any Python function from waveforms to answers, such as a client of a service.

    ``fn`` receives float32 ``[B, T]`` in [-1, 1], clips of one length and nothing padded, and
    returns ``[B, K]`` logits, or probabilities where ``probabilities`` says so.

    >>> louder = lambda x: np.stack([np.abs(x).mean(axis=1), np.full(len(x), 0.1)], axis=1)
    >>> CallableVictim(louder, ["loud", "quiet"], 16_000)(torch.full((1, 4), 0.5))
    tensor([[0.5000, 0.1000]])
    """

    def __init__(
        self,
        fn: Callable[[Floats], Any],
        labels: Sequence[str],
        sample_rate: int,
        *,
        name: str = "callable",
        probabilities: bool = False,
        minimum_samples: int = 1,
    ) -> None:
        super().__init__(name=name, labels=labels, sample_rate=sample_rate)
        self.fn, self.probabilities, self.minimum_samples = fn, probabilities, minimum_samples
        self.eval()

    def ask(self, waveforms: Floats) -> Any:
        return self.fn(waveforms)


# ---------------------------------------------------------------- ONNX


@dataclass(frozen=True, slots=True, kw_only=True)
class OnnxCard:
    """What ``FILE.toml`` says of ``FILE`` (``emo18.onnx.toml`` of ``emo18.onnx``)."""

    __pydantic_config__: ClassVar = {"extra": "forbid"}
    sample_rate: int
    labels: tuple[str, ...]
    """In the order of the model's answers."""
    input: str = "waveforms"
    """The name of the input, ``[B, T]`` or ``[B, 1, T]`` in 32 bit; the first output is the answer."""
    standardise: bool = False
    """Bring each clip to zero mean and unit deviation before the model, which does not do it itself."""
    probabilities: bool = False
    minimum_samples: int = 1


class OnnxVictim(BlackBox):
    """A model in an ONNX file, run by onnxruntime (extra ``onnx``), with its card beside it.

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
                remedy='Name its only input in the card: input = "..."',
            )
        self.shape = inputs[card.input]
        if len(self.shape) not in (2, 3):
            raise InvalidInput(
                f"takes an input of {len(self.shape)} dimensions",
                where=path,
                remedy="Export it for waveforms, [batch, time] or [batch, 1, time]",
            )
        self.sha256 = self._files_sha256()
        self.eval()

    def files(self) -> dict[str, bytes]:
        card = self.path.with_name(f"{self.path.name}.toml")
        return {ONNX_FILE: self.path.read_bytes(), f"{ONNX_FILE}.toml": card.read_bytes()}

    def _files_sha256(self) -> str:
        digest = hashlib.sha256()
        for name, data in sorted(self.files().items()):
            digest.update(name.encode() + hashlib.sha256(data).digest())
        return digest.hexdigest()

    def ask(self, waveforms: Floats) -> Any:
        if self.card.standardise:
            waveforms = standardise(torch.from_numpy(waveforms)).numpy()
        batch = self.shape[0]
        if isinstance(batch, int) and batch != 1 and batch != len(waveforms):
            raise InvalidInput(
                f"takes batches of {batch} clips only",
                where=self.path,
                remedy="Export it with a dynamic batch dimension",
            )
        time = self.shape[-1]
        if isinstance(time, int) and time != waveforms.shape[1]:
            raise InvalidInput(
                f"takes clips of {time} samples only, this one has {waveforms.shape[1]}",
                where=self.path,
                remedy="Export it with a dynamic time dimension",
            )
        apart = waveforms[:, None] if batch == 1 else waveforms[None]
        return np.concatenate([self._run(clips) for clips in apart])

    def _run(self, waveforms: Floats) -> Any:
        given = waveforms if len(self.shape) == 2 else waveforms[:, None]
        try:
            return self.session.run(None, {self.card.input: given})[0]
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
    place = path.with_name(f"{path.name}.toml")
    remedy = f'Write {place.name} with, say: sample_rate = 16000, labels = ["anger", "joy"]'
    if not place.is_file():
        raise InvalidInput("has no card beside it", where=path, remedy=remedy)
    try:
        card = TypeAdapter(OnnxCard).validate_python(tomllib.loads(place.read_text("utf-8")))
    except ValidationError as problem:
        first = problem.errors(include_url=False)[0]
        key = ".".join(str(part) for part in first["loc"])
        raise InvalidInput(
            f"{printable(key)}: {first['msg'].lower()}", where=place, remedy=remedy
        ) from problem
    except (OSError, ValueError, RecursionError) as problem:
        raise InvalidInput(
            f"is not a readable TOML file ({printable(str(problem))[:200]})",
            where=place,
            remedy=remedy,
        ) from problem
    if card.sample_rate < 1 or len(card.labels) < 2 or len({*card.labels}) < len(card.labels):
        raise InvalidInput(
            f"sample_rate is {card.sample_rate}, labels are {list(card.labels)}",
            where=place,
            remedy="Give a rate in Hz and two or more different labels",
        )
    return card


def onnx_session(model: str | bytes, *, where: object) -> Any:
    """An onnxruntime session on a file or its bytes, on as many threads as torch has."""
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


# ---------------------------------------------------------------- Hugging Face


class HuggingFaceVictim(External):
    """An audio classifier of transformers that takes waveforms; gradients reach the input."""

    architecture = "hugging_face"

    def __init__(self, source: str, network: Any, extractor: Any) -> None:
        super().__init__(
            name=_title(source), labels=_labels(network), sample_rate=extractor.sampling_rate
        )
        self.network, self.extractor = network, extractor
        self.normalised = bool(extractor.do_normalize)
        hub.let_gradients_through(network)
        config = network.config
        self.minimum_samples = receptive_field(list(config.conv_kernel), list(config.conv_stride))
        self.requires_grad_(False).eval()

    def files(self) -> dict[str, bytes]:
        return hub.files(self.network, self.extractor)

    def forward(self, waveforms: Tensor, lengths: Tensor | None = None) -> Tensor:
        return run_by_length(self._answer, waveforms, lengths)

    def _answer(self, x: Tensor) -> Tensor:
        require_samples(self, x.shape[1])
        if self.normalised:  # as the library's feature extractor does, whose NumPy has no gradient
            x = x - x.mean(dim=1, keepdim=True)
            x = x / (x.square().mean(dim=1, keepdim=True) + 1e-7).sqrt()
        logits: Tensor = self.network(x).logits
        return logits


class HuggingFaceBlackBox(BlackBox):
    """One that takes spectrograms (AST, Whisper), computed by its own feature extractor in NumPy.

    Such a model iterations at a stretch of fixed length: it pads shorter clips and cuts longer ones.
    """

    architecture = "hugging_face"

    def __init__(self, source: str, network: Any, extractor: Any) -> None:
        super().__init__(
            name=_title(source), labels=_labels(network), sample_rate=extractor.sampling_rate
        )
        self.network, self.extractor = network, extractor
        self.minimum_samples = ANALYSIS_WINDOW
        self.requires_grad_(False).eval()

    def files(self) -> dict[str, bytes]:
        return hub.files(self.network, self.extractor)

    def ask(self, waveforms: Floats) -> Any:
        features = self.extractor(
            list(waveforms), sampling_rate=self.sample_rate, return_tensors="pt"
        ).to(self.device)
        with torch.no_grad():
            return self.network(**features).logits.cpu().numpy()


def hugging_face(source: str) -> External:
    """The audio classifier of a hub name or a local folder, with its own front end and labels.

    Raises ``InvalidInput`` where it cannot be had, or has no trained classification head.
    """
    config, extractor = hub.read_config(source), hub.read_extractor(source)
    network = hub.read_model(hub.library().AutoModelForAudioClassification, source, config=config)
    waveform = type(extractor).__name__ == WAVEFORM_EXTRACTOR
    kind = HuggingFaceVictim if waveform else HuggingFaceBlackBox
    victim = kind(source, network, extractor)
    victim.sha256 = str(tensors_sha256(victim))
    return victim


def _title(source: str) -> str:
    return source.rstrip("/").rsplit("/", 1)[-1]


def _labels(network: Any) -> list[str]:
    names = network.config.id2label
    return [str(names[number]) for number in range(network.config.num_labels)]
