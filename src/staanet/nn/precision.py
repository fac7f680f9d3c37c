"""In which precision networks run: float32, or bfloat16 on a GPU that has units for it.

With bfloat16 the dense products of a network are rounded (``torch.autocast``); its weights stay float32, and
so does what a rounding would spoil: statistics and norms, the way through an LSTM, maxima over samples, defences, losses,
margins, and all that an attack promises of a clip. Nothing is scaled: bfloat16 reaches as far as float32.
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
Settled = Literal["bfloat16", "float32"]
P = ParamSpec("P")
R = TypeVar("R")


def settled(precision: str, device: str | torch.device) -> Settled:
    """``float32`` or ``bfloat16``; ``auto`` as it is best on ``device``.

    Raises ``InvalidInput`` where bfloat16 has no units of its own: it would be slower, not faster.

    >>> settled("auto", "cpu")
    'float32'
    """
    if precision not in PRECISIONS:
        raise unknown_name("precision", precision, PRECISIONS)
    on_gpu = torch.device(device).type == "cuda"
    able = on_gpu and torch.cuda.is_bf16_supported(including_emulation=False)
    if precision == "auto":
        return "bfloat16" if able else "float32"
    if precision == "bfloat16" and not able:
        raise InvalidInput(
            f"{device} has no units for bfloat16: it would be slower with it, not faster",
            remedy="Leave --precision out, or give --device cuda on a GPU from 2020 or later",
        )
    return "bfloat16" if precision == "bfloat16" else "float32"


def networks_in(precision: str, device: torch.device) -> contextlib.AbstractContextManager[object]:
    """Where networks on ``device`` run in a settled ``precision``.

    >>> with networks_in("bfloat16", torch.device("cpu")):
    ...     (torch.ones(2, 2) @ torch.ones(2, 2)).dtype
    torch.bfloat16
    """
    if precision == "float32":
        return contextlib.nullcontext()
    return torch.autocast(device.type, dtype=torch.bfloat16)


def in_float32(function: Callable[P, R]) -> Callable[P, R]:
    """The function, never rounded: without autocast, and given its tensors in float32.

    >>> with networks_in("bfloat16", torch.device("cpu")):
    ...     in_float32(torch.mm)(torch.ones(2, 2).bfloat16(), torch.ones(2, 2)).dtype
    torch.float32
    """

    @functools.wraps(function)
    def exact(*args: P.args, **kwargs: P.kwargs) -> R:
        rounding = [kind for kind in ("cpu", "cuda") if torch.is_autocast_enabled(kind)]
        if not rounding:
            return function(*args, **kwargs)
        with contextlib.ExitStack() as stack:
            for kind in rounding:
                stack.enter_context(torch.autocast(kind, enabled=False))
            whole = {name: _unrounded(value) for name, value in kwargs.items()}
            return function(*map(_unrounded, args), **whole)  # type: ignore[arg-type]

    return exact


def _unrounded(value: object) -> object:
    rounded = isinstance(value, Tensor) and value.dtype in (torch.bfloat16, torch.float16)
    return value.float() if rounded else value  # type: ignore[attr-defined]
