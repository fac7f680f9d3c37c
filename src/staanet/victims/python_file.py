"""Gives the victim that a function in the user's own file returns: ``python:FILE.py:FACTORY``.

The file runs in this process, with all rights of the user who names it.
"""

from __future__ import annotations

import hashlib
import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

from torch import Tensor, nn

from staanet import storage
from staanet.core import Victim
from staanet.errors import InvalidInput, StaaNetError, printable, unknown_name
from staanet.victims.external import describe_exception, user_errors
from staanet.victims.torch_victim import TorchVictim

ARCHITECTURE = "python"
_NAMED: set[str] = set()
"""What the user named in this process; a card alone never runs a file."""
_REMEDY = "Write python:FILE.py:FACTORY; the function returns a victim, or (module, labels, rate)"

_REMEDY_OF_FUNCTION = (
    "Return staanet.TorchVictim(function, labels, rate) for a function of torch, or "
    "staanet.CallableVictim(function, labels, rate) for one of NumPy"
)


class FromPython(Victim):
    """What a victim of a user's file has besides: clear errors, and a folder that names the file."""

    architecture = ARCHITECTURE
    file: Path
    factory: str
    text: bytes
    """The file as it was when it ran."""

    def forward(self, waveforms: Tensor, lengths: Tensor | None = None) -> Tensor:
        with user_errors(self.name):
            logits: Tensor = super().forward(waveforms, lengths)
        return logits

    def compute_sha256(self) -> str | None:
        """The hash of the model and of the file's text; None where the model has none."""
        inner = super().compute_sha256()
        if inner is None:
            return None
        return hashlib.sha256(inner.encode() + self.text).hexdigest()

    def save_pretrained(self, folder: Path | str, **card: Any) -> None:
        """Write a ``card.json`` that names the file: its code is not copied."""
        about = {"kind": "victim", "architecture": ARCHITECTURE, "name": self.name}
        labels = {"labels": list(self.labels), "sample_rate": self.sample_rate}
        again = {"spec": f"{self.file}:{self.factory}", "sha256": self.sha256}
        storage.write_card(folder, {**about, **labels, **card, **again})


def python_victim(spec: str) -> Victim:
    """The victim that ``FILE.py:FACTORY`` returns.

    The function takes no arguments. It returns a ``Victim``, or a ``torch.nn.Module`` with its labels and
    its sample rate. Raises ``InvalidInput`` with file, line and function where it fails.
    """
    name, _, factory = spec.rpartition(":")
    path = Path(name).expanduser()
    if not name or not factory.isidentifier() or not path.is_file():
        raise InvalidInput(
            "names no file and function" if not name else "no such file or function",
            where=spec,
            remedy=_REMEDY,
        )
    text = path.read_bytes()
    functions = {key: value for key, value in vars(_run(path)).items() if callable(value)}
    if factory not in functions:
        raise unknown_name(
            "function", factory, (key for key in functions if key[0] != "_"), where=path
        )
    try:
        result = functions[factory]()
    except (StaaNetError, KeyboardInterrupt):
        raise
    except BaseException as problem:  # also of sys.exit
        raise _failure(f"{factory} raised {describe_exception(problem)}", path) from problem
    victim = result if isinstance(result, Victim) else _from_parts(result, factory, path)
    kind = type(victim)
    victim.__class__ = type(kind.__name__, (FromPython, kind), {})
    victim.file, victim.factory, victim.text = path.resolve(), factory, text  # type: ignore[assignment]
    _NAMED.add(f"{path.resolve()}:{factory}")
    return victim.requires_grad_(False).eval()


def python_copy(folder: Path) -> Victim:
    """The victim of the file that a folder's card names, where the user named that file, too.

    Raises ``InvalidInput`` elsewhere: no folder runs code by itself.
    """
    spec = str(storage.read_card(folder, "victim").get("spec"))
    if spec not in _NAMED:
        raise InvalidInput(
            f"holds the model of python:{printable(spec)}, and no folder runs code by itself",
            where=folder,
            remedy="Name that file in the same command, if you trust it: it runs as your own code",
        )
    return python_victim(spec)


def _run(path: Path) -> ModuleType:
    """The file as a module; what lies beside it can be imported."""
    name = f"staanet_user_{path.stem}"
    module_spec = importlib.util.spec_from_file_location(name, path)
    if module_spec is None or module_spec.loader is None:
        raise InvalidInput("is no Python file", where=path, remedy=_REMEDY)
    module = importlib.util.module_from_spec(module_spec)
    if (folder := str(path.resolve().parent)) not in sys.path:
        sys.path.append(folder)  # for good: it may import more when it is called
    sys.modules[name] = module  # dataclasses look their module up
    try:
        module_spec.loader.exec_module(module)
    except SyntaxError as problem:
        raise _failure(
            f"{type(problem).__name__} in line {problem.lineno}: {problem.msg}", path
        ) from problem
    except (StaaNetError, KeyboardInterrupt):
        raise
    except BaseException as problem:
        raise _failure(f"raised {describe_exception(problem)}", path) from problem
    return module


def _from_parts(result: Any, factory: str, path: Path) -> Victim:
    parts = result if isinstance(result, tuple) else ()
    if len(parts) != 3 or not isinstance(parts[0], nn.Module):
        kinds = ", ".join(type(part).__name__ for part in parts)
        what = f"{factory} returned {f'({kinds})' if parts else type(result).__name__}"
        if parts and callable(parts[0]) and not isinstance(parts[0], nn.Module):
            raise InvalidInput(what, where=path, remedy=_REMEDY_OF_FUNCTION)
        raise _failure(what, path)
    try:
        return TorchVictim(*parts, name=factory)
    except TypeError as problem:
        raise _failure(f"{factory} returned what is no victim ({problem})", path) from problem


def _failure(what: str, path: Path) -> InvalidInput:
    return InvalidInput(what, where=path, remedy=_REMEDY)
