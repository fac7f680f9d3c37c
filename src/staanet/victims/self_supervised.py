"""Self-supervised speech models with a classification head: wav2vec 2.0, WavLM and HuBERT.

The networks are the transformers library's classes behind the ``Victim`` interface (extra ``ssl``).
Weights are fine-tuned from a hub name or a local folder, with the convolutional feature encoder frozen,
or start at random in a small configuration. The folder that ``save_pretrained`` writes is also a model of
that library.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import torch
from torch import Tensor, nn

from staanet import storage
from staanet.config import SAMPLE_RATE
from staanet.core import Victim
from staanet.errors import InvalidInput, unknown_name
from staanet.nn.padding import receptive_field, require_samples, run_by_length
from staanet.victims import hub

SCRATCH = "trained from scratch"
HEAD = ("projector", "classifier", "layer_weights")
CONFIGS: dict[str, dict[str, Any]] = {
    "tiny": {  # one frame in 20 ms like the published models, at about a thousandth of the work
        "conv_dim": [32, 32, 64, 64],
        "conv_kernel": [10, 8, 4, 4],
        "conv_stride": [5, 4, 4, 4],
        "hidden_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "intermediate_size": 128,
        "classifier_proj_size": 64,
        "num_conv_pos_embeddings": 16,
        "num_conv_pos_embedding_groups": 4,
        "layerdrop": 0.0,
        "mask_time_prob": 0.0,
    }
}


class SelfSupervised(Victim):
    """A transformer over learned frames whose mean over time is classified, ``[B, T] -> [B, K]``.

    The published base models normalise over time, so that padding would change an answer. Therefore
    clips of each length pass through the network separately. Dropout, SpecAugment and LayerDrop act in
    ``train()`` only; the buffer ``draws`` seeds them, so that a resumed training continues exactly.
    """

    published: ClassVar[str]
    prefix: ClassVar[str]
    network: Any
    draws: Tensor

    def __init__(
        self,
        labels: Sequence[str],
        *,
        config: Mapping[str, Any],
        name: str = "",
        sample_rate: int = SAMPLE_RATE,
        initialisation: str = SCRATCH,
        network: nn.Module | None = None,
    ) -> None:
        super().__init__(name=name or self.architecture, labels=labels, sample_rate=sample_rate)
        self.initialisation = initialisation
        if network is None:
            network = _class(self.prefix, "ForSequenceClassification")(self._build_config(config))
        self.network = network
        hub.allow_input_gradients(network)
        if initialisation != SCRATCH:
            self.network.freeze_feature_encoder()
        settings = self.network.config
        self.minimum_samples = receptive_field(
            list(settings.conv_kernel), list(settings.conv_stride)
        )
        self.frames_of_a_mask = settings.mask_time_length
        self.register_buffer("draws", torch.randint(2**31, ()))

    @classmethod
    def build(
        cls,
        labels: Sequence[str],
        *,
        pretrained: str | None = None,
        config: str | None = None,
        sample_rate: int = SAMPLE_RATE,
    ) -> Self:
        """A network to train: from ``pretrained`` weights (default: the published), or from scratch in
        one of ``CONFIGS``.

        Raises ``InvalidInput`` where the weights cannot be loaded, belong to another kind of model, or
        were trained at another sample rate (the published ones at 16 kHz).
        """
        if config is not None:
            if pretrained is not None:
                raise InvalidInput(
                    f"config '{config}' is trained from scratch, pretrained '{pretrained}' is not",
                    remedy="Give one of the two",
                )
            if config not in CONFIGS:
                raise unknown_name("config", config, CONFIGS)
            return cls(labels, config=CONFIGS[config], sample_rate=sample_rate)
        if sample_rate != SAMPLE_RATE:
            raise InvalidInput(
                f"{cls.architecture} was pretrained at {SAMPLE_RATE} Hz, not at {sample_rate} Hz",
                remedy="Leave the sample rate out, or train from scratch with --config tiny",
            )
        source = pretrained or cls.published
        settings = hub.read_config(source)
        if settings.model_type != cls.architecture:
            raise InvalidInput(
                f"holds a '{settings.model_type}', not a '{cls.architecture}'",
                where=source,
                remedy=f"Give a {cls.architecture} model such as {cls.published}",
            )
        settings.id2label, settings.label2id = _label_maps(labels)
        network = hub.read_model(
            _class(cls.prefix, "ForSequenceClassification"), source, config=settings, may_lack=HEAD
        )
        title = Path(source).name if Path(source).exists() else source
        return cls(labels, config={}, initialisation=f"fine-tuned from {title}", network=network)

    def _build_config(self, config: Mapping[str, Any]) -> Any:
        id2label, label2id = _label_maps(self.labels)
        try:
            return _class(self.prefix, "Config")(
                **{**config, "id2label": id2label, "label2id": label2id}
            )
        except Exception as problem:  # the library has exceptions of its own for a wrong value
            raise ValueError(str(problem)) from problem

    @property
    def weights(self) -> nn.Module:
        """The library's module, so that its tensors keep the names that the library reads."""
        network: nn.Module = self.network
        return network

    @property
    def output_layer(self) -> nn.Linear:
        layer = self.network.classifier
        assert isinstance(layer, nn.Linear)
        return layer

    def logits(self, standardised: Tensor, lengths: Tensor | None) -> Tensor:
        if not self.training:
            return run_by_length(self._logits_of, standardised, lengths)
        with _seed_draws(int(self.draws), self.device):
            logits = run_by_length(self._logits_of, standardised, lengths)
        self.draws += 1
        return logits

    def _logits_of(self, standardised: Tensor) -> Tensor:
        _, time = standardised.shape
        require_samples(self, time)
        frames = int(self.network._get_feat_extract_output_lengths(time))
        self.network.config.apply_spec_augment = frames > self.frames_of_a_mask
        logits: Tensor = self.network(standardised).logits
        return logits

    def settings(self) -> dict[str, Any]:
        config = self.network.config.to_dict()
        for key in ("_name_or_path", "id2label", "label2id", "architectures", "apply_spec_augment"):
            config.pop(key, None)
        return {"config": config, "initialisation": self.initialisation}

    def library_files(self) -> dict[str, dict[str, Any]]:
        """The two JSON files, by name, that make a folder with the weights a model of transformers."""
        id2label, label2id = _label_maps(self.labels)
        return {
            "config.json": {
                **self.settings()["config"],
                "id2label": id2label,
                "label2id": label2id,
                "architectures": [type(self.network).__name__],
            },
            "preprocessor_config.json": {
                "feature_extractor_type": "Wav2Vec2FeatureExtractor",
                "do_normalize": True,
                "feature_size": 1,
                "padding_value": 0.0,
                "return_attention_mask": False,
                "sampling_rate": self.sample_rate,
            },
        }

    def save_pretrained(self, folder: Path | str, **card: Any) -> None:
        """Writes what every victim writes, and the two files that make it a model of transformers."""
        for name, content in self.library_files().items():
            storage.write_json(Path(folder) / name, content)
        super().save_pretrained(folder, **card)


class Wav2Vec2(SelfSupervised):
    """Baevski et al., "wav2vec 2.0", NeurIPS 2020."""

    architecture = "wav2vec2"
    prefix = "Wav2Vec2"
    published = "facebook/wav2vec2-base-960h"


class WavLM(SelfSupervised):
    """Chen et al., "WavLM: large-scale self-supervised pre-training", JSTSP 2022."""

    architecture = "wavlm"
    prefix = "WavLM"
    published = "microsoft/wavlm-base"


class Hubert(SelfSupervised):
    """Hsu et al., "HuBERT: self-supervised speech representation learning", TASLP 2021."""

    architecture = "hubert"
    prefix = "Hubert"
    published = "facebook/hubert-base-ls960"


NETWORKS: dict[str, type[SelfSupervised]] = {
    kind.architecture: kind for kind in (Hubert, Wav2Vec2, WavLM)
}


def _class(prefix: str, kind: str) -> Any:
    return getattr(hub.library(), f"{prefix}{kind}")


def _label_maps(labels: Sequence[str]) -> tuple[dict[int, str], dict[str, int]]:
    return dict(enumerate(labels)), {label: number for number, label in enumerate(labels)}


@contextmanager
def _seed_draws(seed: int, device: torch.device) -> Iterator[None]:
    """Seeds every draw inside; the generators are afterwards as they were before."""
    before = np.random.get_state()  # SpecAugment draws from it
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(seed)
        np.random.seed(seed % 2**32)
        try:
            yield
        finally:
            np.random.set_state(before)
