"""Resemblyzer's encoder of voices; its head is the mean embedding of each speaker of the corpus ``$SPEAKERS``."""

import os
from importlib.util import find_spec
from pathlib import Path

import torch
from torch import nn
from torch.nn.functional import normalize, pad
from transformers.audio_utils import mel_filter_bank

import staanet
from staanet.core.sampling import stratified_subset


@torch.no_grad()
def build():
    """A white box whose classes are the speakers."""
    file = Path(find_spec("resemblyzer").origin).with_name("pretrained.pt")
    weights = torch.load(file, "cpu", weights_only=True)["model_state"]
    lstm, linear = nn.LSTM(40, 256, 3, batch_first=True), nn.Linear(256, 256)
    nn.ModuleDict({"lstm": lstm, "linear": linear}).load_state_dict(weights, strict=False)
    filters = torch.tensor(mel_filter_bank(201, 40, 0, 8e3, 16_000, "slaney", "slaney")).float()

    def embed(x):  # the mean over parts of 1.6 s
        x = pad(x, (200, 25_800 + max(0, (x.shape[1] - 19_200) // 12_320) * 12_320 - x.shape[1]))
        waves = torch.stft(x, 400, 160, None, torch.hann_window(400), False, return_complex=True)
        parts = (waves.abs().square().mT @ filters).unfold(1, 160, 77).flatten(0, 1).mT
        each = normalize(linear(lstm(parts)[1][0][-1]).relu())
        return normalize(each.unflatten(0, (len(x), -1)).mean(dim=1))

    train, _, _ = staanet.load_corpus(os.environ["SPEAKERS"], classes="speaker").split(seed=0)
    names = train.class_labels
    clips = [train.load(u, 16_000) for u in stratified_subset(train.utterances, 10 * len(names))]
    voices = torch.cat([embed(c.waveform[None]) for c in clips]) * weights["similarity_weight"]
    head = torch.stack([voices[[c.label == name for c in clips]].mean(0) for name in names])
    return staanet.TorchVictim(lambda x: embed(x) @ head.T, names, 16_000, name="speaker")
