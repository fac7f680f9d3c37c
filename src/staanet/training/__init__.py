"""Training victims and generators: two tasks, one ``fit`` loop that resumes bit for bit.

A task draws the batch of step ``n`` from ``(seed, n)`` alone, so no random state has to be saved:
weights, optimiser and a few numbers are enough to go on exactly where a killed run stopped.
"""

from __future__ import annotations

from staanet.training.ahead import Ahead
from staanet.training.crops import Crops, balanced, coloured
from staanet.training.fit import History, Schedule, Task, fit, seeded
from staanet.training.generators import UNTOUCHED_DB, GeneratorTask, collapse_flags, train_generator
from staanet.training.victims import VictimTask, train_victim

__all__ = [
    "Ahead",
    "Crops",
    "GeneratorTask",
    "History",
    "Schedule",
    "Task",
    "UNTOUCHED_DB",
    "VictimTask",
    "balanced",
    "collapse_flags",
    "coloured",
    "fit",
    "seeded",
    "train_generator",
    "train_victim",
]
