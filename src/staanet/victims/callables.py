"""Wraps any Python function, such as a service client, as a victim without gradient."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from staanet.errors import InvalidInput, printable
from staanet.victims.code_hash import callable_sha256
from staanet.victims.external import BlackBox, Floats
from staanet.victims.model_card import check_rate, label_names


class CallableVictim(BlackBox):
    """A Python function from waveforms to outputs, as a victim without gradient.

    The function receives a copy of the samples, so that it may change them in place. An exception in it
    becomes a ``VictimError`` for the clip, and a run goes on with the other clips. ``sha256`` is that of
    its code and of what it uses, or None where it uses something without a hash, such as a connection;
    then a run cannot be resumed.

    >>> import numpy as np, torch
    >>> loudness = lambda x: np.stack([np.abs(x).mean(axis=1), np.full(len(x), 0.1)], axis=1)
    >>> CallableVictim(loudness, ["loud", "quiet"], 16_000)(torch.full((1, 4), 0.5))
    tensor([[0.5000, 0.1000]])

    Args:
        fn: Receives float32 ``[B, T]`` in [-1, 1], clips of one length without padding, and returns
            ``[B, K]``.
        labels: The K classes in the order of the outputs.
        sample_rate: The rate in Hz at which ``fn`` takes its clips.
        name: The victim's name in tables and folders.
        probabilities: Whether ``fn`` returns probabilities rather than logits.
        minimum_samples: The length of the shortest clip that ``fn`` takes.
        tolerance: Where ``fn`` returns numbers such as arousal, named by ``labels``: the change of each
            that counts as a changed answer.

    Raises:
        InvalidInput: A label is no text, or the rate is no whole number from 1000 to 192000.
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
        tolerance: Sequence[float] = (),
    ) -> None:
        check_rate(sample_rate, name)
        labels = label_names(labels, name)
        if not all(isinstance(label, str) for label in labels):
            raise InvalidInput(
                f"its labels are {printable(str(list(labels)))[:200]}",
                where=name,
                remedy='Give them as text, such as ["anger", "joy"]',
            )
        super().__init__(name=name, labels=labels, sample_rate=sample_rate, tolerance=tolerance)
        self.fn, self.probabilities, self.minimum_samples = fn, probabilities, minimum_samples
        self._code_sha256 = callable_sha256(fn)  # now, before calls change what it remembers
        self.eval()

    def compute_sha256(self) -> str | None:
        """The hash of the function's code and of the values that it uses; None where it holds a
        connection."""
        return self._code_sha256

    def predict(self, waveforms: Floats) -> Any:
        return self.fn(waveforms)
