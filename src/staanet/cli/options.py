"""Makes command options from the fields of recipes, which hold type, default and help text."""

from __future__ import annotations

import dataclasses
import inspect
import json
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal, Union

import typer

from staanet import config
from staanet.cli import names
from staanet.config import Help, check_epsilon
from staanet.config.epsilon import Epsilon, read_epsilon
from staanet.config.fields import Count
from staanet.errors import InvalidInput, printable


class Without(frozenset[str]):
    """Marks a recipe of a command: these fields of it are no options of the command."""


@dataclass(frozen=True, slots=True)
class FieldOf:
    """Marks a parameter that is the field of the same name of a recipe, such as ``seed``."""

    recipe: type[Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Output:
    """How a command reports; every command has these options."""

    json: Annotated[bool, Help("Print the result or the error as JSON.")] = False
    debug: Annotated[bool, Help("Show the traceback of an error.")] = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine(Output):
    """Where a command computes."""

    device: Annotated[str, Help("Device to compute on: cpu, cuda or cuda:N.")] = "cpu"


@dataclass(frozen=True, slots=True, kw_only=True)
class Job(Machine):
    """How a command that reads clips treats those that it cannot use."""

    strict: Annotated[bool, Help("Stop at the first unusable clip.")] = False


@dataclass(frozen=True, slots=True, kw_only=True)
class RunJob(Job):
    """How a command divides the stages of a run."""

    workers: Annotated[
        Count | None,
        Help(
            "Number of processes that train and attack at the same time.",
            absent="one per thread, at most 4; 1 on a GPU",
        ),
    ] = None


CorpusArgument = Annotated[
    str,
    typer.Argument(
        metavar="CORPUS",
        help="Corpus as KIND:PATH, for example emodb:data/emodb.",
        autocompletion=names.corpora,
    ),
]
InputsArgument = Annotated[
    list[str],
    typer.Argument(
        metavar="INPUT...",
        help="Files, folders, or a corpus as KIND:PATH.",
        autocompletion=names.inputs,
    ),
]
SetsArgument = Annotated[
    list[Path], typer.Argument(metavar="ADVERSARIAL...", help="Adversarial sets.")
]
TensorBoard = Annotated[
    bool, typer.Option("--tensorboard", help="Also log training curves to OUT/tensorboard.")
]
PART = Help("Part of the corpus to use: train, dev, test or all.", complete="parts")
PartOption = Annotated[str, typer.Option(help=PART.text, autocompletion=names.parts)]
SHARD = Help(
    "Process only part I of N parts of the clips. Join the parts with staanet merge.", metavar="I/N"
)
VICTIM = (
    "victim folder, shipped:NAME, hf:NAME-OR-FOLDER, onnx:FILE, audonnx:FOLDER, "
    "torchscript:FILE or python:FILE.py:FACTORY"
)
ModelOption = Annotated[
    str, typer.Option(help=f"Model to use: {VICTIM}.", autocompletion=names.models)
]
Convert = Callable[[Any], Any]


@dataclass(frozen=True, slots=True)
class Signature:
    """A command's parameters as Typer reads them, and how its function's arguments come from them."""

    parameters: tuple[inspect.Parameter, ...]
    recipes: Mapping[str, type[Any]]
    """The function's parameters that are dataclasses."""
    fields: Mapping[str, tuple[str, str, Convert]]
    """Of each option made from a field: the parameter of its dataclass, the field, the conversion."""

    def arguments(self, values: Mapping[str, Any], command: str) -> dict[str, Any]:
        """The function's arguments from the values of the options.

        Raises ``InvalidInput`` for a value that its recipe does not allow.
        """
        arguments = {name: value for name, value in values.items() if name not in self.fields}
        groups: dict[str, dict[str, Any]] = {name: {} for name in self.recipes}
        for name, (group, field, convert) in self.fields.items():
            if group:
                groups[group][field] = convert(values[name])
            else:
                arguments[field] = convert(values[name])
        for name, recipe in self.recipes.items():
            arguments[name] = config.validate_settings(recipe, groups[name], where=command)
        return arguments


def expand(function: Callable[..., Any]) -> Signature:
    """Replaces each parameter that is a dataclass by an option for each of its fields.

    A parameter of the function with the name of a field takes the place of that field's option; the
    field then keeps its default.
    """
    hints = typing.get_type_hints(function, include_extras=True)
    signature = inspect.signature(function)
    parameters: list[inspect.Parameter] = []
    recipes: dict[str, type[Any]] = {}
    fields: dict[str, tuple[str, str, Convert]] = {}
    for parameter in signature.parameters.values():
        kind, marks = _split(hints[parameter.name])
        source = next((mark.recipe for mark in marks if isinstance(mark, FieldOf)), None)
        if source is not None:
            option, convert = _option(source, parameter.name, parameter.name)
            parameters.append(option)
            fields[parameter.name] = ("", parameter.name, convert)
        elif dataclasses.is_dataclass(kind) and isinstance(kind, type):
            skipped = {
                *signature.parameters,
                *(n for m in marks if isinstance(m, Without) for n in m),
            }
            recipes[parameter.name] = kind
            for field in dataclasses.fields(kind):
                if field.name not in skipped:
                    name = f"{parameter.name}__{field.name}"
                    option, convert = _option(kind, field.name, name)
                    parameters.append(option)
                    fields[name] = (parameter.name, field.name, convert)
        else:
            keyword = inspect.Parameter.KEYWORD_ONLY
            parameters.append(parameter.replace(kind=keyword, annotation=hints[parameter.name]))
    return Signature(tuple(parameters), recipes, fields)


def _option(recipe: type[Any], field_name: str, name: str) -> tuple[inspect.Parameter, Convert]:
    """The option of one field, called ``name`` in the signature, and what makes the field's value."""
    kind, marks = _split(_hints(recipe)[field_name])
    (field,) = (field for field in dataclasses.fields(recipe) if field.name == field_name)
    about = next(mark for mark in marks if isinstance(mark, Help))
    annotation, convert = _typed(_plain(kind))
    choices: tuple[str, ...] = ()
    if typing.get_origin(annotation) is Literal:  # checked with the recipe, which names the nearest
        annotation, choices = str, typing.get_args(annotation)
    default: Any = inspect.Parameter.empty
    if field.default is not MISSING or field.default_factory is not MISSING:
        default = _as_text(config.default_of(recipe, field_name), annotation)
    text = about.text + (f" [default: {about.absent}]" if about.absent else "")
    word = about.option or f"--{field_name.replace('_', '-')}"
    is_on = annotation is bool and default is True  # only its negation changes anything
    option = typer.Option(
        f"{word}/--no-{word[2:]}" if is_on else word,
        help=text,
        metavar=about.metavar or "|".join(choices) or None,
        autocompletion=names.among(choices) if choices else getattr(names, about.complete, None),
        show_default=default is not False and default not in (None, "", []),
    )
    if convert is numbers:
        convert = partial(numbers, option=word)
    return (
        inspect.Parameter(
            name,
            inspect.Parameter.KEYWORD_ONLY,
            default=default,
            annotation=Annotated[annotation, option],
        ),
        convert,
    )


_HINTS: dict[type[Any], dict[str, Any]] = {}


def _hints(recipe: type[Any]) -> dict[str, Any]:
    """The types of a recipe's fields; reading them takes most of the time of ``--help``."""
    if recipe not in _HINTS:
        _HINTS[recipe] = typing.get_type_hints(recipe, include_extras=True)
    return _HINTS[recipe]


def _split(hint: Any) -> tuple[Any, tuple[Any, ...]]:
    """Splits a type into the bare type and its ``Annotated`` metadata."""
    if typing.get_origin(hint) is Annotated:
        kind, *marks = typing.get_args(hint)
        return kind, tuple(marks)
    return hint, ()


def _plain(hint: Any) -> Any:
    """A type without the ``Annotated`` metadata of its parts."""
    kind, _ = _split(hint)
    if typing.get_origin(kind) in (Union, types.UnionType):
        return Union[tuple(_plain(part) for part in typing.get_args(kind))]  # noqa: UP007
    if typing.get_origin(kind) is tuple:
        return tuple[_plain(typing.get_args(kind)[0]), ...]  # type: ignore[misc]
    return kind


def _typed(kind: Any) -> tuple[Any, Convert]:
    """The type of the option of a field of this kind, and what makes the field's value of it."""
    parts = [part for part in typing.get_args(kind) if part is not type(None)]
    if kind in (tuple[float, ...], tuple[float | str, ...]):
        return str, numbers
    if {float, str} <= {*parts}:
        is_optional = type(None) in typing.get_args(kind)
        return (str | None if is_optional else str), _epsilon
    if kind == tuple[str, ...]:
        return list[str], tuple
    if typing.get_origin(kind) is dict:
        return list[str], settings
    if dict[str, str] in parts:
        return list[str], mapping
    return kind, lambda value: value


def _as_text(default: Any, annotation: Any) -> Any:
    """A field's default as its option has it."""
    if annotation is str and isinstance(default, tuple):
        return ",".join(map(config.epsilon_text, default))
    if annotation is str and isinstance(default, float):
        return config.epsilon_text(default)
    return list(default or ()) if annotation == list[str] else default


def _epsilon(text: str | None) -> Epsilon | None:
    return None if text is None else read_epsilon(text)


def numbers(text: str, option: str = "") -> tuple[Epsilon, ...]:
    """Parses numbers, or decibels, separated by commas; an error names ``option``.

    >>> numbers("0.01,0.03"), numbers("-30 dB, -20 dB")
    ((0.01, 0.03), ('-30 dB', '-20 dB'))
    """
    values = tuple(read_epsilon(part.strip()) for part in text.split(","))
    try:
        return tuple(v if isinstance(v, float) else check_epsilon(v) for v in values)
    except InvalidInput:
        raise InvalidInput(
            f"{option} '{printable(text)}' is not numbers with commas between them".lstrip(),
            remedy=f"Write for example {option} 0.01,0.03".replace("  ", " "),
        ) from None


def settings(words: Sequence[str]) -> dict[str, int | float | bool]:
    """``NAME=VALUE`` of an attack, the values numbers, ``true`` or ``false``.

    >>> settings(["steps=50"])
    {'steps': 50}
    """
    values: dict[str, int | float | bool] = {}
    for word in words:
        name, _, value = word.partition("=")
        try:
            values[name] = json.loads(value, parse_constant=float)
        except ValueError:
            raise InvalidInput(
                f"--set '{printable(word)}' is not NAME=NUMBER",
                remedy="Write for example --set steps=50",
            ) from None
    return values


def mapping(words: Sequence[str]) -> dict[str, str] | None:
    """Pairs ``KEY=VALUE`` with commas between them, or TOML files of such pairs; None for no words.

    >>> mapping(["1=neutral,2=happy"])
    {'1': 'neutral', '2': 'happy'}
    """
    pairs: dict[str, str] = {}
    for word in words:
        if word.endswith(".toml"):
            pairs |= {key: str(value) for key, value in config.read_toml(Path(word)).items()}
            continue
        for pair in word.split(","):
            key, sign, value = pair.partition("=")
            if not (key and sign and value):
                raise InvalidInput(
                    f"'{printable(pair)}' is not KEY=VALUE",
                    remedy="Write for example 1=neutral,2=happy, or the name of a TOML file",
                )
            pairs[key] = value
    return pairs or None
