"""Audio classifiers of the transformers library, from the hub or a local folder (extra ``ssl``)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from staanet.core.victim import tensors_sha256
from staanet.nn.padding import receptive_field, require_samples, run_by_length
from staanet.victims import hub
from staanet.victims.external import BlackBox, External, Floats

WAVEFORM_EXTRACTOR = "Wav2Vec2FeatureExtractor"
ANALYSIS_WINDOW = 400
"""Samples of the 25 ms window of every spectrogram front end in use at 16 kHz."""


class HuggingFaceVictim(External):
    """A classifier that takes waveforms; gradients reach the input."""

    architecture = "hugging_face"

    def __init__(self, source: str, network: Any, extractor: Any) -> None:
        super().__init__(
            name=_title(source), labels=_labels(network), sample_rate=extractor.sampling_rate
        )
        self.network, self.extractor = network, extractor
        self.normalised = bool(extractor.do_normalize)
        hub.allow_input_gradients(network)
        config = network.config
        self.minimum_samples = receptive_field(list(config.conv_kernel), list(config.conv_stride))
        self.requires_grad_(False).eval()

    def model_files(self) -> dict[str, bytes]:
        return hub.model_files(self.network, self.extractor)

    def forward(self, waveforms: Tensor, lengths: Tensor | None = None) -> Tensor:
        return run_by_length(self._logits_of, waveforms, lengths)

    def _logits_of(self, x: Tensor) -> Tensor:
        require_samples(self, x.shape[1])
        if self.normalised:  # as the library's feature extractor does, whose NumPy has no gradient
            x = x - x.mean(dim=1, keepdim=True)
            x = x / (x.square().mean(dim=1, keepdim=True) + 1e-7).sqrt()
        logits: Tensor = self.network(x).logits
        return logits


class HuggingFaceBlackBox(BlackBox):
    """A classifier that takes spectrograms (AST, Whisper), computed in NumPy by its own extractor.

    Such a model takes clips of a fixed length: the extractor pads shorter clips and cuts longer ones.
    """

    architecture = "hugging_face"

    def __init__(self, source: str, network: Any, extractor: Any) -> None:
        super().__init__(
            name=_title(source), labels=_labels(network), sample_rate=extractor.sampling_rate
        )
        self.network, self.extractor = network, extractor
        self.minimum_samples = ANALYSIS_WINDOW
        self.requires_grad_(False).eval()

    def model_files(self) -> dict[str, bytes]:
        return hub.model_files(self.network, self.extractor)

    def predict(self, waveforms: Floats) -> Any:
        features = self.extractor(
            list(waveforms), sampling_rate=self.sample_rate, return_tensors="pt"
        ).to(self.device)
        with torch.no_grad():
            return self.network(**features).logits.cpu().numpy()


def hugging_face(source: str) -> External:
    """The audio classifier of a hub name or a local folder, with its own front end and labels.

    Raises ``InvalidInput`` where it cannot be loaded, or has no trained classification head.
    """
    config, extractor = hub.read_config(source), hub.read_extractor(source)
    network = hub.read_model(hub.library().AutoModelForAudioClassification, source, config=config)
    takes_waveforms = type(extractor).__name__ == WAVEFORM_EXTRACTOR
    kind = HuggingFaceVictim if takes_waveforms else HuggingFaceBlackBox
    victim = kind(source, network, extractor)
    victim.sha256 = str(tensors_sha256(victim))
    return victim


def _title(source: str) -> str:
    return source.rstrip("/").rsplit("/", 1)[-1]


def _labels(network: Any) -> list[str]:
    names = network.config.id2label
    return [str(names[index]) for index in range(network.config.num_labels)]
