"""Wraps any torch module, or differentiable function of a waveform, as a white-box victim."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from staanet.core.victim import tensors_sha256
from staanet.errors import InvalidInput
from staanet.nn.padding import require_samples, run_by_length
from staanet.victims.code_hash import callable_sha256
from staanet.victims.external import External, user_errors
from staanet.victims.model_card import (
    InputShape,
    ModelCard,
    check_outputs,
    label_names,
    logits_from_probabilities,
    select_output,
)

_RECURRENT = frozenset({"LSTM", "GRU", "RNN"})


class TorchVictim(External):
    """A ``torch.nn.Module``, or a function of torch operations, whose gradients reach the waveform.

    The module goes into ``eval()`` and its weights are frozen. It never sees padding: the clips of each
    length pass separately. An exception in it becomes a ``VictimError`` for the clip. Where it takes no
    short clips, set ``victim.minimum_samples``.

    >>> module = nn.Sequential(nn.Unflatten(1, (1, -1)), nn.Conv1d(1, 2, 9), nn.AdaptiveMaxPool1d(1), nn.Flatten())
    >>> victim = TorchVictim(module, ["loud", "quiet"], 16_000)
    >>> victim(torch.zeros(3, 1600)).shape
    torch.Size([3, 2])

    Args:
        module: From float32 ``[B, T]`` (or ``[B, 1, T]``) in [-1, 1] to ``[B, K]``.
        labels: The K classes in the order of the outputs.
        sample_rate: The rate in Hz at which it takes its clips.
        name: The victim's name in tables and folders; by default the class of the module.
        input_shape: ``"[B, T]"``, or ``"[B, 1, T]"`` where it has an axis for the channel.
        standardise: Bring each clip to zero mean and unit deviation first.
        output: Which of several outputs is the answer, by index or name; by default the only one, or
            that called ``logits``.
        probabilities: Whether the answer is probabilities rather than logits.

    Raises:
        InvalidInput: Labels or rate cannot be, or an answer is not finite or not ``[B, K]``.
    """

    architecture = "torch"

    def __init__(
        self,
        module: Callable[..., Any],
        labels: Sequence[str],
        sample_rate: int,
        *,
        name: str | None = None,
        input_shape: InputShape = "[B, T]",
        standardise: bool = False,
        output: str | int | None = None,
        probabilities: bool = False,
    ) -> None:
        kind = type(module) if isinstance(module, nn.Module) else module
        name = name or getattr(kind, "__name__", "torch").strip("<>")
        if not callable(module):
            raise InvalidInput(
                f"{name} is no module and no function", remedy="Give a torch.nn.Module"
            )
        card = ModelCard(
            labels=label_names(labels, name),
            sample_rate=sample_rate,
            input_shape=input_shape,
            standardise=standardise,
            output=output,
            probabilities=probabilities,
        )
        card.check(name)
        super().__init__(name=name, labels=card.labels, sample_rate=sample_rate)
        self.card, self.module = card, module
        self.requires_grad_(False).eval()
        self._module_sha256 = callable_sha256(module)  # now, before calls change what it remembers
        if self._module_sha256 is None and isinstance(module, nn.Module):
            self._module_sha256 = tensors_sha256(module)
        layers = self.modules()
        kinds = {getattr(layer, "original_name", type(layer).__name__) for layer in layers}
        self._is_recurrent = not kinds.isdisjoint(_RECURRENT)

    @property
    def card(self) -> ModelCard:
        """What the module takes and answers."""
        return self._card

    @card.setter
    def card(self, card: ModelCard) -> None:
        self._card, self.minimum_samples = card, card.minimum_samples
        self.tolerance = card.tolerance

    @property
    def notes(self) -> tuple[str, ...]:
        return (self.card.note,) if self.card.note else ()

    def compute_sha256(self) -> str | None:
        """The hash of weights, code and settings; None for a function that holds a connection."""
        if self._module_sha256 is None:
            return None
        return hashlib.sha256(f"{self._module_sha256} {self.card}".encode()).hexdigest()

    def forward(self, waveforms: Tensor, lengths: Tensor | None = None) -> Tensor:
        logits = run_by_length(self._logits_of, waveforms, lengths)
        if waveforms.requires_grad and torch.is_grad_enabled() and not logits.requires_grad:
            raise InvalidInput(
                f"{self.name} answers without a gradient: it detaches, or runs under no_grad",
                remedy="Correct its forward, or give it as a black box: staanet.CallableVictim",
            )
        return logits

    def _logits_of(self, clips: Tensor) -> Tensor:
        require_samples(self, clips.shape[1])
        # cuDNN differentiates a recurrent layer in train() only
        with user_errors(self.name), torch.backends.cudnn.flags(enabled=not self._is_recurrent):
            outputs = self.module(self.card.prepare(clips))
        outputs = select_output(self.name, outputs, self.card.output)
        check_outputs(self.name, self.labels, outputs, len(clips))
        outputs = outputs.float()
        return logits_from_probabilities(self.name, outputs) if self.card.probabilities else outputs
