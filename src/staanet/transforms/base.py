"""``Transform``: the interface, its notation as text, and how it is applied.

A transform has two uses. In front of a victim it is a defence (``staanet.defences.Defended``). On the
way to a victim it is a channel, which ``transform_samples`` applies to the 16-bit samples of a clip.
"""

from __future__ import annotations

import dataclasses
import hashlib
import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, NamedTuple, Protocol, runtime_checkable

import torch
from torch import Tensor

from staanet import audio
from staanet.config import SAMPLE_RATE
from staanet.core import Samples, valid_mask
from staanet.errors import InvalidInput, printable, unknown_name

Limits = Mapping[str, tuple[float, float]]
"""The lowest and the highest value of each setting."""


@runtime_checkable
class Transform(Protocol):
    """A change of waveforms: ``x [B, T]`` in [-1, 1] -> ``[B, T]`` in [-1, 1], aligned with its input.

    Those of ``edits.py`` move a clip in time: ``new_length`` is a clip's length after them. Samples beyond
    ``lengths`` stay zero and change nothing before them. The gradient is exact almost everywhere where
    ``has_exact_gradient`` is True; otherwise it is that of the identity (BPDA, Athalye et al. 2018,
    arXiv 1802.00420). A transform with ``is_random`` draws from ``generator`` and
    needs it; every other transform is a function of the clip. ``str`` of a transform is the text that
    ``parse_transform`` reads.
    """

    @property
    def name(self) -> str: ...

    @property
    def is_random(self) -> bool: ...

    @property
    def has_exact_gradient(self) -> bool: ...

    def new_length(self, length: int) -> int: ...

    def __call__(
        self,
        x: Tensor,
        lengths: Tensor | None = None,
        generator: torch.Generator | None = None,
        *,
        sample_rate: int = SAMPLE_RATE,
    ) -> Tensor: ...


class BatchInfo(NamedTuple):
    """What ``change`` may use besides the waveforms ``[B, T]``; see ``Transform``.

    ``lengths`` is ``[B]``, or None where each clip fills its row. ``sample_rate`` is in Hz.
    """

    lengths: Tensor | None
    generator: torch.Generator | None
    sample_rate: int

    def lengths_of(self, x: Tensor) -> Tensor:
        """The length of each clip of ``x [B, T]``, ``[B]``."""
        return (
            x.new_full((len(x),), x.shape[1], dtype=torch.long)
            if self.lengths is None
            else self.lengths
        )


class BaseTransform:
    """Base class of the transforms' dataclasses: checks settings, and writes them as text.

    A subclass is a frozen dataclass whose fields are numbers; ``limits`` holds their ranges. It implements
    ``change``. Samples beyond a clip's end are set to zero before and after ``change``, and its result is
    clipped to full scale.
    """

    __slots__ = ()
    name: ClassVar[str]
    is_random: ClassVar[bool] = False
    has_exact_gradient: ClassVar[bool] = True
    limits: ClassVar[Limits] = {}

    def __post_init__(self) -> None:
        problem = self.range_problem() or self.setting_problem()
        if problem:
            raise _wrong_setting(type(self), problem)

    def range_problem(self) -> str:
        """The first setting outside its limits, as a sentence; empty where all are inside."""
        for key, (low, high) in self.limits.items():
            value = getattr(self, key)
            if value is not None and not low <= value <= high:  # NaN fails this comparison too
                return f"{key} is {value:g}, not from {low:g} to {high:g}"
        return ""

    def setting_problem(self) -> str:
        """What else is wrong with the settings, or lacking on this machine; empty where nothing is."""
        return ""

    def problem_at(self, sample_rate: int) -> str:
        """Why the transform cannot work, or changes nothing, at a rate; empty where it works."""
        return ""

    def new_length(self, length: int) -> int:
        """Returns the number of samples of a clip of ``length`` after the transform, used as a channel."""
        return length

    def change(self, x: Tensor, info: BatchInfo) -> Tensor:
        """Returns the transformed clips, ``[B, T] -> [B, T]``; ``x`` is zero beyond each clip's end."""
        raise TypeError(f"{type(self).__name__} does not implement change")

    def __call__(
        self,
        x: Tensor,
        lengths: Tensor | None = None,
        generator: torch.Generator | None = None,
        *,
        sample_rate: int = SAMPLE_RATE,
    ) -> Tensor:
        """See ``Transform``."""
        clean = mask_padding(x, lengths)
        if not self.has_exact_gradient:
            clean = clean.detach()
        changed = self.change(clean, BatchInfo(lengths, generator, sample_rate))
        changed = mask_padding(changed, lengths).clamp(-1, 1)
        return changed if self.has_exact_gradient else straight_through(x, changed)

    def __str__(self) -> str:
        values = [getattr(self, name) for name in _setting_names(type(self))]
        while values and values[-1] is None:
            values.pop()
        settings = ",".join(f"{value:.12g}" for value in values)
        return f"{self.name}:{settings}" if settings else self.name


# ---------------------------------------------------------------- text


def parse(text: str, registry: Mapping[str, type[Any]]) -> Transform:
    """The transform of ``NAME[:SETTING[,SETTING...]]`` in ``registry``; see ``parse_transform``."""
    name, colon, settings = text.partition(":")
    if name not in registry:
        raise unknown_name("transform", name, registry)
    kind = registry[name]
    names = _setting_names(kind)
    if name == "bandpass" and "," not in settings:
        settings = settings.replace("-", ",", 1)  # 300-3400, as a band is usually written
    values: dict[str, float] = {}
    for index, part in enumerate(settings.split(",") if colon else []):
        key, equals, value = part.partition("=")
        if not equals:
            if index >= len(names):
                raise _wrong_setting(
                    kind, f"takes {len(names)} settings, '{printable(settings)[:40]}' has more"
                )
            key, value = names[index], part
        if key not in names:
            raise unknown_name(f"setting of the transform {name}", key, names)
        values[key] = _number(kind, key, value)
    transform: Transform = kind(**values)
    return transform


def _setting_names(kind: type[Any]) -> list[str]:
    return [setting.name for setting in dataclasses.fields(kind)]


def _number(kind: type[BaseTransform], key: str, value: str) -> float:
    """A setting's text as the number that its field holds, whole or not."""
    defaults = {setting.name: setting.default for setting in dataclasses.fields(kind)}  # type: ignore[arg-type]
    is_whole = isinstance(defaults[key], int)
    try:
        number = int(value) if is_whole else float(value)
        if math.isfinite(number):
            return number
    except (ValueError, OverflowError):
        pass
    whole = "whole " if is_whole else ""
    raise _wrong_setting(kind, f"{key} is '{printable(value)[:40]}', not a {whole}number")


def _wrong_setting(kind: type[BaseTransform], problem: str) -> InvalidInput:
    values = [setting.default for setting in dataclasses.fields(kind)]  # type: ignore[arg-type]
    settings = ",".join(f"{value:g}" for value in values if value is not None)
    example = f"{kind.name}:{settings}" if settings else kind.name
    return InvalidInput(f"transform {kind.name}: {problem}", remedy=f"Write for example {example}")


# ---------------------------------------------------------------- use


def transform_samples(
    transform: Transform, samples: Samples, sample_rate: int, *, seed: int = 0
) -> Samples:
    """Applies a transform as a channel, to the 16-bit samples of a clip: ``[T] -> [new_length(T)]``.

    The same samples, rate and ``seed`` give the same result. ``clip_seed`` gives a clip and its
    adversarial twin the same noise and the same room.
    """
    if not len(samples):
        return samples.copy()
    length = transform.new_length(len(samples))
    x = torch.zeros(1, max(len(samples), length), dtype=torch.float64)
    x[0, : len(samples)] = torch.from_numpy(samples.astype("float64") / audio.FULL_SCALE)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        changed = transform(x, None, generator, sample_rate=sample_rate)[0, :length]
    return audio.snap(changed.numpy())


def clip_seed(clip_id: str) -> int:
    """The seed of a clip's noise and room, the same in every evaluation.

    >>> clip_seed("03a01Fa") == clip_seed("03a01Fa") != clip_seed("03a01Nc")
    True
    """
    return int.from_bytes(hashlib.sha256(clip_id.encode("utf-8", "surrogatepass")).digest()[:8])


def apply_chain(
    chain: Sequence[Transform],
    x: Tensor,
    lengths: Tensor | None,
    generators: Sequence[torch.Generator],
    sample_rate: int,
) -> Tensor:
    """Applies the transforms of ``chain`` in order, ``[B, T] -> [B, T]``.

    ``generators`` holds one source of randomness per clip, so that a batch changes nothing. It may be
    empty where no transform of the chain is random.
    """
    for transform in chain:
        if transform.is_random:
            x = _row_by_row(transform, x, lengths, generators, sample_rate)
        else:
            x = transform(x, lengths, sample_rate=sample_rate)
    return x


def _row_by_row(
    transform: Transform,
    x: Tensor,
    lengths: Tensor | None,
    generators: Sequence[torch.Generator],
    sample_rate: int,
) -> Tensor:
    y = torch.zeros_like(x)
    for row, generator in enumerate(generators):
        length = x.shape[1] if lengths is None else int(lengths[row])
        clip = x[row : row + 1, :length]
        y[row, :length] = transform(clip, None, generator, sample_rate=sample_rate)[0]
    return y


# ---------------------------------------------------------------- shared by the transforms


class _StraightThrough(torch.autograd.Function):
    """Forward ``y``, backward to ``x`` as if ``y`` were ``x``."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, y: Tensor) -> Tensor:
        return y.clone()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return gradients[0], None


def straight_through(x: Tensor, y: Tensor) -> Tensor:
    """``y``, with the gradient of the identity in ``x`` (BPDA, Athalye et al. 2018, arXiv 1802.00420).

    >>> x = torch.tensor([0.4, 0.6], requires_grad=True)
    >>> y = straight_through(x, x.round())
    >>> y.sum().backward()
    >>> y.tolist(), x.grad.tolist()
    ([0.0, 1.0], [1.0, 1.0])
    """
    joined: Tensor = _StraightThrough.apply(x, y.detach())  # type: ignore[no-untyped-call]
    return joined


def mask_padding(x: Tensor, lengths: Tensor | None) -> Tensor:
    """Sets samples beyond ``lengths`` to zero, ``[B, T] -> [B, T]``."""
    return x if lengths is None else x * valid_mask(lengths, x.shape[1])


def convolve(x: Tensor, kernel: Tensor, delay: int = 0) -> Tensor:
    """``x [B, T]`` convolved with ``kernel [N]`` by FFT, the first ``delay`` outputs cut, ``[B, T]``.

    >>> convolve(torch.tensor([[1.0, 2.0]]), torch.tensor([1.0, 10.0])).round()
    tensor([[ 1., 12.]])
    """
    from scipy.fft import next_fast_len

    time = x.shape[1]
    size = next_fast_len(time + len(kernel) - 1, real=True)
    spectrum = torch.fft.rfft(x, size) * torch.fft.rfft(kernel.to(x), size)
    y: Tensor = torch.fft.irfft(spectrum, size)[:, delay : delay + time]
    return y
