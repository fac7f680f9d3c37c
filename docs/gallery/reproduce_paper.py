"""Reproduce the paper on your corpus

This page shows each step of a reproduction of the paper on your own corpus. The recipe `paper_demos` holds
the settings of the paper (Chang et al. 2024). This script uses a much smaller recipe and synthetic
speech. The results on this page therefore prove nothing about the paper.
"""

# %%
# The script creates a small synthetic corpus with several speakers.

from pathlib import Path

from staanet.corpora import render_synthetic

render_synthetic(Path("voices"), voices=4, sentences=1)

# %%
# `--dry-run` prints the stages and their size. Use this option before each long run. The full recipe
# needs a GPU.

import subprocess

run = "staanet run paper_demos --set corpus=synthetic:voices --out run"
subprocess.run(f"{run} --dry-run", shell=True, check=True)

# %%
# The script writes a smaller recipe. The recipe has two of the four victims (the models under attack),
# a small generator, few training steps and three attacks.

import tomllib

import tomli_w

from staanet.config import shipped_recipes

recipe = tomllib.loads(shipped_recipes()["paper_demos"].read_text())
del recipe["sweep"], recipe["victims"]["wav2vec2"], recipe["victims"]["wavlm"]
recipe["name"], recipe["corpus"], recipe["clip_seconds"] = "small", "synthetic:voices", 1.0
for victim in recipe["victims"].values():
    victim |= {"steps": 8, "batch_size": 8, "seconds": 0.5, "evaluate_every": 8}
recipe["generator"] |= {"sources": ["emo18"], "network": "small", "steps": 4, "seconds": 0.5}
recipe["attacks"] = {name: recipe["attacks"][name] for name in ("staa", "pgd", "random")}
Path("small.toml").write_text(tomli_w.dumps(recipe))

# %%
# One command runs the whole experiment and writes the report. Run the same command again to continue
# a stopped run.

subprocess.run("staanet run small.toml --out run", shell=True, check=True)

# %%
# The report folder also holds each figure as SVG, PNG and PDF.

import shutil

for figure in sorted(Path("run/report").rglob("*.png")):
    print(figure)
shutil.copy(next(iter(sorted(Path("run/report").rglob("*.png")))), "a_figure_of_the_report.png")
