"""The head of many published models of speech emotion, which the transformers library does not have.

Their authors call the class ``Wav2Vec2ForSpeechClassification``: the mean over time, ``classifier.dense``,
tanh, ``classifier.out_proj``. Loaded by the library's classes, such a head would be random.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

from staanet.errors import InvalidInput
from staanet.victims import hub

PREFIXES = {"wav2vec2": "Wav2Vec2", "hubert": "Hubert", "wavlm": "WavLM"}
"""The library's classes of these models, by the type in the configuration."""
POOLING = {
    "mean": lambda hidden: hidden.mean(dim=1),
    "sum": lambda hidden: hidden.sum(dim=1),
    "max": lambda hidden: hidden.amax(dim=1),
}


class SpeechHead(nn.Module):
    """Two layers on the pooled frames, ``[B, T, H] -> [B, K]``."""

    def __init__(self, hidden_size: int, labels: int, pooling: str) -> None:
        super().__init__()
        self.dense = nn.Linear(hidden_size, hidden_size)
        self.out_proj = nn.Linear(hidden_size, labels)
        self.pooling = pooling

    def forward(self, hidden: Tensor) -> Tensor:
        logits: Tensor = self.out_proj(torch.tanh(self.dense(POOLING[self.pooling](hidden))))
        return logits


def read_classifier(source: str, config: Any) -> Any:
    """The library's classifier with the weights of ``source``, or its encoder with a ``SpeechHead``.

    Raises ``InvalidInput`` with the names of the missing weights where neither fits.
    """
    automatic = hub.library().AutoModelForAudioClassification
    try:
        return hub.read_model(automatic, source, config=config)
    except InvalidInput as problem:
        if config.model_type not in PREFIXES or "has no fitting weights" not in problem.what:
            raise
        try:
            return hub.read_model(speech_classifier(config.model_type), source, config=config)
        except InvalidInput as other:
            if any(key in other.what for key in ("classifier.dense", "classifier.out_proj")):
                raise problem from None  # it has no such head, either
            raise


def has_speech_head(network: Any) -> bool:
    """Whether the classifier of a model is a ``SpeechHead``."""
    return isinstance(getattr(network, "classifier", None), SpeechHead)


def untrained_speech_classifier(config: Mapping[str, Any]) -> Any:
    """An encoder of this configuration with a ``SpeechHead``, with random weights."""
    kind = speech_classifier(str(config["model_type"]))
    return kind(hub.library().AutoConfig.for_model(**config))


@functools.cache
def speech_classifier(model_type: str) -> Any:
    """The encoder of this type with a ``SpeechHead``, as a class of the library."""
    library, prefix = hub.library(), PREFIXES[model_type]
    encoder = getattr(library, f"{prefix}Model")
    base: Any = getattr(library, f"{prefix}PreTrainedModel")

    class ForSpeechClassification(base):  # type: ignore[misc]
        def __init__(self, config: Any) -> None:
            super().__init__(config)
            pooling = getattr(config, "pooling_mode", "mean")
            if pooling not in POOLING:
                raise InvalidInput(
                    f"pools by '{pooling}', which is unknown", remedy=f"Known: {', '.join(POOLING)}"
                )
            self.add_module(self.base_model_prefix, encoder(config))
            self.classifier = SpeechHead(config.hidden_size, config.num_labels, pooling)
            self.post_init()

        def forward(self, input_values: Tensor) -> SimpleNamespace:
            hidden = getattr(self, self.base_model_prefix)(input_values).last_hidden_state
            return SimpleNamespace(logits=self.classifier(hidden))

    ForSpeechClassification.__name__ = f"{prefix}ForSpeechClassification"
    return ForSpeechClassification
