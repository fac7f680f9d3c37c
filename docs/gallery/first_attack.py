"""A first attack

This page compares an attack on one synthetic clip with noise of the same size. The page plays the
clip before and after the attack.
"""

# %%
# `speak_example` synthesises a sentence with eSpeak NG. `shipped:emo18` is a small pretrained
# classifier of seven emotions. It was trained on acted German speech.

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
# The budget lets the attack change at most a fifth of the samples. The largest change of a sample lies
# 25 dB below the level of the speech. `pgd` (projected gradient descent) follows the gradient of the
# classifier. SNR is the signal-to-noise ratio of speech and change.

budget = staanet.Budget(epsilon="-25 dB", max_density=0.2)
attack = staanet.ATTACKS["pgd"](budget=budget, steps=20)
adversarial = staanet.craft(attack, victim, [clip])
(pair,) = adversarial
row = staanet.transfer_matrix([adversarial], [victim]).rows[0]
print(f"{row['clean_prediction']} -> {row['adversarial_prediction']}")
print(f"{row['l0']} samples changed, {row['snr_db']:.1f} dB SNR")

# %%
# These are the clean and the adversarial clip.

Path("clean.wav").write_bytes(audio.encode(pair.clean.pcm16, rate))
Path("adversarial.wav").write_bytes(audio.encode(pair.adversarial, rate))

# %%
# The changed samples are red. The lower panel shows the ten milliseconds with the most changed samples.

Path("changed_samples.png").write_bytes(waveform_picture(pair.clean.pcm16, pair.adversarial, rate))

# %%
# The control adds random signs at as many samples. The script draws the control five times. Only
# the difference between attack and control counts.

hits = 0
for seed in range(5):
    noise = staanet.ATTACKS["random"](budget=budget, seed=seed)
    rows = staanet.transfer_matrix([staanet.craft(noise, victim, [clip])], [victim]).rows
    hits += rows[0]["clean_prediction"] != rows[0]["adversarial_prediction"]
print(f"noise of the same size changed the prediction in {hits} of 5 draws")
