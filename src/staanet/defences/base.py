"""What a defence is, how one is written on the command line, and a victim behind a chain of them."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Protocol, Self, runtime_checkable

import torch
from torch import Tensor

from staanet import storage
from staanet.core import Victim, clip_generators
from staanet.errors import InvalidInput, printable, unknown_name
from staanet.nn.precision import in_float32

Limits = Mapping[str, tuple[float, float]]


@runtime_checkable
class Defence(Protocol):
    """A frozen dataclass of settings in front of a victim: ``x [B, T]`` in [-1, 1] -> ``[B, T]`` in [-1, 1].

    Samples beyond ``lengths`` stay zero and change nothing before them. The gradient is exact almost
    everywhere, or, where ``exact`` is False, that of the identity (BPDA, Athalye et al. 2018,
    arXiv 1802.00420). A ``randomised`` one draws from ``generator`` and needs it; any other is a
    function of the clip. ``str`` of a defence is what ``parse_defence`` reads.
    """

    @property
    def name(self) -> str: ...

    @property
    def randomised(self) -> bool: ...

    @property
    def exact(self) -> bool: ...

    def __call__(
        self,
        x: Tensor,
        lengths: Tensor | None = None,
        generator: torch.Generator | None = None,
        *,
        sample_rate: int = 16_000,
    ) -> Tensor: ...


class Settings:
    """What the dataclasses of defences share: limits that are checked, and how they are written."""

    __slots__ = ()
    name: ClassVar[str]
    randomised: ClassVar[bool] = False
    exact: ClassVar[bool] = True
    limits: ClassVar[Limits] = {}

    def __post_init__(self) -> None:
        for key, (low, high) in self.limits.items():
            value = getattr(self, key)
            if value is not None and not low <= value <= high:  # NaN too
                raise InvalidInput(
                    f"defence {self.name}: {key} is {value:g}, not from {low:g} to {high:g}",
                    remedy=f"Write, say, {_example(type(self))}",
                )
        problem = self.problem()
        if problem:
            raise InvalidInput(
                f"defence {self.name}: {problem}", remedy=f"Write, say, {_example(type(self))}"
            )

    def problem(self) -> str:
        """What else is wrong with the settings; empty where nothing is."""
        return ""

    def __str__(self) -> str:
        values = [getattr(self, one.name) for one in _fields(type(self))]
        while values and values[-1] is None:
            values.pop()
        told = ",".join(f"{value:.12g}" for value in values)
        return f"{self.name}:{told}" if told else self.name


def _fields(kind: type[Any]) -> tuple[dataclasses.Field[Any], ...]:
    return dataclasses.fields(kind)


def _example(kind: type[Settings]) -> str:
    values = [one.default for one in _fields(kind) if one.default is not None]
    return f"{kind.name}:{','.join(f'{value:g}' for value in values)}"


def parse(text: str, known: Mapping[str, type[Any]]) -> Defence:
    """The defence of ``NAME[:SETTING[,SETTING...]]`` among ``known``; see ``parse_defence``."""
    name, colon, settings = text.partition(":")
    if name not in known:
        raise unknown_name("defence", name, known)
    kind = known[name]
    names = [one.name for one in _fields(kind)]
    if name == "bandpass" and "," not in settings:
        settings = settings.replace("-", ",", 1)  # 300-3400, as a band is written
    given: dict[str, Any] = {}
    for place, part in enumerate(settings.split(",") if colon else []):
        key, equals, value = part.partition("=")
        if not equals:
            if place >= len(names):
                raise InvalidInput(
                    f"defence {name} takes {len(names)} settings, '{printable(settings)}' has more",
                    remedy=f"Write, say, {_example(kind)}",
                )
            key, value = names[place], part
        if key not in names:
            raise unknown_name(f"setting of the defence {name}", key, names)
        given[key] = _number(kind, key, value)
    made: Defence = kind(**given)
    return made


def _number(kind: type[Settings], key: str, value: str) -> float:
    default = next(one.default for one in _fields(kind) if one.name == key)
    whole = isinstance(default, int)
    try:
        found = int(value) if whole else float(value)
        if math.isfinite(found):
            return found
    except (ValueError, OverflowError):
        pass
    raise InvalidInput(
        f"defence {kind.name}: {key} is '{printable(value)[:40]}', not a {'whole ' if whole else ''}number",
        remedy=f"Write, say, {_example(kind)}",
    )


class _StraightThrough(torch.autograd.Function):
    """Forward ``y``, backward to ``x`` as if ``y`` were it."""

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
    made: Tensor = _StraightThrough.apply(x, y.detach())  # type: ignore[no-untyped-call]
    return made


class Defended(Victim):
    """A victim behind a chain of defences: a victim like any other, so that all works on it unchanged.

    ``name`` is by default ``INNER+DEFENCE+...``. What is random in the chain is drawn for each clip
    from its samples and ``seed``, so that an answer can be repeated and a batch changes nothing; the
    logits are the mean over ``draws`` of it. An attacker takes ``expected``.
    """

    architecture = "defended"

    def __init__(
        self,
        inner: Victim,
        chain: Sequence[Defence],
        *,
        name: str | None = None,
        seed: int = 0,
        draws: int = 1,
    ) -> None:
        if not chain:
            raise InvalidInput(
                f"no defence for {inner.name}", remedy="Give at least one, such as median:3"
            )
        super().__init__(
            name=name or "+".join([inner.name, *(one.name for one in chain)]),
            labels=inner.labels,
            sample_rate=inner.sample_rate,
        )
        self.inner, self.chain, self.seed, self.draws = inner, tuple(chain), seed, draws
        self.forward_passes = draws * inner.forward_passes
        self.pinned = False
        """Whether each draw is the same for every clip: a fixed function that a slope can be taken of."""
        self.minimum_samples, self.differentiable = inner.minimum_samples, inner.differentiable
        self.randomised = any(one.randomised for one in chain) or inner.randomised
        self.exact_gradient = all(one.exact for one in chain) and inner.exact_gradient
        text = json.dumps(self.settings())  # so that its hash is not that of the inner victim
        self.register_buffer("described", torch.tensor(list(text.encode()), dtype=torch.uint8))
        self.train(inner.training)

    @property
    def device(self) -> torch.device:
        return self.inner.device

    @property
    def network(self) -> Any:
        """The inner victim's network, where it has one: a generator may begin as its mirror."""
        return getattr(self.inner, "network", None)

    def forward(self, waveforms: Tensor, lengths: Tensor | None = None) -> Tensor:
        if not self.randomised:
            answer: Tensor = self.inner(self.defend(waveforms, lengths), lengths)
            return answer
        drawn = [self._answer(waveforms, lengths, self.seed + k) for k in range(self.draws)]
        return torch.stack(drawn).mean(dim=0)

    def _answer(self, waveforms: Tensor, lengths: Tensor | None, seed: int) -> Tensor:
        inner = self.inner
        if isinstance(inner, Defended) and inner.randomised:
            inner = inner.with_eot(1, seed=seed + 1, pinned=self.pinned)
        answer: Tensor = inner(self.defend(waveforms, lengths, seed=seed), lengths)
        return answer

    @in_float32
    def defend(
        self, waveforms: Tensor, lengths: Tensor | None = None, *, seed: int | None = None
    ) -> Tensor:
        """What reaches the inner victim, ``[B, T] -> [B, T]``, with the draw of ``seed``."""
        x, drawn = (
            waveforms,
            self._generators(waveforms, lengths, self.seed if seed is None else seed),
        )
        for one in self.chain:
            if one.randomised:
                x = _row_by_row(one, x, lengths, drawn, self.sample_rate)
            else:
                x = one(x, lengths, sample_rate=self.sample_rate)
        return x

    def _generators(self, x: Tensor, lengths: Tensor | None, seed: int) -> list[torch.Generator]:
        if not any(one.randomised for one in self.chain):
            return []
        if self.pinned:
            return [torch.Generator().manual_seed(seed) for _ in x]
        return clip_generators(x, lengths, seed)

    def with_eot(self, draws: int, *, seed: int = 1, pinned: bool = False) -> Defended:
        """The same victim with logits averaged over ``draws``: what an attacker who knows the defence
        follows (expectation over transformation, EOT; Athalye et al. 2018, arXiv 1707.07397).

        Its ``seed`` is not the victim's: knowing a defence is not knowing its dice.
        """
        other = Defended(
            self.inner, self.chain, name=self.name, seed=self.seed + (seed << 16), draws=draws
        )
        other.pinned = pinned
        return other.train(self.training)

    def settings(self) -> dict[str, Any]:
        return {"chain": [str(one) for one in self.chain], "seed": self.seed}

    def save_pretrained(self, folder: Path | str, **card: Any) -> None:
        """Write ``inner/`` (the inner victim's own folder) and then ``card.json`` around it."""
        place = Path(folder)
        self.inner.save_pretrained(place / INNER, **card.pop("inner_card", {}))
        self.sha256 = _seal(storage.read_card(place / INNER, "victim"), self.settings())
        storage.write_card(
            place,
            {
                "kind": "victim",
                "architecture": self.architecture,
                "name": self.name,
                "labels": list(self.labels),
                "sample_rate": self.sample_rate,
                "settings": self.settings(),
                **card,
                "sha256": self.sha256,
            },
        )

    @classmethod
    def from_pretrained(
        cls,
        folder: Path | str,
        load: Callable[[Path], Victim] | None = None,
        parse: Callable[[str], Defence] | None = None,
    ) -> Self:
        """Read what ``save_pretrained`` wrote; ``load`` reads the inner victim, ``parse`` a defence.

        ``staanet.load_victim`` brings both. Raises ``InvalidInput`` where the parts do not fit.
        """
        place = Path(folder)
        if load is None or parse is None:
            raise InvalidInput(
                "a defended victim is read together with the victim inside it",
                where=folder,
                remedy="Load it with staanet.load_victim",
            )
        card = storage.read_card(place, "victim")
        inner = load(place / INNER)
        settings = card.get("settings")
        if not isinstance(settings, dict) or card.get("sha256") != _seal(
            storage.read_card(place / INNER, "victim"), settings
        ):
            raise InvalidInput(
                "its defences or the victim inside were changed since it was written: their sha256 "
                "differs from the card's",
                where=place / storage.CARD,
                remedy="Write it again with staanet defend",
            )
        victim = storage.build_from_card(
            lambda: cls(
                inner,
                [parse(str(one)) for one in settings["chain"]],
                name=str(card["name"]),
                seed=int(settings["seed"]),
            ),
            place,
        )
        return victim.requires_grad_(False).eval()


def chain_of(victim: Victim) -> list[str]:
    """All defences in front of a victim, the outermost first; none of one that is not defended.

    >>> chain_of(Victim(name="v", labels=["a", "b"]))
    []
    """
    told: list[str] = []
    while isinstance(victim, Defended):
        told += map(str, victim.chain)
        victim = victim.inner
    return told


INNER = "inner"
"""The folder of the inner victim inside a defended one's."""


def _seal(inner: Mapping[str, Any], settings: Mapping[str, Any]) -> str:
    """The sha256 of a defended victim: of the inner one's and of what stands before it."""
    told = json.dumps([inner.get("sha256"), settings], sort_keys=True)
    return hashlib.sha256(told.encode()).hexdigest()


def _row_by_row(
    defence: Defence,
    x: Tensor,
    lengths: Tensor | None,
    drawn: Sequence[torch.Generator],
    sample_rate: int,
) -> Tensor:
    """Each clip with its own source of randomness, whatever stands beside it."""
    made = torch.zeros_like(x)
    for row, generator in enumerate(drawn):
        length = x.shape[1] if lengths is None else int(lengths[row])
        own = defence(x[row : row + 1, :length], None, generator, sample_rate=sample_rate)
        made[row, :length] = own[0]
    return made
