"""Recipes of attacks, defences, sweeps, audits and certificates."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from staanet.config.fields import (
    ABLATION_KEEP,
    EPSILON,
    EPSILON_HELP,
    SMOOTHING_SIGMA,
    AnyShare,
    BatchSize,
    Count,
    CountOrNone,
    Decibels,
    Epsilon,
    Flag,
    Help,
    Positive,
    Precision,
    Probability,
    Seconds,
    Setting,
    Share,
    Votes,
)
from staanet.errors import InvalidInput


@dataclass(frozen=True, slots=True, kw_only=True)
class AttackRecipe:
    """One attack on the test clips from each source."""

    __pydantic_config__: ClassVar = {"extra": "forbid"}
    attack: Annotated[
        str,
        Help(
            "Registry name of the attack.",
            absent="staa; in a recipe, the name of the table",
            complete="attacks",
        ),
    ] = ""
    title: Annotated[
        str, Help("Name of the attack in tables and figures.", absent="the attack's name")
    ] = ""
    epsilon: Annotated[Epsilon, Help(EPSILON_HELP)] = EPSILON
    max_density: Annotated[
        Share | None, Help("Largest share of the samples that may change.", absent="all")
    ] = None
    max_l0: Annotated[
        Count | None, Help("Largest number of samples that may change in a clip.")
    ] = None
    min_snr_db: Annotated[
        Decibels | None, Help("Smallest ratio of speech energy to the energy of the change, in dB.")
    ] = None
    label: Annotated[
        str, Help("Target class. With each, every clip gets a random class other than its label.")
    ] = ""
    clips: Annotated[
        Count | None,
        Help(
            "Attack at most this many clips, spread over labels and speakers. An attack that "
            "matches another attack uses the clips of that attack.",
            absent="all",
        ),
    ] = None
    eot: Annotated[
        Count | None,
        Help(
            "Number of random draws over which a gradient is averaged. This concerns only a "
            "source with randomness.",
            absent="8",
        ),
    ] = None
    match: Annotated[
        str, Help("Change as many samples of each clip as this attack of the recipe.")
    ] = ""
    precision: Annotated[
        Precision,
        Help(
            "Precision of the generator of staa. With auto, a GPU that supports bfloat16 uses it."
        ),
    ] = "auto"
    batch_size: Annotated[
        BatchSize,
        Help(
            "Number of clips in one padded batch. A larger batch is faster on a GPU. A clip with "
            "its own limit or target class is attacked alone."
        ),
    ] = 1
    settings: Annotated[
        dict[str, Setting],
        Help(
            "Change a setting of the attack, such as steps=50 or refine=5.",
            option="--set",
            metavar="NAME=VALUE",
        ),
    ] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class DefenceRecipe:
    """A chain of input transformations before some victims; VICTIM+KEY is the defended one's name."""

    __pydantic_config__: ClassVar = {"extra": "forbid"}
    chain: Annotated[
        tuple[str, ...],
        Field(min_length=1),
        Help(
            "Transformation of the input, such as median:3, lowpass:4000, quantise:8, noise:20 or "
            "mp3:64. Repeat the option for a chain. staanet list transforms prints all names.",
            option="--with",
            metavar="NAME[:SETTING]",
            complete="transforms",
        ),
    ]
    victims: Annotated[
        tuple[str, ...],
        Help("Victims that the defence protects.", absent="the sources of the generator"),
    ] = ()
    adaptive: Annotated[
        tuple[str, ...] | None,
        Help(
            "Attacks that are crafted again through the defence (adaptive). With an empty list, "
            "the report calls the result non-adaptive.",
            absent="all attacks; staa then trains a generator through the defence",
        ),
    ] = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SweepRecipe:
    """Success against budget, for some attacks: epsilons at the largest density, and densities at the
    largest epsilon."""

    __pydantic_config__: ClassVar = {"extra": "forbid"}
    attacks: Annotated[
        tuple[str, ...],
        Help(
            "Registry name of an attack. Repeat the option for several attacks.",
            option="--attack",
            complete="attacks",
        ),
    ]
    sources: Annotated[
        tuple[str, ...], Help("Victims to craft on.", absent="those of the generator")
    ] = ()
    epsilons: Annotated[
        tuple[Epsilon, ...],
        Field(min_length=1),
        Help(f"{EPSILON_HELP} Separate several values by commas.", option="--epsilon"),
    ] = ("-40 dB", "-30 dB", "-20 dB")
    densities: Annotated[
        tuple[Share, ...],
        Field(min_length=1),
        Help(
            "Largest shares of the samples that may change, separated by commas.",
            option="--density",
        ),
    ] = (0.01, 0.05, 0.2, 1.0)
    clips: Annotated[
        Count, Help("Use at most this many clips, spread over labels and speakers.")
    ] = 50
    grid: Annotated[Flag, Help("Combine every epsilon with every density.")] = False

    def __post_init__(self) -> None:
        _require_same_kind(self.epsilons)


@dataclass(frozen=True, slots=True, kw_only=True)
class BudgetRecipe:
    """How the largest budget at which noise changes few answers is searched (``staanet budget``)."""

    __pydantic_config__: ClassVar = {"extra": "forbid"}
    densities: Annotated[
        tuple[Share, ...],
        Field(min_length=1),
        Help(
            "Largest shares of the samples that may change, separated by commas.",
            option="--density",
        ),
    ] = (0.05, 0.2, 1.0)
    control_limit: Annotated[
        Probability, Help("Share of answers that random signs may change.")
    ] = 0.1
    control_draws: Annotated[Count, Help("Number of draws of random signs for each clip.")] = 3
    clips: Annotated[
        Count, Help("Use at most this many dev clips, spread over labels and speakers.")
    ] = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditRecipe:
    """The attacks and conditions of an audit (``staanet audit``)."""

    __pydantic_config__: ClassVar = {"extra": "forbid"}
    epsilons: Annotated[
        tuple[Epsilon, ...],
        Field(min_length=1),
        Help(f"{EPSILON_HELP} Separate several values by commas.", option="--epsilon"),
    ] = ("-30 dB", "-20 dB")
    densities: Annotated[
        tuple[Share, ...],
        Field(min_length=1),
        Help(
            "Largest shares of the samples that may change, separated by commas.",
            option="--density",
        ),
    ] = (0.05, 0.2)
    clips: Annotated[
        Count, Help("Use at most this many test clips, spread over labels and speakers.")
    ] = 48
    query_clips: Annotated[
        CountOrNone,
        Help("Number of clips that are also attacked by queries to the model, without gradients."),
    ] = 8
    queries: Annotated[Count, Help("Number of queries for each clip of --query-clips.")] = 500
    surrogates: Annotated[
        tuple[str, ...],
        Help(
            "Network that is trained as the attacker's surrogate if no --source is given. Repeat "
            "the option for several networks.",
            option="--surrogate",
            complete="victims",
        ),
    ] = ("emo18", "zhao19")
    surrogate_steps: Annotated[Count, Help("Number of training steps of each surrogate.")] = 400
    generator_steps: Annotated[Count, Help("Number of training steps of each generator.")] = 300
    batch_size: Annotated[BatchSize, Help("Number of crops in a training step.")] = 8
    seconds: Annotated[Seconds, Help("Length of a training crop in seconds.")] = 1.5
    channels: Annotated[
        tuple[str, ...],
        Help(
            "Also evaluate after this channel. Repeat the option for several channels.",
            option="--channel",
            metavar="NAME[:SETTING]",
            complete="transforms",
        ),
    ] = ("mp3:32", "mulaw", "resample:8000")
    defences: Annotated[
        tuple[str, ...],
        Help(
            "Also evaluate with this defence. Repeat the option for several defences.",
            option="--defence",
            metavar="NAME[:SETTING]",
            complete="transforms",
        ),
    ] = ("median:3", "lowpass:3000", "quantise:8")
    defended_clips: Annotated[
        Count, Help("Number of clips on which each defence is attacked adaptively.")
    ] = 24
    everyday: Annotated[Flag, Help("Measure the effect of everyday changes on the model.")] = True

    def __post_init__(self) -> None:
        for name in ("epsilons", "densities", "surrogates", "channels", "defences"):
            values = getattr(self, name)
            if len({*values}) < len(values):
                raise InvalidInput(f"{name} names a value twice", remedy="Name each once")
        _require_same_kind(self.epsilons)


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditLimits:
    """When a model passes an audit: the limits that decide the exit code."""

    __pydantic_config__: ClassVar = {"extra": "forbid"}
    fail_above: Annotated[
        AnyShare | None,
        Help("Exit with code 1 if the whole 95 % interval of a fooling rate is above this value."),
    ] = None
    fail_below_everyday: Annotated[
        AnyShare | None,
        Help("Exit with code 1 if a smaller share of the everyday conditions passes."),
    ] = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CertifyRecipe:
    """How answers are certified by votes under noise (``staanet certify``)."""

    __pydantic_config__: ClassVar = {"extra": "forbid"}
    method: Annotated[
        Literal["smoothing", "ablation"],
        Help(
            "smoothing bounds the L2 norm of a change. ablation bounds the number of changed "
            "samples."
        ),
    ] = "smoothing"
    sigma: Annotated[
        Positive, Help("Standard deviation of the noise of smoothing. Full scale is 1.")
    ] = SMOOTHING_SIGMA
    keep: Annotated[Share, Help("Share of the samples that ablation keeps.")] = ABLATION_KEEP
    votes: Annotated[Votes, Help("Number of votes that certify an answer.")] = 500
    guesses: Annotated[
        Votes, Help("Number of votes that choose an answer before the other votes certify it.")
    ] = 64
    alpha: Annotated[
        float, Field(gt=0, lt=0.5, strict=True), Help("Probability that a certificate is wrong.")
    ] = 0.001
    clips: Annotated[
        Count, Help("Use at most this many clips, spread over labels and speakers.")
    ] = 50
    attack_steps: Annotated[
        CountOrNone, Help("Also attack inside each radius with this many steps. 0 turns this off.")
    ] = 0
    batch_size: Annotated[BatchSize, Help("Number of noisy copies of a clip in one batch.")] = 32


def _require_same_kind(epsilons: Sequence[float | str]) -> None:
    if len({isinstance(epsilon, str) for epsilon in epsilons}) > 1:
        raise InvalidInput(
            "epsilons are shares of full scale and decibels", remedy="Give all of them in one way"
        )
