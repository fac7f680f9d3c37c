"""Names for shell completion, read from the registries' source text, because imports take seconds."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterable
from pathlib import Path

PACKAGE = Path(__file__).parents[1]
FILE_KINDS = ("onnx:", "audonnx:", "torchscript:", "python:")
"""How the names of models begin that lie in files."""
Completion = Callable[[str], list[str]]
"""A completion function: the start of a word -> the words that begin so."""


def registry(module: str, name: str) -> list[str]:
    """The keys of the dict ``name`` that ``staanet/MODULE`` writes out, without importing it.

    >>> "pgd" in registry("attacks/__init__.py", "ATTACKS")
    True
    """
    return sorted(_entries_of(module, name))


def descriptions(module: str, name: str) -> dict[str, str]:
    """The keys of such a dict, each with the first sentence about it: of its class, or of its reader's file.

    >>> descriptions("attacks/__init__.py", "ATTACKS")["random"].endswith(".")
    True
    """
    documented: dict[str, str] = {}
    for path in (PACKAGE / module).parent.glob("*.py"):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for node in tree.body:
            if isinstance(node, ast.ClassDef | ast.FunctionDef):
                owner = node if isinstance(node, ast.ClassDef) else tree
                documented[node.name] = first_sentence(ast.get_docstring(owner) or "")
    return {
        key: documented.get(value, "") for key, value in sorted(_entries_of(module, name).items())
    }


def first_sentence(text: str) -> str:
    """The first sentence of the first paragraph, in one line.

    >>> first_sentence("Noise, such\\nas 20. And more.")
    'Noise, such as 20.'
    """
    paragraph = " ".join(text.partition("\n\n")[0].replace("``", "").split())
    return re.split(r"(?<=[.!?]) (?=[A-Z])", paragraph)[0]


def _entries_of(module: str, name: str) -> dict[str, str]:
    """The keys of a dict that a module writes out, and the names that stand for its values."""
    for node in ast.parse((PACKAGE / module).read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign | ast.AnnAssign) and isinstance(node.value, ast.Dict):
            target = node.targets[0] if isinstance(node, ast.Assign) else node.target
            if isinstance(target, ast.Name) and target.id == name:
                pairs = zip(node.value.keys, node.value.values, strict=True)
                return {
                    str(key.value): ast.unparse(value)
                    for key, value in pairs
                    if isinstance(key, ast.Constant)
                }
    return {}


def among(choices: Callable[[], Iterable[str]] | Iterable[str]) -> Completion:
    """The completion of a word that is one of these; a function is called when they are needed."""

    def complete(incomplete: str) -> list[str]:
        words = choices() if callable(choices) else choices
        return [word for word in words if word.startswith(incomplete)]

    return complete


def _shipped() -> Iterable[str]:
    from staanet.config import shipped_recipes

    return shipped_recipes()


attacks = among(lambda: registry("attacks/__init__.py", "ATTACKS"))
victims = among(lambda: registry("victims/__init__.py", "VICTIMS"))
generators = among(lambda: registry("generators/registry.py", "GENERATORS"))
transforms = among(lambda: registry("transforms/__init__.py", "TRANSFORMS"))
augmentations = among(
    lambda: ["everyday", "none", *registry("transforms/__init__.py", "TRANSFORMS")]
)
parts = among(("train", "dev", "test", "all"))
kinds = among(lambda: [f"{name}:" for name in registry("corpora/__init__.py", "CORPORA")])


def _shipped_models(kind: str) -> list[str]:
    from staanet.storage import pretrained

    return [f"{pretrained.SCHEME}:{name}" for name in pretrained.names(kind)]


def models(incomplete: str) -> list[str]:
    """Shipped victims by their names, the beginnings of other models' names, and folders.

    After a kind and its colon, as in ``onnx:``, the files and folders that begin so.

    >>> "shipped:emo18" in models("shipped:e")
    True
    """
    return _models(incomplete, "victims", ("hf:", *FILE_KINDS))


def generator_folders(incomplete: str) -> list[str]:
    """Shipped generators by their names, and folders."""
    return _models(incomplete, "generators", ())


def _models(incomplete: str, kind: str, beginnings: Iterable[str]) -> list[str]:
    scheme, colon, path = incomplete.partition(":")
    if colon and f"{scheme}:" in FILE_KINDS:
        return [f"{scheme}:{entry}" for entry in _entries(path, only_folders=False)]
    words = among(lambda: [*_shipped_models(kind), *beginnings])(incomplete)
    return [*words, *_entries(incomplete, only_folders=True)]


def recipes(incomplete: str) -> list[str]:
    """Shipped recipes, and files."""
    return [*among(_shipped)(incomplete), *_entries(incomplete, only_folders=False)]


def corpora(incomplete: str) -> list[str]:
    """Kinds, with the colon after which a path stands; after it, the folders that begin so."""
    kind, colon, path = incomplete.partition(":")
    if not colon:
        return kinds(incomplete)
    return [f"{kind}:{entry}" for entry in _entries(path, only_folders=True)]


def inputs(incomplete: str) -> list[str]:
    """Completes a corpus kind, or files and folders."""
    if ":" in incomplete:
        return corpora(incomplete)
    return [*kinds(incomplete), *_entries(incomplete, only_folders=False)]


def _entries(path: str, *, only_folders: bool) -> list[str]:
    """What lies in a folder and begins as ``path`` does; hidden ones only where a dot was typed."""
    whole = path.endswith("/") or not path
    above, start = (Path(path), "") if whole else (Path(path).parent, Path(path).name)
    try:
        entries = sorted(entry for entry in above.iterdir() if entry.name.startswith(start))
        return [
            entry.as_posix()
            for entry in entries
            if start.startswith(".") == entry.name.startswith(".")
            and (entry.is_dir() or not only_folders)
        ]
    except OSError:
        return []
