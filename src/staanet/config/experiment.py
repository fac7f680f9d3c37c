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
        Help("Seed of the split, the initial weights and every random draw."),
    ] = 0
    protocol: Annotated[
        str | None,
        Help(
            "How speakers are split. staanet corpus lists the names, such as paper for iemocap. "
            "manifest uses the split column of the manifest. speakers:TEST,.../DEV,... names the "
            "speakers. fold:I/N takes part I of N for the test.",
            absent="drawn by the seed",
        ),
    ] = None
    classes: Annotated[
        Literal["label", "speaker", "sex"],
        Help(
            "Use the labels of the corpus, its speakers or their sex as classes. With speaker, "
            "every part of the split has all speakers. No sentence is then in two parts."
        ),
    ] = "label"
    task: Annotated[
        Literal["classification", "regression"],
        Help(
            "With regression, the labels of clips are numbers, such as arousal and valence. "
            "iemocap and msp_podcast have such labels. A manifest has a column for each number. "
            "Name other columns with --column NAME=COLUMN."
        ),
    ] = "classification"
    label_map: Annotated[
        dict[str, str] | None,
        Help(
            "Rename labels of the corpus, such as 1=neutral,2=happy. Labels of a model are "
            "renamed to those of the corpus, such as LABEL_0=anger. Give pairs or a TOML file of "
            "pairs. Repeat the option for more pairs.",
            metavar="LABEL=CLASS,...",
        ),
    ] = None
    root: Annotated[
        str | None,
        Help("Folder that contains the files of a manifest.", absent="the folder of the manifest"),
    ] = None
    columns: Annotated[
        dict[str, str] | None,
        Help(
            "Columns of a manifest for each kind of value, such as label=emotion,speaker=who.",
            absent="columns are recognised by their names",
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
    sentences: Annotated[int, Field(ge=2, le=20), Help("Number of sentences of each speaker.")] = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe(SplitRecipe):
    """A whole experiment, from a corpus to a report."""

    name: Annotated[Name, Help("Name of the experiment. The run folder is runs/NAME.")]
    corpus: Annotated[
        str, Help("Corpus as KIND:PATH, such as emodb:data/emodb.", complete="corpora")
    ]
    victims: Annotated[dict[Name, VictimRecipe], Help("Victims by name.")]
    generator: Annotated[GeneratorRecipe, Help("Settings for training a generator.")]
    attacks: Annotated[dict[Name, AttackRecipe], Help("Attacks by name.")]
    synthetic: Annotated[
        SyntheticRecipe, Help("Amount of speech that is rendered for synthetic:.")
    ] = field(default_factory=SyntheticRecipe)
    sweep: Annotated[
        SweepRecipe | None, Help("Sweep of success against the budget.", absent="none")
    ] = None
    defences: Annotated[
        dict[Name, DefenceRecipe],
        Help("Defended victims. Every attack is evaluated on them, static and adaptive."),
    ] = field(default_factory=dict)
    folds: Annotated[
        int | None,
        Field(ge=3, le=1000, strict=True),
        Help(
            "Number of folds of a cross-validation. Every speaker is tested once, by models that "
            "were not trained on this speaker. The results of the folds are pooled.",
            absent="one split",
        ),
    ] = None
    seeds: Annotated[
        int,
        Field(ge=1, le=20, strict=True),
        Help(
            "Number of trainings of each generator, each with another seed. The report shows "
            "their spread beside the intervals."
        ),
    ] = 1
    clip_seconds: Annotated[
        Seconds | None,
        Help(
            "Length of every test clip in seconds, as in the paper. Short clips are repeated and "
            "long clips are cut.",
            absent="the length of each clip",
        ),
    ] = None
    channels: Annotated[
        tuple[str, ...],
        Help(
            "Also evaluate after this channel, such as mp3, opus:24, gsm, mulaw, resample:8000, "
            "gain:-6, rir:0.5 or noise:20. Repeat the option for several channels.",
            option="--channel",
            metavar="NAME[:SETTING]",
            complete="transforms",
        ),
    ] = ()
    perceptual: Annotated[
        Flag,
        Help(
            "Also compute perceptual metrics of each adversarial clip: masking threshold, PESQ, "
            "STOI, Zimtohrli, DNSMOS. This is slow and needs the extra perceptual."
        ),
    ] = False
    everyday: Annotated[
        Flag,
        Help(
            "Also measure the effect of everyday changes on each victim, as staanet everyday does."
        ),
    ] = False
    selfcheck: Annotated[
        Flag, Help("Check the finished run with staanet selfcheck before the report is written.")
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
