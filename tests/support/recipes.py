"""Recipes for tests."""

TINY_RECIPE = """
name = "tiny"
corpus = "folder:{corpus}"

[victims.emo18]
steps = 12
batch_size = 4
seconds = 0.25
evaluate_every = 6

[victims.zhao19]
steps = 6
batch_size = 4
seconds = 0.25
evaluate_every = 6

[generator]
sources = ["emo18"]
steps = 6
batch_size = 4
seconds = 0.25
evaluate_every = 3

[attacks.random]
match = "staa"

[attacks.staa]
title = "STAA-Net"
max_density = 0.2

[attacks.pgd]
settings = {{ steps = 2 }}
"""
