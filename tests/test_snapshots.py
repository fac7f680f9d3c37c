"""What users see and files hold, pinned: the help of each command, each shipped recipe as resolved, the keys of cards.

A change of these is a change for users. Write them anew with ``STAANET_SNAPSHOT=write pytest tests/test_snapshots.py``
and read the difference before it is committed.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from typer.main import get_command
from typer.testing import CliRunner

from staanet import config
from staanet.cli import app

FOLDER = Path(__file__).parent / "snapshots"
RECIPES = sorted((Path(__file__).parents[1] / "recipes").glob("*.toml"))
COMMANDS = sorted(get_command(app).commands)


def check(name: str, text: str) -> None:
    path = FOLDER / name
    if os.environ.get("STAANET_SNAPSHOT") == "write":
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    assert path.read_text(encoding="utf-8") == text, f"{name} changed; see the docstring"


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_a_shipped_recipe_resolves_to_the_same_experiment(path: Path) -> None:
    check(f"recipes/{path.name}", config.to_toml(config.load_recipe(str(path))))


@pytest.mark.parametrize("name", COMMANDS)
def test_the_help_of_a_command_is_the_same(name: str) -> None:
    result = CliRunner().invoke(app, [name, "--help"], env={"COLUMNS": "100"}, terminal_width=100)
    assert result.exit_code == 0
    check(f"help/{name}.txt", result.stdout)


def shape(value: object) -> object:
    """The keys and types of a card: what other tools rely on."""
    if isinstance(value, dict):
        return {key: shape(value[key]) for key in sorted(value)}
    if isinstance(value, list):
        return [shape(value[0])] if value else []
    return type(value).__name__


@pytest.mark.parametrize("folder", ["victims/emo18", "victims/zhao19", "generators/emo18-zhao19"])
def test_the_keys_of_a_shipped_card_are_the_same(folder: str) -> None:
    import staanet

    path = Path(staanet.__file__).parent / "models" / folder / "card.json"
    card = json.loads(path.read_text(encoding="utf-8"))
    check(f"cards/{Path(folder).name}.json", json.dumps(shape(card), indent=1) + "\n")
