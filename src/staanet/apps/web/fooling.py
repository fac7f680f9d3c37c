"""Attacks one clip for the web page and compares it with random noise; independent of gradio."""

from __future__ import annotations

import functools
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from staanet import audio, storage
from staanet.apps.web.example_voices import speak_example
from staanet.apps.web.level import DEFAULT_DB
from staanet.apps.web.models import ModelLibrary, with_defence
from staanet.attacks import ATTACKS, Staa, craft
from staanet.core import Attack, Budget, Clip, Samples, Victim
from staanet.errors import InvalidInput, UnusableClip, unknown_name
from staanet.evaluation import transfer_matrix
from staanet.generators.base import Generator
from staanet.generators.registry import load_generator
from staanet.pipeline.control import control_hits
from staanet.report.clip_view import amplify
from staanet.results.adversarial_set import AdversarialClip
from staanet.victims import load_victim

if TYPE_CHECKING:
    from staanet.apps.web import Limits

OFFERED = ("staa", "pgd", "mi_fgsm", "fgsm", "random")
"""Attacks that answer within seconds; those that need a generator come first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """The visitor's choices."""

    source: str
    targets: Sequence[str]
    attack: str = "staa"
    level_db: float = DEFAULT_DB
    """Largest change of a sample, in dB relative to the speech of the clip."""
    density: float = 0.2
    min_snr_db: float | None = None
    defence: str | None = None


@dataclass(frozen=True, slots=True)
class Answer:
    """The probabilities that one victim gives its classes, before and after."""

    victim: str
    labels: Sequence[str]
    before: Sequence[float]
    after: Sequence[float]
    control_hits: int = 0
    """In how many of ``CONTROL_DRAWS`` draws random signs changed the answer."""

    @property
    def clean_label(self) -> str:
        """The class before the attack."""
        return self.labels[int(np.argmax(self.before))]

    @property
    def adversarial_label(self) -> str:
        """The class after the attack."""
        return self.labels[int(np.argmax(self.after))]

    @property
    def fooled(self) -> bool:
        """Whether the class changed."""
        return self.clean_label != self.adversarial_label


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """The pair of clips, the answers of the victims, and the files to hear and to download."""

    pair: AdversarialClip
    answers: Sequence[Answer]
    files: Mapping[str, Path]
    """``clean``, ``adversarial`` and ``perturbation`` (amplified by ``gain_db``) as WAV."""
    gain_db: int
    request: Request


class FoolingService:
    """The models of the library, each loaded when first used, and the folder that takes results."""

    def __init__(self, library: ModelLibrary, folder: Path, *, device: str, limits: Limits) -> None:
        self.library, self.folder, self.device, self.limits = library, folder, device, limits
        self.victim = functools.lru_cache(maxsize=16)(self._load_victim)
        self.generator = functools.lru_cache(maxsize=16)(self._load_generator)

    def attacks(self, source: str) -> list[str]:
        """Returns the attacks on a source: ``staa`` with its generator, the others by its gradient.

        A model without gradients that was given by name meets random signs alone.
        """
        if source in self.library.requested and not self.victim(source).differentiable:
            return ["random"]
        return [name for name in OFFERED if name != "staa" or source in self.library.generators]

    def first_source(self) -> str:
        """Returns the victim that the page begins with: one given by name, else one with a generator."""
        first = next(iter(self.library.victims))
        if self.library.requested:
            return first
        return next(
            (name for name in self.library.victims if name in self.library.generators), first
        )

    def first_targets(self, source: str) -> list[str]:
        """Returns up to four victims to ask at first; a named source leaves out those of other rates."""
        names = list(self.library.victims)[:4]
        if source not in self.library.requested:
            return names
        rate = self.victim(source).sample_rate
        return [name for name in names if self._sample_rate(name) == rate]

    def _sample_rate(self, name: str) -> int:
        where = self.library.victims[name]
        if isinstance(where, str):
            return self.victim(name).sample_rate
        return int(storage.read_card(where, "victim")["sample_rate"])

    def load_clip(self, path: Path | None, source: str) -> Clip:
        """Reads a file of the page at the rate of the source.

        Raises ``InvalidInput`` where there is none, and ``UnusableClip`` where it is no usable audio.
        """
        if path is None:
            raise InvalidInput("no clip yet", remedy="Record one, upload one, or take an example")
        if not path.resolve().is_relative_to(self.folder):
            raise InvalidInput("that is not a clip of this page", remedy="Upload it")
        sample_rate = self.victim(source).sample_rate
        limits = audio.AudioLimits(
            max_seconds=self.limits.seconds,
            max_bytes=self.limits.bytes,
            seconds_option="--max-seconds",
            bytes_option="--max-mib",
        )
        try:
            samples = audio.load_samples(path, sample_rate, limits)
        except UnusableClip as problem:  # its path on this machine concerns nobody
            remedy = problem.remedy if problem.remedy != "Drop the row" else "Try another clip"
            raise UnusableClip(problem.what, remedy=remedy) from problem
        return Clip("clip", samples, sample_rate)

    def fool(self, clip: Clip, request: Request) -> Outcome:
        """Attacks a clip and writes the result.

        Raises ``InvalidInput`` for an unknown name and for victims of another rate.
        """
        source = self.victim(request.source)
        crafted = craft(self._attack(request), source, [clip])
        victims = self._targets(request, source)
        (pair,) = crafted.clips
        hits = control_hits(pair, source, victims)
        rows = {row["target"]: row for row in transfer_matrix([crafted], victims).rows}
        answers = [
            Answer(
                victim.name,
                victim.labels,
                list(rows[victim.name]["clean_probabilities"]),
                list(rows[victim.name]["adversarial_probabilities"]),
                hits[victim.name],
            )
            for victim in victims
        ]
        gain_db, files = self._write(pair)
        return Outcome(pair=pair, answers=answers, files=files, gain_db=gain_db, request=request)

    def write_example(self, title: str) -> Path:
        """Writes an example voice, or a clean clip of a run, into the page's folder."""
        if title in self.library.examples:
            samples, rate = audio.read_int16(self.library.examples[title])
        else:
            samples, rate = speak_example(title)
        path = self._new_folder() / "example.wav"
        storage.write_bytes(path, audio.encode(samples, rate))
        return path

    def _attack(self, request: Request) -> Attack:
        if request.attack not in self.attacks(request.source):
            raise unknown_name("attack", request.attack, self.attacks(request.source))
        budget = Budget(
            epsilon=f"{request.level_db:g} dB",
            max_density=request.density,
            min_snr_db=request.min_snr_db,
        )
        if request.attack == "staa":
            return Staa(generator=self.generator(request.source), budget=budget)
        attack: Attack = ATTACKS[request.attack](budget=budget)
        return attack

    def _targets(self, request: Request, source: Victim) -> list[Victim]:
        """The chosen victims, and each behind the defence; all of the source's rate."""
        victims = [self.victim(name) for name in request.targets or [request.source]]
        for victim in victims:
            if victim.sample_rate != source.sample_rate:
                raise InvalidInput(
                    f"{victim.name} expects {victim.sample_rate} Hz, but {source.name} expects "
                    f"{source.sample_rate} Hz",
                    remedy="Choose victims with the same sample rate",
                )
        if request.defence:
            victims += [with_defence(victim, request.defence) for victim in list(victims)]
        return victims

    def _load_victim(self, name: str) -> Victim:
        if name not in self.library.victims:
            raise unknown_name("victim", name, self.library.victims)
        victim = load_victim(self.library.victims[name]).to(self.device)
        victim.name = name  # two runs may have trained an emo18 each
        return victim

    def _load_generator(self, source: str) -> Generator:
        return load_generator(self.library.generators[source]).to(self.device)

    def _new_folder(self) -> Path:
        folder = self.folder / secrets.token_hex(8)
        folder.mkdir()
        return folder

    def _write(self, pair: AdversarialClip) -> tuple[int, dict[str, Path]]:
        gain_db, amplified = amplify(pair.delta)
        folder = self._new_folder()
        sounds: dict[str, Samples] = {
            "clean": pair.clean.pcm16,
            "adversarial": pair.adversarial,
            "perturbation": amplified,
        }
        files = {name: folder / f"{name}.wav" for name in sounds}
        for name, samples in sounds.items():
            storage.write_bytes(files[name], audio.encode(samples, pair.clean.sample_rate))
        return gain_db, files
