"""An ONNX file with several outputs

This page attacks an ONNX model that returns an embedding and class scores. A model card names
the output with the scores. The card is a short text file.
"""

# %%
# The script exports a model with two outputs. `hidden` is the embedding. `scores` holds the class
# scores.

import torch
from torch import nn


class TwoOutputs(nn.Module):
    """Returns an embedding and three class scores, ``[B, T] -> [B, 8], [B, 3]``."""

    def __init__(self) -> None:
        super().__init__()
        self.encode = nn.Conv1d(1, 8, 400, stride=160)
        self.classify = nn.Linear(8, 3)

    def forward(self, speech: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        hidden = self.encode(speech[:, None]).abs().mean(dim=2)
        return hidden, self.classify(20 * hidden)


torch.manual_seed(2)
torch.onnx.export(
    TwoOutputs().eval(),
    (torch.zeros(1, 16_000),),
    "model.onnx",
    dynamo=False,
    input_names=["speech"],
    output_names=["hidden", "scores"],
    dynamic_axes={"speech": {0: "batch", 1: "time"}},
)

# %%
# This card does not name the output. `load_victim` raises an error that lists the outputs.

from pathlib import Path

import staanet

card = 'labels = ["calm", "tense", "other"]\nsample_rate = 16000\n'
Path("model.onnx.toml").write_text(card)
try:
    staanet.load_victim("onnx:model.onnx")
except staanet.StaaNetError as error:
    print(error)

# %%
# This card names the output. PyTorch runs the same graph and computes gradients.

Path("model.onnx.toml").write_text(card + 'output = "scores"\n')
victim = staanet.load_victim("onnx:model.onnx")
print("gradients:", victim.differentiable)
for note in victim.notes:
    print(note)

# %%
# `fgsm` (fast gradient sign method) and `pgd` (projected gradient descent) attack the model. The
# control `random` adds random signs of the same size. Use `staanet audit --victim onnx:model.onnx` for a
# full audit.

from staanet.corpora import render_synthetic

clips = list(render_synthetic(Path("voices"), voices=4, sentences=1).clips(16_000))
sets = [
    staanet.craft(staanet.ATTACKS[name](budget=staanet.Budget(epsilon="-20 dB")), victim, clips)
    for name in ("fgsm", "pgd", "random")
]
matrix = staanet.transfer_matrix(sets, [victim])
print(matrix.to_markdown())

# %%
# The figure shows the class probabilities of one clip before and after PGD.

import matplotlib.pyplot as plt

row = next(row for row in matrix.rows if row["attack"] == "pgd")
figure, axes = plt.subplots(figsize=(6.0, 2.4))
for shift, key, label in ((-0.2, "clean", "before"), (0.2, "adversarial", "after")):
    places = [index + shift for index in range(3)]
    axes.bar(places, row[f"{key}_probabilities"], width=0.38, label=label)
axes.set_xticks(range(3), victim.labels)
axes.set_ylabel("probability")
axes.legend()
figure.tight_layout()
figure.savefig("probabilities_before_and_after.svg")
