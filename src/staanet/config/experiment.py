"""The recipe of a whole experiment, from a corpus to a report."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from staanet.config.attacking import AttackRecipe, DefenceRecipe, SweepRecipe
from staanet.config.fields import Flag, Help, Name, Seconds
from staanet.config.training import GeneratorRecipe, VictimRecipe
from staanet.errors import InvalidInput, unknown_name


@dataclass(frozen=True, slots=True, kw_only=True)
class SplitRecipe:
    """How a corpus is split into train, dev and test, and what its classes are."""

    __pydantic_config__: ClassVar = {"extra": "forbid"}
    seed: Annotated[
        int,
        Field(ge=0, lt=2**32, strict=True),
        Help("Fixes the split, the weights and every draw."),
    ] = 0
    protocol: Annotated[
        str | None,
        Help(
            "How speakers are split: a name that staanet corpus lists (such as paper of iemocap), "
            "manifest (its split column), speakers:TEST,.../DEV,... or fold:I/N (part I of N tests).",
            absent="drawn by the seed",
        ),
    ] = None
    classes: Annotated[
        Literal["label", "speaker", "sex"],
        Help(
            "What the classes are: the labels of the corpus, its speakers, or their sex. With "
            "speaker, every part of the split has all speakers, and no sentence is in two parts."
        ),
    ] = "label"
    task: Annotated[
        Literal["classification", "regression"],
        Help(
            "regression: the clips' labels are numbers, such as arousal and valence, each in a column "
            "of a manifest (--column NAME=COLUMN for other names than these), or those of iemocap and "
            "msp_podcast."
        ),
    ] = "classification"
    label_map: Annotated[
        dict[str, str] | None,
        Help(
            "Renames labels of the corpus, such as 1=neutral,2=happy, or labels of a model to those of "
            "the corpus, such as LABEL_0=anger. Or a TOML file of such pairs; repeat for more.",
            metavar="LABEL=CLASS,...",
        ),
    ] = None
    root: Annotated[
        str | None,
        Help("The folder that a manifest's file names start from.", absent="the manifest's own"),
    ] = None
    columns: Annotated[
        dict[str, str] | None,
        Help(
            "Which column of a manifest holds what, such as label=emotion,speaker=who.",
            absent="found by their names",
            option="--column",
            metavar="KIND=COLUMN,...",
        ),
    ] = None

    def corpus_options(self) -> dict[str, Any]:
        """What ``load_corpus`` needs of these settings, by the names of its parameters."""
        names = ("classes", "task", "label_map", "root", "columns")
        return {name: getattr(self, name) for name in names}


@dataclass(frozen=True, slots=True, kw_only=True)
class SyntheticRecipe:
    """How much embedded speech is rendered where the corpus is ``synthetic:``."""

    __pydantic_config__: ClassVar = {"extra": "forbid"}
    voices: Annotated[int, Field(ge=6, le=20), Help("Speakers.")] = 10
    sentences: Annotated[int, Field(ge=2, le=20), Help("Sentences of each speaker.")] = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe(SplitRecipe):
    """A whole experiment, from a corpus to a report."""

    name: Annotated[Name, Help("Its name; the run's folder is runs/NAME.")]
    corpus: Annotated[str, Help("KIND:PATH, such as emodb:data/emodb.", complete="corpora")]
    victims: Annotated[dict[Name, VictimRecipe], Help("The victims by name.")]
    generator: Annotated[GeneratorRecipe, Help("How a generator is trained.")]
    attacks: Annotated[dict[Name, AttackRecipe], Help("The attacks by name.")]
    synthetic: Annotated[SyntheticRecipe, Help("How much speech is rendered for synthetic:.")] = (
        field(default_factory=SyntheticRecipe)
    )
    sweep: Annotated[SweepRecipe | None, Help("Success against budget.", absent="none")] = None
    defences: Annotated[
        dict[Name, DefenceRecipe],
        Help(
            "Defended victims beside the others; every attack is judged on them, from both sides."
        ),
    ] = field(default_factory=dict)
    folds: Annotated[
        int | None,
        Field(ge=3, le=1000, strict=True),
        Help(
            "Cross-validate in this many runs, in which every speaker is tested once by models that never "
            "heard it, and their pooled results.",
            absent="one split",
        ),
    ] = None
    seeds: Annotated[
        int,
        Field(ge=1, le=20, strict=True),
        Help(
            "Trainings of each generator, each from another seed; the spread of what they achieve "
            "stands beside the intervals."
        ),
    ] = 1
    clip_seconds: Annotated[
        Seconds | None,
        Help(
            "Bring every test clip to this length before it is attacked, as the paper does: short "
            "clips are tiled, long clips cut.",
            absent="as they are",
        ),
    ] = None
    channels: Annotated[
        tuple[str, ...],
        Help(
            "Evaluate also after this channel, such as mp3, opus:24, gsm, mulaw, resample:8000, gain:-6, "
            "rir:0.5 or noise:20; repeat for several.",
            option="--channel",
            metavar="NAME[:SETTING]",
            complete="transforms",
        ),
    ] = ()
    perceptual: Annotated[
        Flag,
        Help(
            "Also judge each adversarial clip by models of hearing: masking threshold, PESQ, STOI, "
            "Zimtohrli, DNSMOS; slow (extra perceptual)."
        ),
    ] = False
    everyday: Annotated[
        Flag, Help("Also measure what everyday change does to each victim (staanet everyday).")
    ] = False
    selfcheck: Annotated[
        Flag, Help("Check the finished run (staanet selfcheck) before its report is written.")
    ] = False

    def __post_init__(self) -> None:
        self._check_generator()
        self._check_attacks()
        self._check_defences()
        self._check_sweep()
        if self.folds is not None and self.protocol is not None:
            raise InvalidInput(
                f"folds = {self.folds} draws its own splits, and protocol = '{self.protocol[:100]}' "
                "is another",
                remedy="Leave out one of the two",
            )

    def _check_generator(self) -> None:
        for source in self.generator.sources:
            if self.generator.sources.count(source) > 1:
                raise InvalidInput(
                    f"sources of [generator] name '{source}' twice", remedy="Name each once"
                )
            _require("source in [generator]", source.split(","), self.victims)

    def _check_attacks(self) -> None:
        for key, attack in self.attacks.items():
            if attack.match:
                _require(f"match in [attacks.{key}]", [attack.match], self.attacks)
            if attack.match == key:
                raise InvalidInput(f"[attacks.{key}] matches itself", remedy="Name another attack")

    def _check_defences(self) -> None:
        for key, defence in self.defences.items():
            _require(f"victim in [defences.{key}]", defence.victims, self.victims)
            _require(f"attack in [defences.{key}]", defence.adaptive or (), self.attacks)

    def _check_sweep(self) -> None:
        if self.sweep is not None:
            _require("source in [sweep]", self.sweep.sources, self.generator.sources)
            _require("attack in [sweep]", self.sweep.attacks, self.attacks)


def _require(kind: str, names: Iterable[str], choices: Collection[str]) -> None:
    for name in names:
        if name not in choices:
            raise unknown_name(kind, name, choices)
