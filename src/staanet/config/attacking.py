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
            "Registry name.",
            absent="the name of its table, in the command staa",
            complete="attacks",
        ),
    ] = ""
    title: Annotated[str, Help("What tables and figures call it.", absent="the attack's name")] = ""
    epsilon: Annotated[Epsilon, Help(EPSILON_HELP)] = EPSILON
    max_density: Annotated[
        Share | None, Help("Largest share of samples changed.", absent="all")
    ] = None
    max_l0: Annotated[Count | None, Help("Largest number of samples changed.")] = None
    min_snr_db: Annotated[
        Decibels | None, Help("Smallest SNR of a clip over its change, in dB.")
    ] = None
    label: Annotated[
        str,
        Help(
            "Target class. each: a class for each clip, drawn evenly from those that are not its own."
        ),
    ] = ""
    clips: Annotated[
        Count | None,
        Help(
            "Attack at most this many clips, spread over labels and speakers. An attack that matches "
            "another takes that one's clips.",
            absent="all",
        ),
    ] = None
    eot: Annotated[
        Count | None,
        Help("Draws that a gradient is averaged over where the source is random.", absent="8"),
    ] = None
    match: Annotated[
        str, Help("Change, clip by clip, as many samples as this attack of the recipe did.")
    ] = ""
    precision: Annotated[
        Precision,
        Help("Precision of the generator of staa; auto is bfloat16 on a GPU that has it."),
    ] = "auto"
    batch_size: Annotated[
        BatchSize,
        Help(
            "Clips in one pass, padded: quicker on a GPU. Clips with a limit or a class of their "
            "own are attacked alone."
        ),
    ] = 1
    settings: Annotated[
        dict[str, Setting],
        Help(
            "A setting of the attack, such as steps=50 or refine=5.",
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
            "A transformation, such as median:3, lowpass:4000, quantise:8, noise:20 or mp3:64 "
            "(staanet list transforms); repeat for a chain, in its order.",
            option="--with",
            metavar="NAME[:SETTING]",
            complete="transforms",
        ),
    ]
    victims: Annotated[
        tuple[str, ...], Help("The victims behind it.", absent="the generator's sources")
    ] = ()
    adaptive: Annotated[
        tuple[str, ...] | None,
        Help(
            "Which attacks are crafted again through the defence (adaptive). Empty: none, and the report "
            "calls the result non-adaptive.",
            absent="all, staa with a generator that is trained through it",
        ),
    ] = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SweepRecipe:
    """Success against budget, for some attacks: epsilons at the largest density, and densities at the
    largest epsilon."""

    __pydantic_config__: ClassVar = {"extra": "forbid"}
    attacks: Annotated[
        tuple[str, ...],
        Help("Registry name; repeat for several.", option="--attack", complete="attacks"),
    ]
    sources: Annotated[
        tuple[str, ...], Help("The victims to craft on.", absent="those of the generator")
    ] = ()
    epsilons: Annotated[
        tuple[Epsilon, ...],
        Field(min_length=1),
        Help(f"{EPSILON_HELP} Separate several by commas.", option="--epsilon"),
    ] = ("-40 dB", "-30 dB", "-20 dB")
    densities: Annotated[
        tuple[Share, ...],
        Field(min_length=1),
        Help("Largest shares of samples changed, separated by commas.", option="--density"),
    ] = (0.01, 0.05, 0.2, 1.0)
    clips: Annotated[Count, Help("At most this many clips, spread over labels and speakers.")] = 50
    grid: Annotated[Flag, Help("Every epsilon with every density.")] = False

    def __post_init__(self) -> None:
        _require_same_kind(self.epsilons)


@dataclass(frozen=True, slots=True, kw_only=True)
class BudgetRecipe:
    """How the largest budget at which noise changes few answers is searched (``staanet budget``)."""

    __pydantic_config__: ClassVar = {"extra": "forbid"}
    densities: Annotated[
        tuple[Share, ...],
        Field(min_length=1),
        Help("Largest shares of samples changed, separated by commas.", option="--density"),
    ] = (0.05, 0.2, 1.0)
    control_limit: Annotated[
        Probability, Help("Share of answers that random signs may change.")
    ] = 0.1
    control_draws: Annotated[Count, Help("Random signs for each clip.")] = 3
    clips: Annotated[
        Count, Help("At most this many dev clips, spread over labels and speakers.")
    ] = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditRecipe:
    """The attacks and conditions of an audit (``staanet audit``)."""

    __pydantic_config__: ClassVar = {"extra": "forbid"}
    epsilons: Annotated[
        tuple[Epsilon, ...],
        Field(min_length=1),
        Help(f"{EPSILON_HELP} Separate several by commas.", option="--epsilon"),
    ] = ("-30 dB", "-20 dB")
    densities: Annotated[
        tuple[Share, ...],
        Field(min_length=1),
        Help("Largest shares of samples changed, separated by commas.", option="--density"),
    ] = (0.05, 0.2)
    clips: Annotated[Count, Help("Test clips, spread over labels and speakers.")] = 48
    query_clips: Annotated[
        CountOrNone,
        Help("How many clips are also attacked by queries to the model, without gradients."),
    ] = 8
    queries: Annotated[Count, Help("Queries for each of those clips.")] = 500
    surrogates: Annotated[
        tuple[str, ...],
        Help(
            "Network that is trained as the attacker's own model, where no source is given; repeat "
            "for several.",
            option="--surrogate",
            complete="victims",
        ),
    ] = ("emo18", "zhao19")
    surrogate_steps: Annotated[Count, Help("Training steps of each surrogate.")] = 400
    generator_steps: Annotated[Count, Help("Training steps of each generator.")] = 300
    batch_size: Annotated[BatchSize, Help("Crops in a step of training.")] = 8
    seconds: Annotated[Seconds, Help("Length of a training crop.")] = 1.5
    channels: Annotated[
        tuple[str, ...],
        Help(
            "Evaluate also after this channel; repeat for several.",
            option="--channel",
            metavar="NAME[:SETTING]",
            complete="transforms",
        ),
    ] = ("mp3:32", "mulaw", "resample:8000")
    defences: Annotated[
        tuple[str, ...],
        Help(
            "Evaluate also behind this defence; repeat for several.",
            option="--defence",
            metavar="NAME[:SETTING]",
            complete="transforms",
        ),
    ] = ("median:3", "lowpass:3000", "quantise:8")
    defended_clips: Annotated[
        Count, Help("Clips on which each defence meets an attacker who knows it.")
    ] = 24
    everyday: Annotated[Flag, Help("Measure what everyday change does to the model.")] = True

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
        Help("Exit code 1 where a fooling rate is above this with its whole 95 % interval."),
    ] = None
    fail_below_everyday: Annotated[
        AnyShare | None, Help("Exit code 1 where a smaller share of everyday conditions passes.")
    ] = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CertifyRecipe:
    """How answers are certified by votes under noise (``staanet certify``)."""

    __pydantic_config__: ClassVar = {"extra": "forbid"}
    method: Annotated[
        Literal["smoothing", "ablation"],
        Help("smoothing bounds the L2 norm of a change, ablation the number of samples changed."),
    ] = "smoothing"
    sigma: Annotated[
        Positive, Help("Of smoothing: the standard deviation of its noise, of full scale 1.")
    ] = SMOOTHING_SIGMA
    keep: Annotated[Share, Help("Of ablation: the share of samples that are seen.")] = ABLATION_KEEP
    votes: Annotated[Votes, Help("Votes that prove an answer.")] = 500
    guesses: Annotated[Votes, Help("Votes that choose the answer, before others prove it.")] = 64
    alpha: Annotated[
        float,
        Field(gt=0, lt=0.5, strict=True),
        Help("Probability that a certificate is wrong, for each."),
    ] = 0.001
    clips: Annotated[Count, Help("At most this many clips, spread over labels and speakers.")] = 50
    attack_steps: Annotated[
        CountOrNone, Help("Also attack inside each radius, with this many steps.")
    ] = 0
    batch_size: Annotated[BatchSize, Help("Noisy copies of a clip in one pass.")] = 32


def _require_same_kind(epsilons: Sequence[float | str]) -> None:
    if len({isinstance(epsilon, str) for epsilon in epsilons}) > 1:
        raise InvalidInput(
            "epsilons are shares of full scale and decibels", remedy="Give all of them in one way"
        )
