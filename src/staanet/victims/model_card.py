"""Says what a model that was made elsewhere takes and answers; for a file, a TOML card does."""

from __future__ import annotations

import dataclasses
import math
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from pydantic import TypeAdapter, ValidationError
from torch import Tensor

from staanet.core import standardise
from staanet.errors import InvalidInput, printable

InputShape = Literal["[B, T]", "[B, 1, T]"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelCard:
    """The settings of a model; ``FILE.toml`` gives those of ``FILE`` (``emo18.onnx.toml``)."""

    __pydantic_config__: ClassVar = {"extra": "forbid"}
    sample_rate: int
    """The rate in Hz at which the model takes its clips."""
    labels: tuple[str, ...]
    """In the order of the model's outputs."""
    input: str = ""
    """The name of the waveform among the inputs of an ONNX file; empty where there is one."""
    input_shape: InputShape = "[B, T]"
    """Whether there is an axis for the channel. An ONNX file says so itself."""
    standardise: bool = False
    """Bring each clip to zero mean and unit deviation before the model, which does not do it itself."""
    output: str | int | None = None
    """Which of several outputs is the answer, by name or by index; None where there is one, or where
    one is called ``logits``."""
    probabilities: bool = False
    """Whether the answer is probabilities, whose logarithms are then the logits."""
    minimum_samples: int = 1
    """The length of the shortest clip that the model takes."""
    samples: int = 0
    """The only length that the model takes; 0 for any. Longer clips are cut at their end."""
    tolerance: tuple[float, ...] = ()
    """Where it answers numbers such as arousal, named by the labels: the change of each that counts."""
    fill: Literal["tile", "zeros"] = "tile"
    """What follows a clip that is shorter than ``samples``: itself again, or zeros."""

    def as_toml(self) -> str:
        """The card as text: what differs from the defaults."""
        import tomli_w

        usual = {f.name: f.default for f in dataclasses.fields(self)}
        values = {k: v for k, v in dataclasses.asdict(self).items() if v != usual[k]}
        return tomli_w.dumps({**values, "labels": list(self.labels)})

    def check(self, where: object) -> None:
        """Raise ``InvalidInput`` where no model can be like that."""
        check_rate(self.sample_rate, where)
        words = [label for label in self.labels if isinstance(label, str) and label.strip()]
        wrong = ""
        if len({*words}) < max(len(self.labels), 1 if self.tolerance else 2):
            wrong = f"labels are {printable(str(list(self.labels)))[:200]}"
        elif self.tolerance and (
            len(self.tolerance) != len(words) or not all(0 < x < math.inf for x in self.tolerance)
        ):
            wrong = f"tolerance is {list(self.tolerance)}, not a positive number for each label"
        elif self.minimum_samples < 1 or self.samples < 0:
            wrong = f"minimum_samples is {self.minimum_samples}, samples is {self.samples}"
        elif self.input_shape not in ("[B, T]", "[B, 1, T]"):
            wrong = f"input_shape is {self.input_shape!r:.40}, neither '[B, T]' nor '[B, 1, T]'"
        if wrong:
            raise InvalidInput(
                wrong,
                where=where,
                remedy="Give two or more different labels, and settings that fit",
            )

    def prepare(self, clips: Tensor) -> Tensor:
        """What the model receives, ``[B, T] -> [B, T']`` or ``[B, 1, T']``.

        >>> card = ModelCard(sample_rate=8000, labels=("a", "b"), samples=3)
        >>> card.prepare(torch.tensor([[0.1, 0.2]]))
        tensor([[0.1000, 0.2000, 0.1000]])
        """
        if self.standardise:
            clips = standardise(clips)
        if self.samples:
            clips = self._fit(clips)
        return clips if self.input_shape == "[B, T]" else clips[:, None]

    def _fit(self, clips: Tensor) -> Tensor:
        time = clips.shape[1]
        if time < self.samples and self.fill == "tile":
            clips = clips.repeat(1, -(-self.samples // time))
        return F.pad(clips, (0, max(0, self.samples - time)))[:, : self.samples]

    @property
    def note(self) -> str:
        """What a reader of figures has to know of a fixed length; empty where any length is taken."""
        if not self.samples:
            return ""
        filled = "repeated" if self.fill == "tile" else "followed by zeros"
        seconds = f"{self.samples / self.sample_rate:.3g} s"
        return (
            f"takes clips of {self.samples} samples ({seconds}) only: shorter ones are {filled}, "
            "longer ones are cut there"
        )


def select_output(name: str, outputs: Any, output: str | int | None) -> Any:
    """The answer among what a model returns: a tensor, a tuple, a dictionary or a ``ModelOutput``.

    Raises ``InvalidInput`` where there are several and nothing says which, or there is no such output.

    >>> select_output("model", {"hidden": 1, "logits": 2}, None)
    2
    """
    if isinstance(outputs, Tensor) and output is None:
        return outputs
    named = _outputs_by_name(outputs)
    if output is None:
        if len(named) == 1 or "logits" in named:
            return named.get("logits", next(iter(named.values())))
    elif isinstance(output, int) and -len(named) <= output < len(named):
        return [*named.values()][output]
    elif output in named:
        return named[output]
    listing = ", ".join(f"{key!s} {_shape(value)}" for key, value in named.items()) or "nothing"
    which = "" if output is None else f", and none is {output!r:.60}"
    raise InvalidInput(
        f"{name} answers {len(named)} outputs ({printable(listing)[:300]}){which}",
        remedy="Say which holds one number per class: output, by its name or its index",
    )


def _outputs_by_name(outputs: Any) -> Mapping[Any, Any]:
    """What a model returns, each part under its name or its index."""
    if isinstance(outputs, Mapping):
        return outputs
    if hasattr(outputs, "_asdict"):
        return dict(outputs._asdict())
    if dataclasses.is_dataclass(outputs) and not isinstance(outputs, type):
        return {f.name: getattr(outputs, f.name) for f in dataclasses.fields(outputs)}
    if isinstance(outputs, list | tuple):
        return dict(enumerate(outputs))
    return {0: outputs}


def _shape(value: Any) -> str:
    return str(list(value.shape)) if hasattr(value, "shape") else type(value).__name__


def label_names(labels: Sequence[str], where: object) -> tuple[str, ...]:
    """Labels as a tuple; ``InvalidInput`` where they are one text, whose letters would be the classes.

    >>> label_names(["anger", "joy"], "model")
    ('anger', 'joy')
    """
    if isinstance(labels, str):
        raise InvalidInput(
            f"its labels are one text, {printable(labels)!r:.60}",
            where=where,
            remedy='Give a list of texts, such as ["anger", "joy"]',
        )
    return tuple(labels)


def check_rate(sample_rate: int, where: object) -> None:
    """Raise ``InvalidInput`` where a sample rate is no whole number of Hz from 1000 to 192000."""
    is_whole = isinstance(sample_rate, int) and not isinstance(sample_rate, bool)
    if not is_whole or not 1000 <= sample_rate <= 192_000:
        raise InvalidInput(
            f"sample_rate is {sample_rate}, not a whole number from 1000 to 192000",
            where=where,
            remedy="Give a rate in Hz, such as 16000",
        )


def check_outputs(name: str, labels: Sequence[str], outputs: Any, batch: int) -> None:
    """Raise ``InvalidInput`` where outputs are no finite numbers ``[batch, labels]``."""
    if not isinstance(outputs, Tensor):
        raise InvalidInput(
            f"{name} answered {type(outputs).__name__}, no tensor",
            remedy="Return a tensor of one number per class, or say which output is one",
        )
    expected = (batch, len(labels))
    if tuple(outputs.shape) != expected:
        raise InvalidInput(
            f"{name} answered {list(outputs.shape)} where {list(expected)} is due: "
            f"{batch} clips, {len(labels)} labels",
            remedy="Give as many labels as it has classes, in its order",
        )
    finite = torch.isfinite(outputs.detach())
    if not bool(finite.all()):
        raise InvalidInput(
            f"{name} answered {int((~finite).sum())} non-finite numbers",
            remedy="Correct the model: such an answer names no class",
        )


def logits_from_probabilities(name: str, outputs: Tensor) -> Tensor:
    """The logarithms of probabilities ``[B, K]``; ``InvalidInput`` where the rows are none."""
    total, least = outputs.detach().sum(dim=1), float(outputs.detach().min())
    error = (total - 1).abs()
    if least < -1e-4 or float(error.max()) > 1e-2:
        raise InvalidInput(
            f"{name} was said to answer probabilities, but a row sums to "
            f"{float(total[error.argmax()]):.3g} and the least value is {least:.3g}",
            remedy="Leave out probabilities where it answers logits",
        )
    return outputs.clamp_min(1e-30).log()


def card_path(path: Path) -> Path:
    """Where the card of a model's file is: ``FILE.toml``."""
    return path.with_name(f"{path.name}.toml")


def read_model_card(path: Path, scheme: str, about: Mapping[str, Any] | None = None) -> ModelCard:
    """The card beside a model's file; ``InvalidInput`` says which key is missing or wrong.

    ``about`` holds the keys that the file itself gives; the card has priority, and may then be missing.
    """
    if not path.is_file():
        raise InvalidInput("no such file", where=path, remedy=f"Give a file: {scheme}:FILE")
    card_file = card_path(path)
    table = dict(about or {})
    remedy = f'Write {card_file.name} with, say: sample_rate = 16000, labels = ["anger", "joy"]'
    if not card_file.is_file() and not {"labels", "sample_rate"} <= table.keys():
        raise InvalidInput("has no card beside it", where=path, remedy=remedy)
    try:
        if card_file.is_file():
            table |= tomllib.loads(card_file.read_text("utf-8"))
        card = TypeAdapter(ModelCard).validate_python(table)
    except ValidationError as problem:
        first = problem.errors(include_url=False)[0]
        key = ".".join(str(part) for part in first["loc"])
        raise InvalidInput(
            f"{printable(key)}: {first['msg'].lower()}", where=card_file, remedy=remedy
        ) from problem
    except (OSError, ValueError, RecursionError) as problem:
        raise InvalidInput(
            f"is not a readable TOML file ({printable(str(problem))[:200]})",
            where=card_file,
            remedy=remedy,
        ) from problem
    card.check(card_file)
    return card
