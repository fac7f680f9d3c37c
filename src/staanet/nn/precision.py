"""The precision that networks run in: float32, or bfloat16 on a GPU that has units for it.

With bfloat16 the dense products of a network are rounded (``torch.autocast``). Weights stay in float32,
and so does everything that rounding would spoil: statistics and norms, recurrent layers, max-pooling
over samples, defences, losses, margins, and all limits of an attack. Nothing is scaled, because bfloat16
has the range of float32.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable
from typing import Literal, ParamSpec, TypeVar

import torch
from torch import Tensor

from staanet.errors import InvalidInput, unknown_name

PRECISIONS = ("auto", "bfloat16", "float32")
ResolvedPrecision = Literal["bfloat16", "float32"]
P = ParamSpec("P")
R = TypeVar("R")


def resolve_precision(precision: str, device: str | torch.device) -> ResolvedPrecision:
    """Returns ``float32`` or ``bfloat16``; ``auto`` becomes the best on ``device``.

    Raises ``InvalidInput`` where the device has no units for bfloat16, because it would be slower.

    >>> resolve_precision("auto", "cpu")
    'float32'
    """
    if precision not in PRECISIONS:
        raise unknown_name("precision", precision, PRECISIONS)
    on_gpu = torch.device(device).type == "cuda"
    supported = on_gpu and torch.cuda.is_bf16_supported(including_emulation=False)
    if precision == "auto":
        return "bfloat16" if supported else "float32"
    if precision == "bfloat16" and not supported:
        raise InvalidInput(
            f"{device} has no units for bfloat16: it would be slower with it, not faster",
            remedy="Leave --precision out, or give --device cuda on a GPU from 2020 or later",
        )
    return "bfloat16" if precision == "bfloat16" else "float32"


def autocast(precision: str, device: torch.device) -> contextlib.AbstractContextManager[object]:
    """The context in which networks on ``device`` run in a resolved ``precision``.

    >>> with autocast("bfloat16", torch.device("cpu")):
    ...     (torch.ones(2, 2) @ torch.ones(2, 2)).dtype
    torch.bfloat16
    """
    if precision == "float32":
        return contextlib.nullcontext()
    return torch.autocast(device.type, dtype=torch.bfloat16)


def in_float32(function: Callable[P, R]) -> Callable[P, R]:
    """Decorates a function that must not be rounded: it runs without autocast, on float32 tensors.

    >>> with autocast("bfloat16", torch.device("cpu")):
    ...     in_float32(torch.mm)(torch.ones(2, 2).bfloat16(), torch.ones(2, 2)).dtype
    torch.float32
    """

    @functools.wraps(function)
    def unrounded(*args: P.args, **kwargs: P.kwargs) -> R:
        active = [kind for kind in ("cpu", "cuda") if torch.is_autocast_enabled(kind)]
        if not active:
            return function(*args, **kwargs)
        with contextlib.ExitStack() as stack:
            for kind in active:
                stack.enter_context(torch.autocast(kind, enabled=False))
            float_kwargs = {name: _as_float32(value) for name, value in kwargs.items()}
            return function(*map(_as_float32, args), **float_kwargs)  # type: ignore[arg-type]

    return unrounded


def _as_float32(value: object) -> object:
    is_half = isinstance(value, Tensor) and value.dtype in (torch.bfloat16, torch.float16)
    return value.float() if is_half else value  # type: ignore[attr-defined]
