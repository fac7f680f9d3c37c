"""A first attack

A synthetic voice, a classifier that comes with the package, and one change of the sound. Listen to it, look at it, and
compare it with noise of the same size.
"""

# %%
# `speak_example` renders a sentence with eSpeak NG. `shipped:emo18` is a small classifier of seven emotions, trained on
# acted German speech.

from pathlib import Path

import staanet
from staanet import audio
from staanet.apps.web.example_voices import speak_example
from staanet.report.clip_pictures import waveform_picture

samples, rate = speak_example("Angry voice")
clip = staanet.Clip("voice", samples, rate)
victim = staanet.load_victim("shipped:emo18")
print(", ".join(victim.labels))

# %%
# The budget allows a fifth of the samples to move, each by at most 25 dB less than the level of the speech.
# `pgd` follows the gradient of the classifier.

budget = staanet.Budget(epsilon="-25 dB", max_density=0.2)
attack = staanet.ATTACKS["pgd"](budget=budget, steps=20)
adversarial = staanet.craft(attack, victim, [clip])
(pair,) = adversarial
row = staanet.transfer_matrix([adversarial], [victim]).rows[0]
print(f"{row['clean_prediction']} -> {row['adversarial_prediction']}")
print(f"{row['l0']} samples changed, {row['snr_db']:.1f} dB SNR")

# %%
# Listen to the clip before and after.

Path("clean.wav").write_bytes(audio.encode(pair.clean.pcm16, rate))
Path("adversarial.wav").write_bytes(audio.encode(pair.adversarial, rate))

# %%
# The red samples are those that changed. Below are the ten milliseconds in which most of them lie.

Path("changed_samples.png").write_bytes(waveform_picture(pair.clean.pcm16, pair.adversarial, rate))

# %%
# The control: random signs at as many samples, five times. An attack counts only as far as it does more than noise.

hits = 0
for seed in range(5):
    noise = staanet.ATTACKS["random"](budget=budget, seed=seed)
    rows = staanet.transfer_matrix([staanet.craft(noise, victim, [clip])], [victim]).rows
    hits += rows[0]["clean_prediction"] != rows[0]["adversarial_prediction"]
print(f"noise of the same size changed the answer in {hits} of 5 draws")
