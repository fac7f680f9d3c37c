"""Names and sizes that readers rely on: no filler words as names, no long files, long functions or wide signatures."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[1] / "src" / "staanet"
FILES = sorted(SOURCE.rglob("*.py"))
FILLERS = frozenset(
    [
        "one",
        "found",
        "told",
        "place",
        "own",
        "wanted",
        "made",
        "said",
        "kept",
        "given",
        "known",
        "seen",
        "meant",
        "left",
        "wish",
        "asked",
        "heard",
        "tried",
        "drawn",
    ]
)
LONGEST_FILE, LONGEST_FUNCTION, MOST_PARAMETERS = 400, 60, 8


def bound_names(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Yields the line and name of each variable, parameter, function and class."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node.lineno, node.name
        elif isinstance(node, ast.arg):
            yield node.lineno, node.arg
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.lineno, node.id


def functions(tree: ast.AST) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    return (n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef))


def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(SOURCE).as_posix())
def test_names_say_what_they_hold(path: Path) -> None:
    fillers = [
        f"line {line}: {name}" for line, name in bound_names(parsed(path)) if name in FILLERS
    ]
    assert fillers == []


def test_files_are_short() -> None:
    long = {
        p.relative_to(SOURCE).as_posix()
        for p in FILES
        if p.read_text("utf-8").count("\n") > LONGEST_FILE
    }
    assert long == set()


def test_functions_are_short() -> None:
    long = {
        f"{path.relative_to(SOURCE).as_posix()}:{f.name}"
        for path in FILES
        for f in functions(parsed(path))
        if (f.end_lineno or 0) - f.lineno >= LONGEST_FUNCTION
    }
    assert long == set()


def test_signatures_are_narrow() -> None:
    wide = {
        f"{path.relative_to(SOURCE).as_posix()}:{f.name}"
        for path in FILES
        for f in functions(parsed(path))
        if sum(
            a.arg not in ("self", "cls")
            for a in (*f.args.posonlyargs, *f.args.args, *f.args.kwonlyargs)
        )
        > MOST_PARAMETERS
    }
    assert wide == set()


def test_no_line_escapes_the_formatter() -> None:
    assert sum(path.read_text("utf-8").count("# fmt: skip") for path in FILES) <= 10
