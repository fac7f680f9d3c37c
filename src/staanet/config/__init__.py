"""Recipes: every setting is one field of a dataclass, with its type, default and help text.

A recipe is a frozen dataclass. The command line's options, a run's TOML file, the cards and the docs
come from it. ``load_recipe`` reads a whole experiment: an unknown key is an error that suggests the right
one, ``--set victims.emo18.steps=100`` replaces one value by its path, and recipes that come with the
package are found by their name (``quick``).
"""

from __future__ import annotations

from staanet.config.attacking import (
    AttackRecipe,
    AuditLimits,
    AuditRecipe,
    BudgetRecipe,
    CertifyRecipe,
    DefenceRecipe,
    SweepRecipe,
)
from staanet.config.epsilon import (
    check_epsilon,
    epsilon_order,
    epsilon_text,
    relative_db,
    scale_epsilon,
)
from staanet.config.experiment import Recipe, SplitRecipe, SyntheticRecipe
from staanet.config.fields import (
    ABLATION_KEEP,
    EPSILON,
    MAX_DENSITY,
    PAPER_EPSILON,
    SAMPLE_RATE,
    SELFCHECK_CLIPS,
    SMOOTHING_SIGMA,
    Help,
    default_of,
)
from staanet.config.load import (
    find_recipe,
    load_recipe,
    parse_recipe,
    read_toml,
    replace,
    shipped_recipes,
    to_toml,
    to_tree,
    validate_settings,
)
from staanet.config.training import (
    DetectRecipe,
    GeneratorRecipe,
    HardenRecipe,
    SurrogateRecipe,
    TuneRecipe,
    VectorRecipe,
    VictimRecipe,
)

__all__ = [
    "ABLATION_KEEP",
    "EPSILON",
    "MAX_DENSITY",
    "PAPER_EPSILON",
    "SAMPLE_RATE",
    "SELFCHECK_CLIPS",
    "SMOOTHING_SIGMA",
    "AttackRecipe",
    "AuditLimits",
    "AuditRecipe",
    "BudgetRecipe",
    "CertifyRecipe",
    "DefenceRecipe",
    "DetectRecipe",
    "GeneratorRecipe",
    "HardenRecipe",
    "Help",
    "Recipe",
    "SplitRecipe",
    "SurrogateRecipe",
    "SweepRecipe",
    "SyntheticRecipe",
    "TuneRecipe",
    "VectorRecipe",
    "VictimRecipe",
    "check_epsilon",
    "validate_settings",
    "default_of",
    "epsilon_order",
    "epsilon_text",
    "find_recipe",
    "load_recipe",
    "parse_recipe",
    "read_toml",
    "relative_db",
    "replace",
    "scale_epsilon",
    "shipped_recipes",
    "to_toml",
    "to_tree",
]
