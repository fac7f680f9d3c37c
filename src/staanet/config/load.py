"""Reads recipes from TOML, applies overrides, checks values, and writes recipes back."""

from __future__ import annotations

import dataclasses
import re
import stat
import tomllib
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from staanet.config.experiment import Recipe
from staanet.errors import InvalidInput, printable, unknown_name

T = TypeVar("T")

MAX_RECIPE_BYTES = 1 << 20
"""A recipe is a page of text; a larger file is something else."""
MAX_DOTS = 200
"""Dots in a line. ``tomllib`` takes minutes for a key of a hundred thousand parts."""


def load_recipe(name_or_path: str, overrides: Sequence[str] = ()) -> Recipe:
    """Returns the recipe of a shipped name or a TOML file, after ``KEY=VALUE`` overrides.

    Raises ``InvalidInput``, which names the file, the wrong key and the remedy.
    """
    path = find_recipe(name_or_path)
    tree = read_toml(path)
    for override in overrides:
        _override(tree, override)
    return parse_recipe(tree, where=path)


def read_toml(path: Path) -> dict[str, Any]:
    """Returns the content of a small TOML file as nested dicts.

    Raises ``InvalidInput`` with the reason where the file cannot be read.
    """
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise InvalidInput("is not a regular file", where=path, remedy="Pass a TOML file")
        if status.st_size > MAX_RECIPE_BYTES:
            raise InvalidInput(
                f"is {status.st_size} bytes; a recipe has at most {MAX_RECIPE_BYTES}",
                where=path,
                remedy="Pass a TOML recipe",
            )
        raw = path.read_bytes()
        text = raw.decode("utf-8-sig").replace("\r\n", "\n")
        for number, line in enumerate(text.split("\n"), start=1):
            if line.count(".") > MAX_DOTS:
                raise InvalidInput(
                    f"line {number} has more than {MAX_DOTS} dots",
                    where=path,
                    remedy="Correct it, or start from a shipped recipe",
                )
        return tomllib.loads(text)
    except UnicodeDecodeError as problem:
        line_number = raw.count(b"\n", 0, problem.start) + 1
        raise InvalidInput(
            f"is not a readable TOML file (line {line_number} is not UTF-8)",
            where=path,
            remedy="Save it as UTF-8",
        ) from problem
    except OSError as problem:
        raise InvalidInput(
            f"cannot be read ({problem.strerror})", where=path, remedy="Pass a TOML file"
        ) from problem
    except (ValueError, RecursionError) as problem:  # ValueError: a number too long
        raise InvalidInput(
            f"is not a readable TOML file ({printable(str(problem))})",
            where=path,
            remedy="Correct it, or start from a shipped recipe",
        ) from problem


def parse_recipe(tree: Mapping[str, Any], *, where: object = "recipe") -> Recipe:
    """Returns the recipe of nested dicts; raises ``InvalidInput``, which names the wrong key."""
    return validate_settings(Recipe, tree, where=where)


def validate_settings(recipe: type[T], values: Mapping[str, Any], *, where: object) -> T:
    """Returns a dataclass of settings made of plain values, which pydantic checks.

    Raises ``InvalidInput``, which names the wrong value and the reason.
    """
    try:
        result: T = _adapter(recipe).validate_python(dict(values))
        return result
    except ValidationError as problem:
        raise _explain(problem, recipe, where) from problem
    except InvalidInput as problem:
        raise InvalidInput(problem.what, where=where, remedy=problem.remedy) from problem


def replace(recipe: T, *, where: object, **changes: Any) -> T:
    """Does what ``dataclasses.replace`` does, and checks the new values."""
    fields = dataclasses.fields(recipe)  # type: ignore[arg-type]
    values = {field.name: getattr(recipe, field.name) for field in fields}
    return validate_settings(type(recipe), {**values, **changes}, where=where)


_ADAPTERS: dict[type[Any], TypeAdapter[Any]] = {}


def _adapter(recipe: type[Any]) -> TypeAdapter[Any]:
    """Returns the validator of a dataclass. Building it takes 10 ms, so each is built once."""
    if recipe not in _ADAPTERS:
        _ADAPTERS[recipe] = TypeAdapter(recipe)
    return _ADAPTERS[recipe]


def to_tree(recipe: Recipe) -> dict[str, Any]:
    """Returns the recipe as plain values that ``tomli_w`` writes and ``parse_recipe`` reads back."""
    first = {"name": recipe.name, "corpus": recipe.corpus}
    tree: dict[str, Any] = _without_none({**first, **dataclasses.asdict(recipe)})
    return tree


def to_toml(recipe: Recipe) -> str:
    """Returns the recipe as TOML text, with every default spelled out."""
    import tomli_w

    return tomli_w.dumps(to_tree(recipe))


def shipped_recipes() -> dict[str, Path]:
    """Returns the files of the recipes that come with the package, by name."""
    in_wheel = Path(__file__).parents[1] / "recipes"
    folder = in_wheel if in_wheel.is_dir() else Path(__file__).parents[3] / "recipes"
    return {path.stem: path for path in sorted(folder.glob("*.toml"))}


def find_recipe(name_or_path: str) -> Path:
    """Returns the file of a shipped recipe, or the path itself.

    Raises ``InvalidInput`` for a word that is neither.
    """
    shipped = shipped_recipes()
    if name_or_path in shipped:
        return shipped[name_or_path]
    path = Path(name_or_path)
    if path.suffix != ".toml" and not path.is_file():
        raise unknown_name("recipe", name_or_path, shipped)
    return path


def _without_none(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_none(inner) for key, inner in value.items() if inner is not None}
    return [_without_none(inner) for inner in value] if isinstance(value, tuple | list) else value


def _override(tree: dict[str, Any], text: str) -> None:
    """Replaces the value at the path that ``KEY=VALUE`` names."""
    key, sign, value = text.partition("=")
    if not sign or not key:
        raise InvalidInput(
            f"--set '{printable(text)}' is not KEY=VALUE", remedy="Write for example --set seed=1"
        )
    try:
        parsed = tomllib.loads(f"value = {value}")["value"]
    except (ValueError, RecursionError):
        parsed = value  # a bare word, such as emodb:PATH
    *tables, last = key.split(".")
    if len(tables) > MAX_DOTS:
        raise InvalidInput(f"--set '{printable(key)[:40]}...' has {len(tables)} dots")
    branch = tree
    for name in tables:
        branch = branch.setdefault(name, {})
        if not isinstance(branch, dict):
            raise InvalidInput(
                f"--set '{printable(text)}': '{name}' is a value, not a table",
                remedy="Give the path of one value",
            )
    branch[last] = parsed


def _explain(problem: ValidationError, recipe: type[Any], where: object) -> InvalidInput:
    """Returns the first mistake that pydantic found, as an error for a user."""
    error = problem.errors(include_url=False)[0]
    parts = [str(part) for part in error["loc"]]
    key = ".".join(parts) or "recipe"
    cause = error.get("ctx", {}).get("error")
    if isinstance(cause, InvalidInput):
        return InvalidInput(cause.what, where=where, remedy=cause.remedy)
    if error["type"] == "unexpected_keyword_argument":
        names = [field.name for field in dataclasses.fields(_type_at(recipe, parts[:-1]))]
        return unknown_name(
            "key", key, [".".join([*parts[:-1], name]) for name in names], where=where
        )
    if error["type"] == "literal_error":
        choices = re.findall(r"'([^']*)'", error["ctx"]["expected"])
        return unknown_name(key, str(error["input"]), choices, where=where)
    value = "" if error["type"].startswith("missing") else f" (got {_excerpt(error['input'])})"
    reason = error["msg"][:1].lower() + error["msg"][1:]
    if error["type"] == "string_pattern_mismatch":
        reason = (
            "a name has 1 to 64 letters, digits, dots, dashes or underscores, the first no sign"
        )
    elif error["type"] in ("dataclass_type", "dict_type"):
        reason = "a table is due here"
    return InvalidInput(
        f"{printable(key)[:200]}: {reason}{value}", where=where, remedy="Correct this value"
    )


def _excerpt(value: object) -> str:
    return printable(repr(value))[:80]


def _type_at(recipe: type[Any], path: Sequence[str]) -> type[Any]:
    """Returns the dataclass to which a path of keys leads.

    >>> _type_at(Recipe, ["victims", "emo18"]).__name__, _type_at(Recipe, ["sweep"]).__name__
    ('VictimRecipe', 'SweepRecipe')
    """
    if not path:
        return recipe
    hint = typing.get_type_hints(recipe)[path[0]]
    inner = [kind for kind in (hint, *typing.get_args(hint)) if dataclasses.is_dataclass(kind)]
    return inner[0] if inner and isinstance(inner[0], type) else recipe
