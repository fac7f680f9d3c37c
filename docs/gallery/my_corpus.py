"""My corpus

From a folder of recordings to a classifier and its first transfer table. Replace the synthetic voices by your own folder.
"""

# %%
# The folder has one folder per class and, in it, one per speaker: `my_corpus/LABEL/SPEAKER/*.wav`.

import shutil
from pathlib import Path

from staanet.corpora import render_synthetic

for clip in render_synthetic(Path("voices"), voices=8, sentences=2).utterances:
    folder = Path("my_corpus") / clip.label / clip.speaker
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copy(clip.path, folder)
print(len(list(Path("my_corpus").rglob("*.wav"))), "recordings")

# %%
# The command describes what it finds: classes, speakers, the split, the level of the speech, and what looks odd.

import subprocess

subprocess.run(["staanet", "corpus", "folder:my_corpus"], check=True)

# %%
# In Python the split gives three parts. No speaker is in two of them.

import staanet

corpus = staanet.load_corpus("folder:my_corpus")
train, dev, test = corpus.split(seed=0)
print("test speakers:", ", ".join(test.speakers))

# %%
# A picture of the level of each recording, by speaker. Relative budgets follow this level.

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
# A small network on log-mel spectrograms learns the four classes. Chance is a UAR of 0.25.

from staanet import pipeline, storage
from staanet.config import VictimRecipe

recipe = VictimRecipe(steps=40, batch_size=8, seconds=0.8, evaluate_every=20, augment=("none",))
victim = pipeline.train_victim(
    corpus, "logmel_cnn", Path("victims/logmel_cnn"), recipe=recipe, context=pipeline.Context()
)
card = storage.read_card(Path("victims/logmel_cnn"), "victim")
print(f"UAR on dev speakers {card['dev_uar']:.2f}, on test speakers {card['test_uar']:.2f}")

# %%
# Attack the test speakers, and read the table. `staanet run folder --set corpus=folder:my_corpus` does all this and more.

budget = staanet.Budget(epsilon="-30 dB")
sets = [
    staanet.craft(staanet.ATTACKS[name](budget=budget), victim, test) for name in ("fgsm", "random")
]
print(staanet.transfer_matrix(sets, [victim]).to_markdown())
