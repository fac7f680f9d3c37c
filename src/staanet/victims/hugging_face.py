"""Audio classifiers of the transformers library, from the hub or a local folder (extra ``ssl``)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from staanet.core.victim import tensors_sha256
from staanet.nn.front_ends import KaldiLogMel, Normalise, WhisperLogMel
from staanet.nn.padding import receptive_field, require_samples, run_by_length
from staanet.victims import hub
from staanet.victims.external import BlackBox, External, Floats
from staanet.victims.labels import are_dimensions, default_tolerance
from staanet.victims.speech_head import read_classifier

ANALYSIS_WINDOW = 400
"""Samples of the 25 ms window of every spectrogram front end in use at 16 kHz."""


class HuggingFaceVictim(External):
    """A classifier whose front end is differentiable: gradients reach the waveform.

    One that takes spectrograms (AST, Whisper) takes clips of a fixed length: shorter clips are padded and
    longer ones cut.
    """

    architecture = "hugging_face"

    def __init__(self, source: str, network: Any, extractor: Any, front_end: nn.Module) -> None:
        super().__init__(
            name=_title(source), labels=_labels(network), sample_rate=extractor.sampling_rate
        )
        self.network, self.extractor, self.front_end = network, extractor, front_end
        hub.allow_input_gradients(network)
        config = network.config
        self.normalised = isinstance(front_end, Normalise)
        self.takes_waveforms = self.normalised or isinstance(front_end, nn.Identity)
        self.minimum_samples = (
            receptive_field(list(config.conv_kernel), list(config.conv_stride))
            if self.takes_waveforms
            else ANALYSIS_WINDOW
        )
        self.requires_grad_(False).eval()

    def model_files(self) -> dict[str, bytes]:
        return hub.model_files(self.network, self.extractor)

    def forward(self, waveforms: Tensor, lengths: Tensor | None = None) -> Tensor:
        return run_by_length(self._logits_of, waveforms, lengths)

    def _logits_of(self, x: Tensor) -> Tensor:
        require_samples(self, x.shape[1])
        logits: Tensor = self.network(self.front_end(x)).logits
        return logits


class HuggingFaceBlackBox(BlackBox):
    """A classifier whose front end has no gradient, because its extractor computes in NumPy."""

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
    """The audio classifier of a hub name or a local folder, with its front end and labels.

    Raises ``InvalidInput`` where it cannot be loaded, or has no trained classification head.
    """
    config = hub.read_config(source)
    folder = Path(source).expanduser()
    if folder.is_dir() and not (folder / "preprocessor_config.json").is_file():
        extractor, note = hub.default_extractor(config)
    else:
        extractor, note = hub.read_extractor(source), ""
    network = read_classifier(source, config)
    front_end = build_front_end(extractor)
    victim = (
        HuggingFaceBlackBox(source, network, extractor)
        if front_end is None
        else HuggingFaceVictim(source, network, extractor, front_end)
    )
    victim.remarks = (note,) if note else ()
    is_regression = getattr(network.config, "problem_type", None) == "regression"
    if is_regression or are_dimensions(victim.labels):
        victim.tolerance, usual = default_tolerance(victim.labels)
        victim.remarks = (*victim.remarks, usual)
    victim.sha256 = str(tensors_sha256(victim))
    return victim


def build_front_end(extractor: Any) -> nn.Module | None:
    """The differentiable form of a feature extractor of the library; None where there is none."""
    kind = type(extractor).__name__
    if kind == "Wav2Vec2FeatureExtractor":
        return Normalise() if extractor.do_normalize else nn.Identity()
    if kind == "WhisperFeatureExtractor" and not extractor.dither:
        return WhisperLogMel(
            torch.from_numpy(extractor.mel_filters),
            samples=extractor.n_samples,
            window=extractor.n_fft,
            hop=extractor.hop_length,
        )
    if kind == "ASTFeatureExtractor" and extractor.sampling_rate == 16_000:
        filters = hub.mel_filter_bank(
            num_frequency_bins=257,
            num_mel_filters=extractor.num_mel_bins,
            min_frequency=20,
            max_frequency=8000,
            sampling_rate=16_000,
            mel_scale="kaldi",
            triangularize_in_mel_space=True,
        )
        scale = {"mean": extractor.mean, "std": extractor.std} if extractor.do_normalize else {}
        return KaldiLogMel(torch.from_numpy(filters), frames=extractor.max_length, **scale)
    return None


def _title(source: str) -> str:
    return source.rstrip("/").rsplit("/", 1)[-1]


def _labels(network: Any) -> list[str]:
    names = network.config.id2label
    return [str(names[index]) for index in range(network.config.num_labels)]
