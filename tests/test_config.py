"""Recipes read back as they were written; every mistake is named with its remedy."""

from __future__ import annotations

import ast
import dataclasses
import tomllib
from pathlib import Path
from typing import get_type_hints

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.main import get_command

from staanet import config
from staanet.cli import app
from staanet.errors import InvalidInput


@pytest.mark.parametrize("name", sorted(config.shipped_recipes()))
def test_shipped_recipes_are_valid_and_read_back_as_written(name):
    recipe = config.load_recipe(name)
    assert recipe.name == name
    assert config.parse_recipe(tomllib.loads(config.to_toml(recipe))) == recipe


@pytest.mark.parametrize(
    "override, said",
    [
        ("victims.emo18.stepz=7", "Did you mean 'victims.emo18.steps'"),
        ("generator.sorces=[]", "Did you mean 'generator.sources'"),
        ("nme=1", "Did you mean 'name'"),
        ("seed=-1", "greater than or equal to 0 (got -1)"),
        ("attacks.pgd.match=sta", "Did you mean 'staa'"),
        ("attacks.pgd.match=pgd", "matches itself"),
        ("generator.sources=['x']", "unknown source in [generator] 'x'"),
        ("attacks.pgd.epsilon=nan", "epsilon"),
        ("attacks.pgd.epsilon=0", "epsilon is 0"),
        ("attacks.pgd.epsilon=-20", "such as '-20 dB'"),
        ('attacks.pgd.epsilon="20 below"', "epsilon is '20 below'"),
        ("sweep={attacks=['pgd'],epsilons=['-20 dB',0.01]}", "shares of full scale and decibels"),
        ("attacks.pgd.epsilon=1e-6", "epsilon 1e-06 is below one 16-bit step (3.05e-05)"),
        ("generator.goal='untargetd'", "Did you mean 'untargeted'"),
        ("generator=3", "generator"),
        ("name='../../evil'", "name"),
        ("seed", "is not KEY=VALUE"),
        ("name.first=1", "is a value, not a table"),
        ("x" + ".y" * 201 + "=1", "has 201 dots"),
        ("sweep={attacks=['pgd'],sources=['zhao20']}", "unknown source in [sweep] 'zhao20'"),
        ("sweep.attacks=['pdg']", "unknown attack in [sweep] 'pdg'"),
        ("generator.sources=['emo18','emo18']", "sources of [generator] name 'emo18' twice"),
        ("generator.batch_size=100000", "less than or equal to 65536"),
        ("generator.min_snr_db=inf", "generator.min_snr_db"),
        ("attacks.pgd.min_snr_db=-inf", "attacks.pgd.min_snr_db"),
        (
            "defences.median={victims=['emo19'],chain=['median:3']}",
            "unknown victim in [defences.median]",
        ),
        (
            "defences.median={victims=['emo18'],chain=['median:3'],adaptive=['pdg']}",
            "unknown attack in [defences.median]",
        ),
    ],
)
def test_a_mistake_is_named_with_what_would_be_right(override, said):
    with pytest.raises(InvalidInput) as error:
        config.load_recipe("quick", [override])
    assert said in str(error.value)


@pytest.mark.parametrize("name", ["epsilons", "densities"])
def test_an_audit_names_no_value_twice(name):
    assert getattr(config.AuditRecipe(**{name: (0.5, 0.1)}), name) == (0.5, 0.1)
    with pytest.raises(InvalidInput, match=f"{name} names a value twice"):
        config.AuditRecipe(**{name: (0.1, 0.5, 0.1)})


def test_a_line_of_too_many_dots_is_named_and_never_parsed(tmp_path):
    (tmp_path / "r.toml").write_text("name = 'x'\n" + "a" + ".b" * 201 + " = 1\n")
    with pytest.raises(InvalidInput, match="line 2 has more than 200 dots"):
        config.load_recipe(str(tmp_path / "r.toml"))


def test_channels_are_a_list_of_names_and_empty_by_default():
    assert config.load_recipe("quick").channels == ()
    recipe = config.load_recipe("quick", ["channels=['mp3', 'resample:8000']", "perceptual=true"])
    assert recipe.channels == ("mp3", "resample:8000") and recipe.perceptual
    assert config.parse_recipe(config.to_tree(recipe)) == recipe


def test_an_override_replaces_one_value_and_takes_bare_words():
    recipe = config.load_recipe(
        "quick", ["corpus=emodb:some/where", "victims.emo18.steps=7", "seed=3"]
    )
    assert (recipe.corpus, recipe.victims["emo18"].steps, recipe.seed) == ("emodb:some/where", 7, 3)


@pytest.mark.parametrize(
    "text, said",
    [
        (b"", "name"),
        (b"\xff\xfen\x00", "not a readable TOML file"),
        (b"name = ", "not a readable TOML file"),
        (b"a = " + b"[" * 5000, "not a readable TOML file"),
        (b"x" * (2 << 20), "a recipe has at most"),
    ],
    ids=["empty", "utf16", "torn", "deep", "huge"],
)
def test_a_file_that_is_no_recipe_is_refused(tmp_path, text, said):
    (tmp_path / "r.toml").write_bytes(text)
    with pytest.raises(InvalidInput) as error:
        config.load_recipe(str(tmp_path / "r.toml"))
    assert said in str(error.value) and "r.toml" in str(error.value)


def test_an_unknown_recipe_suggests_a_shipped_one():
    with pytest.raises(InvalidInput) as error:
        config.load_recipe("quik")
    assert "Did you mean 'quick'" in str(error.value)


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3)
    ),
    max_leaves=8,
)
keys = st.sampled_from(
    ["name", "corpus", "seed", "protocol", "victims", "generator", "attacks", "synthetic", "x"]
)


@settings(max_examples=300, deadline=None)
@given(st.dictionaries(keys, values, max_size=6))
def test_no_tree_of_values_causes_anything_but_a_named_error(tree):
    base = tomllib.loads(config.to_toml(config.load_recipe("quick")))
    try:
        config.parse_recipe({**base, **tree})
    except InvalidInput as error:
        assert str(error)


# ---------------------------------------------------------------- a setting is written once

SOURCE = Path(config.__file__).parents[1]
RECIPES = [kind for name, kind in vars(config).items() if name.endswith("Recipe")]
SETTINGS = {field.name for kind in RECIPES for field in dataclasses.fields(kind)}
SETTINGS -= {"name", "classes", "seed"}  # of many things that no recipe sets
OTHER_SETTINGS = {
    "apps/interop/art.py:evasion batch_size": "ART's own batches",
    "apps/web/__init__.py:Limits seconds": "of an upload",
    "cli/evaluate.py:EvaluateOptions adaptive_clips": "of evaluate, which detect does not read",
    "apps/web/fooling.py:Request attack": "what the page offers first",
    "generators/losses.py:SparsityController patience": "a share of the steps",
    "report/__init__.py:build clips": "that the page plays",
    "sanity/attack_checks.py:white_box_wins queries": "of one check",
    "training/adaptive.py:AdaptivePGD steps": "of an attack, as its paper has them",
    "training/adversarial.py:cost steps": "timed steps",
    "training/detectors.py:DetectorTask steps": "of the inner attack",
    "training/fit.py:Schedule learning_rate": "recipes leave it to the network",
}
"""Settings that share a name with a recipe's and are others; a resolved precision is float32."""


def literal_defaults(tree):
    """Yields the owner, name and value of each default that a function or a dataclass writes out."""
    for node in ast.walk(tree):
        pairs = []
        if isinstance(node, ast.FunctionDef):
            positional = [*node.args.posonlyargs, *node.args.args]
            pairs = list(zip(reversed(positional), reversed(node.args.defaults), strict=False))
            pairs += zip(node.args.kwonlyargs, node.args.kw_defaults, strict=True)
            pairs = [(argument.arg, value) for argument, value in pairs]
        elif isinstance(node, ast.ClassDef):
            fields = [s for s in node.body if isinstance(s, ast.AnnAssign)]
            pairs = [(ast.unparse(field.target), field.value) for field in fields]
        for name, value in pairs:
            if isinstance(value, ast.Constant) and value.value not in (None, "", False, "float32"):
                yield node.name, name


def test_no_default_of_a_recipe_is_written_again():
    again = []
    for path in sorted(SOURCE.rglob("*.py")):
        file = path.relative_to(SOURCE).as_posix()
        if file.startswith("config/"):
            continue
        for owner, name in literal_defaults(ast.parse(path.read_text("utf-8"))):
            is_of_an_attack = file.startswith("attacks/") and owner[0].isupper()  # its paper's
            if name in SETTINGS and not is_of_an_attack:
                again.append(f"{file}:{owner} {name}")
    assert sorted(set(again)) == sorted(OTHER_SETTINGS)


@pytest.mark.parametrize("kind", RECIPES, ids=lambda kind: kind.__name__)
def test_every_setting_has_a_help_text(kind):
    for name, hint in get_type_hints(kind, include_extras=True).items():
        if name != "__pydantic_config__":
            (about,) = [mark for mark in hint.__metadata__ if isinstance(mark, config.Help)]
            assert about.text.endswith(".") and "  " not in about.text, f"{kind.__name__}.{name}"


def test_what_is_on_by_default_can_be_switched_off():
    commands = get_command(app).commands.values()
    options = [option for command in commands for option in command.params]
    on = [option for option in options if option.default is True]
    assert {option.name.rpartition("__")[2] for option in on} >= {"any_budget", "everyday"}
    assert all(option.secondary_opts for option in on)


UNREACHABLE = {
    "DefenceRecipe": {"victims": "is --victim", "adaptive": "evaluate has --static-only"},
    "GeneratorRecipe": {"sources": "is --source"},
    "SweepRecipe": {"sources": "is --source"},
}
COMMANDS = {
    "AttackRecipe": "attack",
    "AuditRecipe": "audit",
    "BudgetRecipe": "budget",
    "CertifyRecipe": "certify",
    "DefenceRecipe": "defend",
    "DetectRecipe": "detect",
    "GeneratorRecipe": "train-generator",
    "HardenRecipe": "harden",
    "SplitRecipe": "train-victim",
    "SweepRecipe": "sweep",
    "TuneRecipe": "tune",
    "VectorRecipe": "train-uap",
    "VictimRecipe": "train-victim",
}


@pytest.mark.parametrize("recipe, command", COMMANDS.items())
def test_every_key_of_a_recipe_is_an_option_of_its_command(recipe, command):
    kind = getattr(config, recipe)
    options = {option for one in get_command(app).commands[command].params for option in one.opts}
    hints = get_type_hints(kind, include_extras=True)
    for field in dataclasses.fields(kind):
        (about,) = [
            mark for mark in hints[field.name].__metadata__ if isinstance(mark, config.Help)
        ]
        option = about.option or f"--{field.name.replace('_', '-')}"
        option = option.partition("/")[0]  # --x of --x/--no-x
        assert (option in options) != (field.name in UNREACHABLE.get(recipe, {})), field.name
