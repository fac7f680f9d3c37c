"""Reproduce the paper on your corpus

The recipe `paper_demos` holds the settings of Chang et al. 2024. Give it your corpus. Here it is cut to seconds, on synthetic
voices, to show each step. The figures below mean nothing, but the steps are those of a real study.
"""

# %%
# A corpus with speakers.

from pathlib import Path

from staanet.corpora import render_synthetic

render_synthetic(Path("voices"), voices=4, sentences=1)

# %%
# `--dry-run` tells the stages and their size before anything is trained. Look at this first: the full recipe wants a GPU.

import subprocess

run = "staanet run paper_demos --set corpus=synthetic:voices --out run"
subprocess.run(f"{run} --dry-run", shell=True, check=True)

# %%
# A small copy of the recipe: two of the four victims, a small generator, few steps, three attacks.

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
# One command trains, attacks, evaluates and writes the report. To continue a stopped run, run it again.

subprocess.run("staanet run small.toml --out run", shell=True, check=True)

# %%
# The figures of the report lie beside it as SVG, PNG and PDF for a paper.

import shutil

for figure in sorted(Path("run/report").rglob("*.png")):
    print(figure)
shutil.copy(next(iter(sorted(Path("run/report").rglob("*.png")))), "a_figure_of_the_report.png")
