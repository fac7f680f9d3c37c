"""One clip from upload to adversarial file: what the page's button does, without the page."""

from __future__ import annotations

import functools
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from staanet import audio, storage
from staanet.apps.web.models import ModelLibrary, with_defence
from staanet.attacks import ATTACKS, Staa, craft
from staanet.core import Attack, Budget, Clip, Samples, Victim
from staanet.errors import InvalidInput, UnusableClip, unknown_name
from staanet.evaluation import transfer_matrix
from staanet.generators.base import Generator
from staanet.generators.registry import load_generator
from staanet.report.clip_view import amplify
from staanet.results.adversarial_set import AdversarialClip
from staanet.victims import load_victim

if TYPE_CHECKING:
    from staanet.apps.web import Limits

OFFERED = ("staa", "pgd", "mi_fgsm", "fgsm", "random")
"""Attacks that answer within seconds, the ones that need a generator first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What the visitor chose."""

    source: str
    targets: Sequence[str]
    attack: str = "staa"
    epsilon: float = 0.03
    density: float = 0.2
    defence: str | None = None


@dataclass(frozen=True, slots=True)
class Answer:
    """What one victim says: its classes with their probabilities before and after."""

    victim: str
    labels: Sequence[str]
    before: Sequence[float]
    after: Sequence[float]

    @property
    def was(self) -> str:
        return self.labels[int(np.argmax(self.before))]

    @property
    def became(self) -> str:
        return self.labels[int(np.argmax(self.after))]

    @property
    def fooled(self) -> bool:
        return self.was != self.became


@dataclass(frozen=True, slots=True, kw_only=True)
class Fooled:
    """The result: the pair of clips, what the victims say, and the files to hear and to take home."""

    pair: AdversarialClip
    answers: Sequence[Answer]
    files: Mapping[str, Path]
    """``clean``, ``adversarial`` and ``perturbation`` (amplified by ``gain_db``) as WAV."""
    gain_db: int


class FoolingService:
    """The library's models, each loaded when first wanted, and the folder that takes results."""

    def __init__(self, library: ModelLibrary, folder: Path, *, device: str, limits: Limits) -> None:
        self.library, self.folder, self.device, self.limits = library, folder, device, limits
        self.victim = functools.lru_cache(maxsize=16)(self._victim)
        self.generator = functools.lru_cache(maxsize=16)(self._generator)

    def attacks(self, source: str) -> list[str]:
        """What can be tried on a source; ``staa`` where a generator knows it."""
        return [name for name in OFFERED if name != "staa" or source in self.library.generators]

    def fool(self, path: Path | None, request: Request) -> Fooled:
        """Attack the file and write the result; ``StaaNetError`` says what to do otherwise."""
        if path is None:
            raise InvalidInput("no clip yet", remedy="Record one, upload one, or choose an example")
        if not path.resolve().is_relative_to(self.folder):
            raise InvalidInput("that is not a clip of this page", remedy="Upload it")
        source = self.victim(request.source)
        clip = Clip("clip", self.read(path, source.sample_rate), source.sample_rate)
        made = craft(self._attack(request), source, [clip])
        judges = {victim.name: victim for victim in self._judges(request, source)}
        answers = [
            Answer(
                row["target"],
                judges[row["target"]].labels,
                list(row["clean_probabilities"]),
                list(row["adversarial_probabilities"]),
            )
            for row in transfer_matrix([made], list(judges.values())).rows
        ]
        pair = made.clips[0]
        gain_db, files = self._write(pair)
        return Fooled(pair=pair, answers=answers, files=files, gain_db=gain_db)

    def read(self, path: Path, sample_rate: int) -> Samples:
        """A WAV or FLAC within the page's limits as 16-bit integers ``[T]``."""
        with path.open("rb") as stream:
            head = stream.read(4)
        if head not in (b"RIFF", b"RF64", b"fLaC"):
            raise UnusableClip("neither WAV nor FLAC", remedy="Convert it, or record a new one")
        limits = audio.AudioLimits(max_seconds=self.limits.seconds, max_bytes=self.limits.bytes)
        try:
            return audio.load_samples(path, sample_rate, limits)
        except UnusableClip as problem:  # without where it lies on this machine
            raise UnusableClip(problem.what, remedy="Try another clip") from problem

    def example(self, name: str) -> Path:
        """A copy of an example in the page's folder."""
        if name not in self.library.examples:
            raise unknown_name("example", name, self.library.examples)
        samples, rate = audio.read_int16(self.library.examples[name])
        copy = self._place() / "example.wav"
        storage.write_bytes(copy, audio.encode(samples, rate))
        return copy

    def _attack(self, request: Request) -> Attack:
        if request.attack not in self.attacks(request.source):
            raise unknown_name("attack", request.attack, self.attacks(request.source))
        budget = Budget(epsilon=request.epsilon, max_density=request.density)
        if request.attack == "staa":
            return Staa(generator=self.generator(request.source), budget=budget)
        made: Attack = ATTACKS[request.attack](budget=budget)
        return made

    def _judges(self, request: Request, source: Victim) -> list[Victim]:
        """The chosen victims, and each behind the defence; of the source's rate alone."""
        chosen = [self.victim(name) for name in request.targets or [request.source]]
        for victim in chosen:
            if victim.sample_rate != source.sample_rate:
                raise InvalidInput(
                    f"{victim.name} hears {victim.sample_rate} Hz, {source.name} {source.sample_rate} Hz",
                    remedy="Choose victims of one rate",
                )
        if request.defence:
            chosen += [with_defence(victim, request.defence) for victim in list(chosen)]
        return chosen

    def _victim(self, name: str) -> Victim:
        if name not in self.library.victims:
            raise unknown_name("victim", name, self.library.victims)
        victim = load_victim(self.library.victims[name]).to(self.device)
        victim.name = name  # two runs may have trained an emo18 each
        return victim

    def _generator(self, source: str) -> Generator:
        return load_generator(self.library.generators[source]).to(self.device)

    def _place(self) -> Path:
        place = self.folder / secrets.token_hex(8)
        place.mkdir()
        return place

    def _write(self, pair: AdversarialClip) -> tuple[int, dict[str, Path]]:
        gain_db, alone = amplify(pair.delta)
        place = self._place()
        sounds = {"clean": pair.clean.pcm16, "adversarial": pair.adversarial, "perturbation": alone}
        files = {}
        for name, samples in sounds.items():
            files[name] = place / f"{name}.wav"
            storage.write_bytes(files[name], audio.encode(samples, pair.clean.sample_rate))
        return gain_db, files
