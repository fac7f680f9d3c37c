"""My corpus

This page shows the way from a folder of recordings to a trained and attacked classifier. The
recordings are synthetic. Use the path of your own folder instead.
"""

# %%
# The corpus has one folder per class. Each class folder has one folder per speaker. The paths are
# `my_corpus/LABEL/SPEAKER/*.wav`.

import shutil
from pathlib import Path

from staanet.corpora import render_synthetic

for clip in render_synthetic(Path("voices"), voices=8, sentences=2).utterances:
    folder = Path("my_corpus") / clip.label / clip.speaker
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copy(clip.path, folder)
print(len(list(Path("my_corpus").rglob("*.wav"))), "recordings")

# %%
# The command prints the classes, the speakers, the split and the level of the speech. It also prints
# a note on each unusual recording.

import subprocess

subprocess.run(["staanet", "corpus", "folder:my_corpus"], check=True)

# %%
# `split` returns a train, a dev and a test part. No speaker is in two parts.

import staanet

corpus = staanet.load_corpus("folder:my_corpus")
train, dev, test = corpus.split(seed=0)
print("test speakers:", ", ".join(test.speakers))

# %%
# The figure shows the speech level of each recording. A budget in dB is relative to this level.

import matplotlib.pyplot as plt

from staanet.audio.levels import active_level_db

figure, axes = plt.subplots(figsize=(6.4, 2.6))
for column, speaker in enumerate(corpus.speakers):
    part = [c for c in corpus.clips(16_000) if c.speaker == speaker]
    levels = [active_level_db(c.waveform.numpy(), c.sample_rate) for c in part]
    axes.plot([column] * len(levels), levels, "o", color="#0072b2", markersize=4)
axes.set_xticks(range(len(corpus.speakers)), corpus.speakers)
axes.set(xlabel="speaker", ylabel="speech level, dB of full scale")
figure.tight_layout()
figure.savefig("speech_level_of_each_speaker.svg")

# %%
# The script trains a small network on log-mel spectrograms. UAR is the unweighted average recall. The
# UAR of chance is 0.25.

from staanet import pipeline, storage
from staanet.config import VictimRecipe

recipe = VictimRecipe(steps=40, batch_size=8, seconds=0.8, evaluate_every=20, augment=("none",))
victim = pipeline.train_victim(
    corpus, "logmel_cnn", Path("victims/logmel_cnn"), recipe=recipe, context=pipeline.Context()
)
card = storage.read_card(Path("victims/logmel_cnn"), "victim")
print(f"UAR on dev speakers {card['dev_uar']:.2f}, on test speakers {card['test_uar']:.2f}")

# %%
# The script attacks the clips of the test speakers. `fgsm` is the fast gradient sign method. The
# control `random` adds random signs of the same size. The command
# `staanet run folder --set corpus=folder:my_corpus` runs a whole experiment.

budget = staanet.Budget(epsilon="-30 dB")
sets = [
    staanet.craft(staanet.ATTACKS[name](budget=budget), victim, test) for name in ("fgsm", "random")
]
print(staanet.transfer_matrix(sets, [victim]).to_markdown())
