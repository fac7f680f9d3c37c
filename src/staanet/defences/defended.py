"""``Defended``: a victim behind a chain of input transforms, itself a victim."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor

from staanet import storage
from staanet.core import Victim, clip_generators
from staanet.errors import InvalidInput
from staanet.nn.precision import in_float32
from staanet.transforms import BaseTransform, Transform, apply_chain, parse_transform

INNER = "inner"
"""The folder of the inner victim inside a defended victim's folder."""


class Defended(Victim):
    """A victim behind a chain of transforms: every command works on it as on any other victim.

    A random transform draws for each clip from the clip's samples and ``seed``. So an answer can be
    repeated, and the other clips of a batch change nothing. The logits are averaged over ``draws``
    draws. An adaptive attacker follows the gradient of ``with_eot``.

    Args:
        inner: The victim that receives the transformed waveforms.
        chain: The transforms in their order, at least one.
        name: The victim's name; by default ``INNER+TRANSFORM+...``.
        seed: The seed of random transforms.
        draws: The number of draws that an answer is averaged over.

    Raises:
        InvalidInput: The chain is empty, or a transform cannot work at the victim's sample rate.
    """

    architecture = "defended"

    def __init__(
        self,
        inner: Victim,
        chain: Sequence[Transform],
        *,
        name: str | None = None,
        seed: int = 0,
        draws: int = 1,
    ) -> None:
        _check_chain(inner, chain)
        super().__init__(
            name=name or "+".join([inner.name, *(transform.name for transform in chain)]),
            labels=inner.labels,
            sample_rate=inner.sample_rate,
            tolerance=inner.tolerance,
        )
        self.inner, self.chain, self.seed, self.draws = inner, tuple(chain), seed, draws
        self.forward_passes = draws * inner.forward_passes
        self.shared_draws = False
        """Whether one draw serves every clip. Then the victim is a fixed function with a finite-difference slope."""
        self.minimum_samples, self.differentiable = inner.minimum_samples, inner.differentiable
        self.randomised = any(t.is_random for t in chain) or inner.randomised
        self.exact_gradient = all(t.has_exact_gradient for t in chain) and inner.exact_gradient
        text = json.dumps(self.settings())  # so that its hash is not that of the inner victim
        self.register_buffer("settings_text", torch.tensor(list(text.encode()), dtype=torch.uint8))
        self.train(inner.training)

    @property
    def device(self) -> torch.device:
        return self.inner.device

    @property
    def network(self) -> Any:
        """The inner victim's network, where it has one; a generator may start from it."""
        return getattr(self.inner, "network", None)

    def forward(self, waveforms: Tensor, lengths: Tensor | None = None) -> Tensor:
        if not self.randomised:
            logits: Tensor = self.inner(self.defend(waveforms, lengths), lengths)
            return logits
        draws = [self._draw_logits(waveforms, lengths, self.seed + k) for k in range(self.draws)]
        return torch.stack(draws).mean(dim=0)

    def _draw_logits(self, waveforms: Tensor, lengths: Tensor | None, seed: int) -> Tensor:
        inner = self.inner
        if isinstance(inner, Defended) and inner.randomised:
            inner = inner.with_eot(1, seed=seed + 1, shared_draws=self.shared_draws)
        logits: Tensor = inner(self.defend(waveforms, lengths, seed=seed), lengths)
        return logits

    @in_float32
    def defend(
        self, waveforms: Tensor, lengths: Tensor | None = None, *, seed: int | None = None
    ) -> Tensor:
        """Returns the waveforms that the inner victim gets for one draw, ``[B, T] -> [B, T]``."""
        generators = self._generators(waveforms, lengths, self.seed if seed is None else seed)
        return apply_chain(self.chain, waveforms, lengths, generators, self.sample_rate)

    def _generators(self, x: Tensor, lengths: Tensor | None, seed: int) -> list[torch.Generator]:
        if not any(transform.is_random for transform in self.chain):
            return []
        if self.shared_draws:
            return [torch.Generator().manual_seed(seed) for _ in x]
        return clip_generators(x, lengths, seed)

    def with_eot(self, draws: int, *, seed: int = 1, shared_draws: bool = False) -> Defended:
        """Returns the same victim with logits averaged over ``draws``, for an adaptive attacker.

        This is expectation over transformation (EOT; Athalye et al. 2018, arXiv 1707.07397). The
        attacker's ``seed`` is not the victim's: an attacker knows the defence, but not its draws.
        """
        other = Defended(
            self.inner, self.chain, name=self.name, seed=self.seed + (seed << 16), draws=draws
        )
        other.shared_draws = shared_draws
        return other.train(self.training)

    def compute_sha256(self) -> str | None:
        inner = self.inner.sha256
        return None if inner is None else _combined_sha256(inner, self.settings())

    def settings(self) -> dict[str, Any]:
        return {"chain": [str(transform) for transform in self.chain], "seed": self.seed}

    def save_pretrained(self, folder: Path | str, **card: Any) -> None:
        """Write ``inner/``, the inner victim's folder, and then ``card.json`` around it."""
        folder = Path(folder)
        self.inner.save_pretrained(folder / INNER, **card.pop("inner_card", {}))
        self.sha256 = _sha256(folder, self.settings())
        write_wrapper_card(self, folder, card)

    @classmethod
    def from_pretrained(
        cls, folder: Path | str, load: Callable[[Path], Victim] | None = None
    ) -> Self:
        """Read what ``save_pretrained`` wrote; ``load`` reads the inner victim.

        ``staanet.load_victim`` is such a ``load``. Raises ``InvalidInput`` where the parts do not fit.
        """
        folder = Path(folder)
        inner, card, settings = read_wrapper(folder, load, _sha256, command="staanet defend")
        victim = storage.build_from_card(
            lambda: cls(
                inner,
                [parse_transform(str(text)) for text in settings["chain"]],
                name=str(card["name"]),
                seed=int(settings["seed"]),
            ),
            folder,
        )
        victim.sha256 = str(card["sha256"])
        return victim.requires_grad_(False).eval()


def _check_chain(inner: Victim, chain: Sequence[Transform]) -> None:
    if not chain:
        raise InvalidInput(
            f"no defence for {inner.name}", remedy="Give at least one, such as median:3"
        )
    for transform in chain:
        if isinstance(transform, BaseTransform) and (
            problem := transform.problem_at(inner.sample_rate)
        ):
            raise InvalidInput(
                f"defence {transform} before {inner.name}: {problem}",
                remedy="Give another setting, or another defence",
            )


def chain_of(victim: Victim) -> list[str]:
    """Returns the transforms in front of a victim as text, the outermost first; none without a defence.

    >>> chain_of(Victim(name="v", labels=["a", "b"]))
    []
    """
    chain: list[str] = []
    while isinstance(victim, Defended):
        chain += map(str, victim.chain)
        victim = victim.inner
    return chain


# ---------------------------------------------------------------- folders of a victim in a victim


def write_wrapper_card(victim: Victim, folder: Path, card: Mapping[str, Any]) -> None:
    """Write the card of a victim that wraps another; ``card`` adds to its content."""
    storage.write_card(
        folder,
        {
            "kind": "victim",
            "architecture": victim.architecture,
            "name": victim.name,
            "labels": list(victim.labels),
            "sample_rate": victim.sample_rate,
            "settings": victim.settings(),
            **card,
            "sha256": victim.sha256,
        },
    )


def read_wrapper(
    folder: Path,
    load: Callable[[Path], Victim] | None,
    sha256: Callable[[Path, Mapping[str, Any]], str],
    *,
    command: str,
) -> tuple[Victim, dict[str, Any], dict[str, Any]]:
    """Returns the inner victim, the card and the settings of a victim that wraps another.

    Raises ``InvalidInput`` if ``sha256`` of the parts is not that of the card. The error names
    ``command``, which writes the folder again.
    """
    if load is None:
        raise InvalidInput(
            "a defended victim is read together with the victim inside it",
            where=folder,
            remedy="Load it with staanet.load_victim",
        )
    card = storage.read_card(folder, "victim")
    inner = load(folder / INNER)
    settings = card.get("settings")
    if not isinstance(settings, dict) or card.get("sha256") != sha256(folder, settings):
        raise InvalidInput(
            "its defence or the victim inside was changed since it was written: their sha256 "
            "differs from the card's",
            where=folder / storage.CARD,
            remedy=f"Write it again with {command}",
        )
    return inner, card, settings


def _sha256(folder: Path, settings: Mapping[str, Any]) -> str:
    """The sha256 of a defended victim: of the inner victim's and of the settings in front of it."""
    return _combined_sha256(storage.read_card(folder / INNER, "victim").get("sha256"), settings)


def _combined_sha256(inner: object, settings: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps([inner, settings], sort_keys=True).encode()).hexdigest()
