"""``python -m bench mutate --module storage --n 100``: would the tests notice? Faults planted in the code.

One at a time an operator, a constant, a condition or a statement of the module is changed in a copy of the
package, and the tests that speak of the module run on it in a forked child (heavy libraries are imported
once). A mutant that no test notices is named with its line.

>>> len(planted("def f(a):\\n    return a < 1\\n")) >= 3
True
"""

from __future__ import annotations

import ast
import copy
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
MODULES = {
    "storage": ("storage", "", ["storage/test_storage.py"]),
    "audio": ("audio", "", ["audio/test_audio.py", "audio/test_containers.py"]),
    "metrics": ("core/metrics.py", "", ["core/test_metrics.py"]),
    "budget": ("core/budget.py", "Budget", ["core/test_core.py"]),
}
"""File or folder, class (all of the file where empty) and tests of each module."""
SWAPS: dict[type[ast.AST], list[type[ast.AST]]] = {
    ast.Lt: [ast.LtE, ast.GtE],
    ast.LtE: [ast.Lt, ast.Gt],
    ast.Gt: [ast.GtE, ast.LtE],
    ast.GtE: [ast.Gt, ast.Lt],
    ast.Eq: [ast.NotEq],
    ast.NotEq: [ast.Eq],
    ast.Is: [ast.IsNot],
    ast.IsNot: [ast.Is],
    ast.In: [ast.NotIn],
    ast.NotIn: [ast.In],
    ast.Add: [ast.Sub],
    ast.Sub: [ast.Add],
    ast.Mult: [ast.Div],
    ast.Div: [ast.Mult],
    ast.FloorDiv: [ast.Mult],
    ast.Mod: [ast.Mult],
    ast.And: [ast.Or],
    ast.Or: [ast.And],
    ast.BitAnd: [ast.BitOr],
    ast.BitOr: [ast.BitAnd],
}


def planted(source: str, within: str = "") -> list[tuple[int, str, str]]:
    """Every mutant: line, what was changed, and the whole source. Docstrings, annotations and type-checking
    imports are left alone."""
    tree = ast.parse(source)
    count = sum(1 for _ in _sites(tree, within))
    mutants = []
    for number in range(count):
        made = copy.deepcopy(tree)
        line, what, change = next(s for n, s in enumerate(_sites(made, within)) if n == number)
        change()
        mutants.append((line, what, ast.unparse(ast.fix_missing_locations(made))))
    return mutants


def _sites(tree: ast.Module, within: str) -> Iterator[tuple[int, str, Callable[[], None]]]:
    tops = [n for n in tree.body if not within or getattr(n, "name", "") == within]
    for top in tops:
        for node in ast.walk(top):
            if isinstance(node, ast.FunctionDef):
                for inner in _evaluated(node):
                    yield from _changes(inner)


def _evaluated(node: ast.AST) -> Iterator[ast.AST]:
    """A node and all below it, but for annotations, which nothing evaluates."""
    yield node
    for name, value in ast.iter_fields(node):
        if name not in ("annotation", "returns"):
            for child in value if isinstance(value, list) else [value]:
                if isinstance(child, ast.AST):
                    yield from _evaluated(child)


def _changes(node: ast.AST) -> Iterator[tuple[int, str, Callable[[], None]]]:
    line = getattr(node, "lineno", 0)
    if isinstance(node, ast.Compare):
        for place, operator in enumerate(node.ops):
            for other in SWAPS.get(type(operator), []):
                yield (
                    line,
                    f"{_name(operator)} -> {_name(other())}",
                    lambda p=place, o=other: node.ops.__setitem__(p, o()),
                )
    elif isinstance(node, ast.BinOp | ast.BoolOp):
        for other in SWAPS.get(type(node.op), []):
            yield (
                line,
                f"{_name(node.op)} -> {_name(other())}",
                lambda o=other: setattr(node, "op", o()),
            )
    elif isinstance(node, ast.Constant) and isinstance(node.value, int | float):
        value = node.value
        changed = not value if isinstance(value, bool) else value + 1
        yield line, f"{value} -> {changed}", lambda: setattr(node, "value", changed)
    elif isinstance(node, ast.If | ast.IfExp | ast.While):
        negated = ast.UnaryOp(ast.Not(), node.test)
        yield line, "condition negated", lambda: setattr(node, "test", negated)
    elif isinstance(node, ast.Return) and node.value is not None:
        yield line, "returns None", lambda: setattr(node, "value", ast.Constant(None))
    elif isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
        yield (
            line,
            f"no call of {ast.unparse(node.value.func)[:40]}",
            lambda: setattr(node, "value", ast.Constant(None)),
        )
    elif isinstance(node, ast.Raise):
        yield (
            line,
            "raises nothing",
            lambda: node.__dict__.update(exc=ast.Call(ast.Name("SystemExit", ast.Load()), [], [])),
        )


def _name(operator: ast.AST) -> str:
    return type(operator).__name__


def main(module: str, n: int, seed: int) -> str:
    """Try ``n`` of a module's mutants, drawn by the seed; the figures as Markdown."""
    file, within, tests = MODULES[module]
    package = ROOT / "src" / "staanet"
    paths = sorted((package / file).rglob("*.py")) or [package / file]
    sources = {path.relative_to(package): path.read_text(encoding="utf-8") for path in paths}
    mutants = [
        (path, *mutant) for path, source in sources.items() for mutant in planted(source, within)
    ]
    chosen = sorted(
        random.Random(f"{seed} {module}").sample(range(len(mutants)), min(n, len(mutants)))
    )
    memory = Path("/dev/shm")  # most of these tests' time is a disk's that flushes
    place = memory if os.access(memory, os.W_OK) else None
    folder = Path(tempfile.mkdtemp(prefix="staanet-mutate-", dir=place))
    shutil.copytree(ROOT / "src", folder / "src", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(ROOT / "recipes", folder / "recipes")
    _warm_up()
    begun, missed = time.monotonic(), []
    try:
        limit = 5 * _noticed(folder, tests, 3600)[1] + 30
        for done, number in enumerate(chosen, start=1):
            path, line, what, changed = mutants[number]
            copy = folder / "src" / "staanet" / path
            copy.write_text(changed, encoding="utf-8")
            if not _noticed(folder, tests, limit)[0]:
                missed.append(f"{path}:{line}: {what}")
                print(missed[-1], file=sys.stderr)
            copy.write_text(sources[path], encoding="utf-8")
            left = (time.monotonic() - begun) / done * (len(chosen) - done)
            print(
                f"{done}/{len(chosen)} mutants of {module}, {len(missed)} missed, about {left:.0f} s left",
                file=sys.stderr,
                flush=True,
            )
    finally:
        shutil.rmtree(folder)
    killed = len(chosen) - len(missed)
    return "\n".join(
        [
            f"The command was `python -m bench mutate --module {module} --n {n} --seed {seed}`. The tests "
            f"{', '.join(tests)} detected {killed} of {len(chosen)} mutants ({100 * killed / len(chosen):.0f} %). "
            f"The module has {len(mutants)} possible mutants. The list shows the undetected mutants.",
            "",
            *(f"* `{one}`" for one in missed),
        ]
    ).strip()


def _warm_up() -> None:
    import hypothesis  # noqa: F401
    import pytest  # noqa: F401
    import scipy.stats  # noqa: F401
    import soundfile  # noqa: F401
    import torch  # noqa: F401


def _noticed(folder: Path, tests: list[str], limit: float) -> tuple[bool, float]:
    """Whether a test fails (or does not end) on the package in ``folder``, and after how long."""
    begun = time.monotonic()
    child = os.fork()
    if child == 0:
        os.setpgid(0, 0)
        code = 99
        try:
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
            os.dup2(1, 2)
            os.chdir(ROOT)
            sys.path[:0] = [str(folder / "src"), str(ROOT / "tests"), str(ROOT)]
            os.environ["PYTHONPATH"] = os.pathsep.join([str(folder / "src"), str(ROOT)])
            sys.dont_write_bytecode = True
            for name in [name for name in sys.modules if name.split(".")[0] == "staanet"]:
                del sys.modules[name]
            import pytest

            made = f"--basetemp={folder / 'made'}"
            code = int(
                pytest.main(
                    ["-x", "-q", "-p", "no:cacheprovider", made, *(f"tests/{t}" for t in tests)]
                )
            )
        finally:
            os._exit(code)
    while True:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status) != 0, time.monotonic() - begun
        if time.monotonic() - begun > limit:
            os.killpg(child, signal.SIGKILL)
            os.waitpid(child, 0)
            return True, limit
        time.sleep(0.05)
