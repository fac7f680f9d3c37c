"""``Victim``: the classifier under study, with its preprocessing and its card."""

from __future__ import annotations

import hashlib
import math
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

import torch
from torch import Tensor, nn

from staanet import storage
from staanet.config import SAMPLE_RATE
from staanet.errors import InvalidInput, printable


class Victim(nn.Module):
    """A model under study: ``[B, T]`` waveforms in [-1, 1] -> ``[B, K]`` logits, or numbers.

    A regression victim, such as of arousal and valence, has a ``tolerance``; its labels name its numbers.

    It owns its preprocessing: each clip is standardised, ``(x - mean) / std``, over its own
    ``lengths``, so that whoever calls it, trains against it or attacks it, sees the same function.
    A subclass implements ``logits`` on standardised clips and gives its smallest usable clip.
    """

    architecture: ClassVar[str]
    origin: str
    """How it was named when it was loaded: a folder, ``hf:...``, ``onnx:...`` or ``shipped:NAME``.
    Empty for a model that was built in memory."""
    minimum_samples: int = 1
    differentiable: bool = True
    """False for a black box, which raises where a gradient is needed."""
    forward_passes: int = 1
    """How often the model inside runs for one answer: a mean over draws asks for each."""
    exact_gradient: bool = True
    """False where the gradient is that of a differentiable stand-in (BPDA)."""
    may_abstain: bool = False
    """Whether it has ``abstains(waveforms, lengths) -> [B]`` bool: a detector stands before it."""
    randomised: bool = False
    """Whether answers are drawn: an attacker follows their mean (EOT)."""

    own_labels: tuple[str, ...] = ()
    """What its labels were called before they were brought to the words of clips; empty: as they are."""
    tolerance: tuple[float, ...] = ()
    """Of a regression victim: the change of each of its numbers that counts as a changed answer."""

    def __init__(
        self,
        *,
        name: str,
        labels: Sequence[str],
        sample_rate: int = SAMPLE_RATE,
        tolerance: Sequence[float] = (),
    ) -> None:
        super().__init__()
        self.tolerance = tuple(tolerance)
        self.name, self.labels, self.sample_rate = name, tuple(labels), sample_rate
        self.origin = ""
        self._sha256: str | None = None
        self._token = uuid.uuid4().hex[:8]

    @property
    def task(self) -> Literal["classification", "regression"]:
        """``regression`` where it answers with numbers, whose names are its labels."""
        return "regression" if self.tolerance else "classification"

    @property
    def class_labels(self) -> tuple[str, ...]:
        """The classes that an attack can aim at; none where it answers with numbers."""
        return () if self.task == "regression" else self.labels

    @property
    def device(self) -> torch.device:
        """Where its weights are, and its input has to be."""
        return next((weight.device for weight in self.parameters()), torch.device("cpu"))

    @property
    def sha256(self) -> str | None:
        """The hash that identifies the model: that of its card once it is saved or loaded, else the
        computed one. ``None`` if there is none, as for a function that holds a connection."""
        return self._sha256 or self.compute_sha256()

    @sha256.setter
    def sha256(self, digest: str) -> None:
        self._sha256 = digest

    def compute_sha256(self) -> str | None:
        """The sha256 of the model's content, by default its tensors; ``None`` without any."""
        return tensors_sha256(self)

    @property
    def identity(self) -> str:
        """``sha256``, or words that no other run has: such work cannot be resumed."""
        return self.sha256 or f"a model without a hash, not resumable ({self._token})"

    def forward(self, waveforms: Tensor, lengths: Tensor | None = None) -> Tensor:
        return self.logits(standardise(waveforms, lengths), lengths)

    def abstains(self, waveforms: Tensor, lengths: Tensor | None = None) -> Tensor:
        """``[B, T] -> [B]`` bool: which clips get no answer; none where ``may_abstain`` is False."""
        return torch.zeros(len(waveforms), dtype=torch.bool, device=waveforms.device)

    def logits(self, standardised: Tensor, lengths: Tensor | None) -> Tensor:
        """``[B, T]`` standardised clips, zero beyond their ``lengths`` -> ``[B, K]``."""
        raise TypeError(f"{type(self).__name__} does not implement logits")

    @property
    def output_layer(self) -> nn.Linear:
        """The last layer of a network that can be trained: one output per label."""
        raise TypeError(f"{type(self).__name__} does not name its last layer")

    @property
    def weights(self) -> nn.Module:
        """Whose tensors are saved and read: itself, or a part that another library knows by name."""
        return self

    def settings(self) -> dict[str, Any]:
        """What, besides labels and sample rate, is needed to build this network again."""
        return {}

    def save_pretrained(self, folder: Path | str, **card: Any) -> None:
        """Write ``model.safetensors`` and ``card.json``; ``card`` adds to the card's content."""
        self.sha256 = storage.save_model(
            Path(folder),
            kind="victim",
            tensors=self.weights.state_dict(),
            card={
                "architecture": self.architecture,
                "name": self.name,
                "labels": list(self.labels),
                "sample_rate": self.sample_rate,
                "settings": self.settings(),
                **({"tolerance": list(self.tolerance)} if self.tolerance else {}),
                **card,
            },
        )

    @classmethod
    def from_pretrained(cls, folder: Path | str) -> Self:
        """Read what ``save_pretrained`` wrote, frozen and in ``eval()``.

        Raises ``InvalidInput`` where card and weights do not fit each other or this class.
        """
        tensors, card = storage.load_model(Path(folder), kind="victim")
        if card.get("architecture") != cls.architecture:
            raise InvalidInput(
                f"holds a '{card.get('architecture')}', not a '{cls.architecture}'",
                where=folder,
                remedy="Load it with staanet.load_victim",
            )
        check_victim_card(card, Path(folder))
        victim = storage.build_from_card(
            lambda: cls(
                name=card["name"],
                labels=card["labels"],
                sample_rate=card["sample_rate"],
                **card["settings"],
            ),
            folder,
        )
        storage.fill_module(victim.weights, tensors, folder)
        victim.tolerance = tuple(card.get("tolerance", ()))
        victim.sha256 = card["sha256"]
        return victim.requires_grad_(False).eval()


def tensors_sha256(module: nn.Module) -> str | None:
    """The sha256 of a module's names and tensors; ``None`` if it has none."""
    state = module.state_dict()
    digest = hashlib.sha256()
    for name, tensor in sorted(state.items()):
        raw = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
        digest.update(name.encode() + raw.numpy().tobytes())
    return digest.hexdigest() if state else None


def check_victim_card(card: Mapping[str, Any], folder: Path) -> None:
    """Checks the card of a victim; raises ``InvalidInput`` where its values are impossible."""
    name, labels, rate = card.get("name"), card.get("labels"), card.get("sample_rate")
    wrong = ""
    if not isinstance(name, str) or not 0 < len(name) <= 200 or not _is_word(name):
        wrong = "its name is no word"  # folders are called by it
    elif not isinstance(rate, int) or isinstance(rate, bool) or not 1000 <= rate <= 192_000:
        wrong = f"its sample rate is {rate!r:.40}, not a whole number from 1000 to 192000"
    elif not isinstance(labels, list) or not all(isinstance(x, str) and x for x in labels):
        wrong = "its labels are no list of words"
    elif len(set(labels)) < max(1 if "tolerance" in card else 2, len(labels)):
        wrong = f"it has {len(set(labels))} different labels, of {len(labels)}"
    elif not _is_tolerance(card.get("tolerance", [1.0] * len(labels)), len(labels)):
        wrong = "its tolerance is not a positive number for each of its labels"
    if wrong:
        raise InvalidInput(
            wrong, where=folder / storage.CARD, remedy="Copy the folder again, or train again"
        )


def _is_tolerance(values: object, count: int) -> bool:
    return (
        isinstance(values, list)
        and len(values) == count
        and all(isinstance(x, int | float) and 0 < x < math.inf for x in values)
    )


def _is_word(name: str) -> bool:
    return name == printable(name) and name[0] != "." and not {*name} & {"/", "\\"}


def standardise(waveforms: Tensor, lengths: Tensor | None = None) -> Tensor:
    """Standardises each clip to zero mean and unit (population) deviation, ``[B, T]``.

    Samples beyond ``lengths`` stay 0; a clip without any movement gives zeros, never NaN.

    >>> standardise(torch.tensor([[0.1, 0.3, 0.0]]), torch.tensor([2])).round(decimals=3) + 0
    tensor([[-1.,  1.,  0.]])
    """
    _, time = waveforms.shape
    if lengths is None:
        centred = waveforms - waveforms.mean(dim=1, keepdim=True)
        variance = centred.square().mean(dim=1, keepdim=True)
        return centred / variance.clamp_min(1e-12).sqrt()  # in this order: silence has a gradient
    inside = valid_mask(lengths, time)
    count = lengths[:, None].to(waveforms.dtype)
    centred = (waveforms - (waveforms * inside).sum(dim=1, keepdim=True) / count) * inside
    variance = centred.square().sum(dim=1, keepdim=True) / count
    return centred / variance.clamp_min(1e-12).sqrt()


def valid_mask(lengths: Tensor, time: int) -> Tensor:
    """``[B] -> [B, time]``: True at samples that belong to the clip.

    >>> valid_mask(torch.tensor([1, 2]), 2)
    tensor([[ True, False],
            [ True,  True]])
    """
    return torch.arange(time, device=lengths.device)[None] < lengths[:, None]
