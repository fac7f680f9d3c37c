"""Training of victims, generators and detectors: tasks, and one ``fit`` loop that resumes bit for bit.

A task draws the batch of step ``n`` from ``(seed, n)`` alone, so that no random state has to be saved:
weights, optimiser and a few numbers are enough to go on exactly where a killed run stopped.
"""

from __future__ import annotations

from staanet.training.adversarial import AdversarialTraining, train_adversarially
from staanet.training.crops import Crops
from staanet.training.fit import History, Schedule, Task, fit, seed_weights
from staanet.training.generators import (
    GeneratorSettings,
    GeneratorTask,
    collapse_flags,
    train_generator,
)
from staanet.training.linear import fit_linear
from staanet.training.prefetch import Prefetcher
from staanet.training.regression import train_regression
from staanet.training.victims import train_victim

__all__ = [
    "AdversarialTraining",
    "Crops",
    "GeneratorSettings",
    "GeneratorTask",
    "History",
    "Prefetcher",
    "Schedule",
    "Task",
    "collapse_flags",
    "fit",
    "fit_linear",
    "seed_weights",
    "train_adversarially",
    "train_generator",
    "train_regression",
    "train_victim",
]
