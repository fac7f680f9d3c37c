"""The sha256 of a Python function: its code, and the weights and settings that it uses."""

from __future__ import annotations

import functools
import hashlib
import types
from typing import Any

import numpy as np
import torch
from torch import nn

from staanet.core.victim import tensors_sha256

_DEEPEST = 100
"""So many objects inside each other are followed; what lies deeper has no hash."""


class _NoHashError(Exception):
    """Something that the function uses cannot be read, such as an open connection."""


def callable_sha256(fn: Any) -> str | None:
    """The sha256 of a function or callable object; None where something it uses cannot be hashed.

    Two functions differ where their code, their defaults, or the modules, arrays and numbers that they
    use from outside differ. Installed libraries count by their names.

    >>> callable_sha256(lambda x: x + 1) == callable_sha256(lambda x: x + 2)
    False
    >>> import io; callable_sha256(io.BytesIO().read) is None
    True
    """
    digest = hashlib.sha256()
    try:
        _add(digest, fn, {}, 0)
    except _NoHashError:
        return None
    return digest.hexdigest()


def _add(digest: Any, value: Any, visited: dict[int, tuple[int, Any]], depth: int) -> None:
    """Add ``value`` to ``digest``; an object that was visited before counts by its number."""
    if depth > _DEEPEST:
        raise _NoHashError
    digest.update(f"<{type(value).__module__}.{type(value).__qualname__}>".encode())
    if isinstance(value, types.FunctionType | type | nn.Module) or hasattr(value, "__dict__"):
        if id(value) in visited:
            digest.update(str(visited[id(value)][0]).encode())
            return
        visited[id(value)] = len(visited), value  # the reference keeps its id from being used again
    for part in _parts(digest, value):
        _add(digest, part, visited, depth + 1)


def _parts(digest: Any, value: Any) -> list[Any]:
    """Adds the content of ``value`` to the hash; returns the values that it contains."""
    if value is None or isinstance(value, bool | int | float | complex | str | bytes):
        digest.update(repr(value).encode())
        return []
    if isinstance(value, np.ndarray | np.generic):
        array = np.asarray(value)
        if array.dtype.hasobject:
            return [array.shape, array.ravel().tolist()]
        digest.update(
            f"{array.dtype}{array.shape}".encode() + np.ascontiguousarray(array).tobytes()
        )
        return []
    if isinstance(value, torch.Tensor):
        return [value.detach().cpu().numpy()]
    if isinstance(value, types.ModuleType | types.BuiltinFunctionType | type | np.ufunc):
        return _by_name(digest, value)
    if isinstance(value, list | tuple):
        return [len(value), *value]
    if isinstance(value, set | frozenset):
        return sorted(value, key=repr)
    if isinstance(value, dict):
        return [part for item in value.items() for part in item]
    if isinstance(value, functools.partial):
        return [value.func, value.args, value.keywords]
    if isinstance(value, types.MethodType):
        return [value.__func__, value.__self__]
    if isinstance(value, types.CodeType):
        return [value.co_code, value.co_names, value.co_varnames, value.co_consts]
    if isinstance(value, types.FunctionType):
        return _function_parts(digest, value)
    return _object_parts(value)


def _by_name(digest: Any, value: Any) -> list[Any]:
    """A library, a class or a built-in function counts by its name; a bound built-in has no hash."""
    bound = getattr(value, "__self__", None)
    if isinstance(value, types.BuiltinFunctionType) and not isinstance(
        bound, types.ModuleType | type | None
    ):
        raise _NoHashError
    name = getattr(value, "__qualname__", value.__name__)
    digest.update(f"{getattr(value, '__module__', '')}.{name}".encode())
    return _user_code(value) if isinstance(value, type) else []


def _user_code(kind: type) -> list[Any]:
    """The functions of a class that no installed library brings."""
    functions = [f for f in vars(kind).values() if isinstance(f, types.FunctionType)]
    return [f for f in functions if not is_library_file(f.__code__.co_filename)]


def _function_parts(digest: Any, fn: types.FunctionType) -> list[Any]:
    """A library's function by its name; a user's by its code and all that it refers to."""
    if is_library_file(fn.__code__.co_filename):
        digest.update(f"{fn.__module__}.{fn.__qualname__}".encode())
        return []
    try:
        cells = [cell.cell_contents for cell in fn.__closure__ or ()]
    except ValueError as problem:  # a name that is not bound yet
        raise _NoHashError from problem
    names = _global_names(fn.__code__)
    values = [fn.__globals__[name] for name in names if name in fn.__globals__]
    return [fn.__code__, fn.__defaults__, fn.__kwdefaults__, cells, values]


def _global_names(code: types.CodeType) -> list[str]:
    """The names that code and the functions inside it refer to, in order."""
    inner = [const for const in code.co_consts if isinstance(const, types.CodeType)]
    names = [*code.co_names, *(name for part in inner for name in _global_names(part))]
    return list(dict.fromkeys(names))


def is_library_file(filename: str) -> bool:
    """Whether code belongs to an installed library."""
    return any(part in filename for part in ("site-packages", "dist-packages", "/lib/python"))


def _object_parts(value: Any) -> list[Any]:
    """An object by its class's code and its attributes; a network by its tensors besides."""
    code = _user_code(type(value))
    if isinstance(value, nn.Module):
        children = [(name, type(part).__qualname__) for name, part in value.named_modules()]
        forward = [getattr(type(part), "forward", None) for part in value.modules()]
        return [tensors_sha256(value), children, forward, *code]
    if not hasattr(value, "__dict__"):
        raise _NoHashError
    return [*code, vars(value)]
