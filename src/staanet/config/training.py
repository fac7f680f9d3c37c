"""Recipes of training: victims, generators, universal vectors, hardened victims, detectors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from staanet.config.fields import (
    ABLATION_KEEP,
    EPSILON,
    EPSILON_HELP,
    MAX_DENSITY,
    SAMPLE_RATE,
    SMOOTHING_SIGMA,
    BatchSize,
    Count,
    CountOrNone,
    Decay,
    Decibels,
    Epsilon,
    Flag,
    Help,
    NoiseLevel,
    NotNegative,
    Positive,
    Precision,
    Rate,
    SampleRate,
    Seconds,
    Share,
    Speed,
    Texts,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class VictimRecipe:
    """How one victim is trained."""

    __pydantic_config__: ClassVar = {"extra": "forbid"}
    network: Annotated[
        str,
        Help("Registry name of the network.", absent="the name of the victim", complete="victims"),
    ] = ""
    pretrained: Annotated[
        str | None,
        Help(
            "Hub name or folder to fine-tune wav2vec2, wavlm or hubert from.",
            absent="the published model",
        ),
    ] = None
    config: Annotated[
        str | None, Help("A small configuration of these networks, trained from scratch: tiny.")
    ] = None
    sample_rate: Annotated[
        SampleRate, Help("Sample rate of the victim, in Hz; recordings are resampled to it.")
    ] = SAMPLE_RATE
    steps: Annotated[Count, Help("Training steps.")] = 1500
    batch_size: Annotated[BatchSize, Help("Crops in a step.")] = 16
    seconds: Annotated[Seconds, Help("Length of a training crop.")] = 2.0
    learning_rate: Annotated[
        Rate | None, Help("Adam's learning rate.", absent="the paper's 1e-3, for fine-tuning 3e-5")
    ] = None
    evaluate_every: Annotated[Count, Help("Steps between evaluations on dev.")] = 50
    patience: Annotated[
        Count | None, Help("Stop after this many evaluations without a better score.")
    ] = None
    speed: Annotated[Speed, Help("Crops are played at a speed drawn from 1 +- this.")] = 0.1
    noise_db: Annotated[
        NoiseLevel, Help("Crops get white noise at an SNR drawn between this and 60 dB.")
    ] = 25.0
    tolerance: Annotated[
        Positive,
        Help(
            "Where it learns numbers: the change of a number that counts as another answer, in "
            "deviations of that number over the train clips."
        ),
    ] = 0.5
    augment: Annotated[
        Texts,
        Help(
            "Transforms of the crops: everyday (noise, filters, rooms, codecs, level, silence), none, or "
            "names such as mp3:64 or noise:10..40, each applied to half of the crops; repeat for several.",
            metavar="NAME[:SETTING]",
            complete="augmentations",
        ),
    ] = ("everyday",)
    precision: Annotated[
        Precision, Help("Precision of the networks; auto is bfloat16 on a GPU that has it.")
    ] = "auto"


@dataclass(frozen=True, slots=True, kw_only=True)
class GeneratorRecipe:
    """How the generator is trained against each of its sources."""

    __pydantic_config__: ClassVar = {"extra": "forbid"}
    network: Annotated[
        str,
        Help(
            "Registry name. backward_net becomes a surrogate gradient for a transformer, and compact "
            "for a source that is not convolutional.",
            complete="generators",
        ),
    ] = "backward_net"
    sources: Annotated[
        tuple[str, ...],
        Field(min_length=1),
        Help("Victims, each with a generator of its own; emo18,zhao19 is one against both."),
    ] = ("emo18",)
    epsilon: Annotated[Epsilon, Help(EPSILON_HELP)] = EPSILON
    max_density: Annotated[Share, Help("Largest share of samples changed.")] = MAX_DENSITY
    any_budget: Annotated[
        Flag,
        Help(
            "Train a backward_net for every budget, from 0.2 % of the samples and 50 dB below the speech "
            "up; otherwise for epsilon and max_density alone."
        ),
    ] = True
    steps: Annotated[Count, Help("Training steps.")] = 1200
    batch_size: Annotated[BatchSize, Help("Crops in a step.")] = 16
    seconds: Annotated[Seconds, Help("Length of a training crop.")] = 1.5
    goal: Annotated[
        Literal["untargeted", "targeted"],
        Help("targeted: towards any class, which is named when attacking."),
    ] = "untargeted"
    objective: Annotated[
        Literal["constrained", "paper"],
        Help(
            "constrained keeps the limits; paper has the published fixed weights and any density."
        ),
    ] = "constrained"
    sparsity: Annotated[
        NotNegative,
        Help(
            "Weight of the density term in --objective paper; 1 is the published 1e-5 for 6 s of speech."
        ),
    ] = 1.0
    min_snr_db: Annotated[
        Decibels | None, Help("Smallest SNR of a clip over its change, in dB.", absent="any")
    ] = None
    learning_rate: Annotated[
        Rate | None,
        Help(
            "Adam's learning rate.",
            absent="3e-4 for a backward_net that begins as its source, 1e-5 for a surrogate "
            "gradient, else 2e-3",
        ),
    ] = None
    iterations: Annotated[
        int,
        Field(ge=1, le=64, strict=True),
        Help("Iterations of a backward_net: more are stronger and take as many times as long."),
    ] = 1
    evaluate_every: Annotated[Count, Help("Steps between evaluations on dev.")] = 100
    patience: Annotated[
        Count | None, Help("Stop after this many evaluations without a better score.")
    ] = None
    speed: Annotated[Speed, Help("Crops are played at a speed drawn from 1 +- this.")] = 0.1
    kappa: Annotated[
        NotNegative | None,
        Help(
            "A clip that is fooled by this margin adds nothing more to the loss.",
            absent="no such margin; 0 in the objective paper",
        ),
    ] = None
    magnitude: Annotated[NotNegative, Help("Weight of the magnitude in the loss.")] = 0.0
    quantisation: Annotated[
        NotNegative | None,
        Help(
            "Weight of the mask's distance from 0 and 1.",
            absent="0.1 for the published objective or network, else 0",
        ),
    ] = None
    unlabelled: Annotated[
        tuple[str, ...],
        Help(
            "Also train on all audio under this folder (or KIND:PATH, or synthetic:). Clips of the corpus "
            "are left out. Repeat for several.",
            metavar="DIR",
        ),
    ] = ()
    precision: Annotated[
        Precision, Help("Precision of the networks; auto is bfloat16 on a GPU that has it.")
    ] = "auto"
    augment: Annotated[
        tuple[str, ...],
        Help(
            "Transform of the training clips before the source, such as mp3:64, opus:24, noise:30 or "
            "random_gain:6 (staanet list transforms). Each step draws one of them or none, evenly; "
            "repeat for several.",
            metavar="NAME[:SETTING]",
            complete="transforms",
        ),
    ] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class TuneRecipe:
    """How the weights of the published objective are searched; the generator of each trial."""

    __pydantic_config__: ClassVar = {"extra": "forbid"}
    trials: Annotated[
        int, Field(ge=1, le=10_000, strict=True), Help("How many generators to train.")
    ] = 20
    network: Annotated[str, Help("Registry name.", complete="generators")] = "compact"
    epsilon: Annotated[Epsilon, Help(EPSILON_HELP)] = EPSILON
    max_density: Annotated[Share, Help("Largest share of samples changed.")] = MAX_DENSITY
    steps: Annotated[Count, Help("Training steps of each generator.")] = 300
    batch_size: Annotated[BatchSize, Help("Crops in a step.")] = 8
    seconds: Annotated[Seconds, Help("Length of a training crop.")] = 1.5


@dataclass(frozen=True, slots=True, kw_only=True)
class SurrogateRecipe:
    """How a surrogate learns the answers of a black box, which ``distill:VICTIM`` names as a source."""

    __pydantic_config__: ClassVar = {"extra": "forbid"}
    steps: Annotated[
        Count,
        Help(
            "Training steps of a surrogate (distill:VICTIM), of 16 queries each.",
            option="--surrogate-steps",
        ),
    ] = 600
    seconds: Annotated[
        Seconds, Help("Length of a surrogate's training crop.", option="--surrogate-seconds")
    ] = 1.5


@dataclass(frozen=True, slots=True, kw_only=True)
class VectorRecipe:
    """How a universal vector (``uap``) is learned; the ``settings`` of such an attack in a recipe."""

    __pydantic_config__: ClassVar = {"extra": "forbid"}
    epsilon: Annotated[Epsilon, Help(EPSILON_HELP)] = EPSILON
    max_density: Annotated[
        Share | None, Help("Largest share of samples changed.", absent="all")
    ] = None
    steps: Annotated[Count, Help("Training steps.")] = 200
    batch_size: Annotated[BatchSize, Help("Crops in a step.")] = 8
    seconds: Annotated[Seconds, Help("Length of the vector, and of a training crop.")] = 1.0
    relative_step: Annotated[Positive, Help("Size of a step, as a share of epsilon.")] = 0.1
    decay: Annotated[Decay, Help("How much of the mean of past gradients a step keeps.")] = 0.98
    clip_at: Annotated[
        Positive, Help("Limit of a clip's cross-entropy (beta), so that no clip decides alone.")
    ] = 9.0


@dataclass(frozen=True, slots=True, kw_only=True)
class HardenRecipe:
    """How a trained victim is trained on against attacks (``staanet.training.adversarial``)."""

    __pydantic_config__: ClassVar = {"extra": "forbid"}
    method: Annotated[
        str,
        Help(
            "pgd (every sample), sparse_pgd, sparse_trades, staa (a generator learns beside it), "
            "trades; or gaussian, ablation, which make it fit for staanet certify."
        ),
    ] = "sparse_pgd"
    epsilon: Annotated[Epsilon, Help(f"What the victim should withstand. {EPSILON_HELP}")] = EPSILON
    max_density: Annotated[
        Share | None,
        Help("Largest share of samples changed.", absent="0.2 for the sparse methods and staa"),
    ] = None
    inner_steps: Annotated[Count, Help("Steps of PGD for each step of training.")] = 4
    weight: Annotated[
        Positive | None,
        Help(
            "Adversarial share of the loss; for trades and sparse_trades their beta.",
            absent="0.5, as a beta 6",
        ),
    ] = None
    ramp: Annotated[
        float,
        Field(ge=0, le=1, strict=True),
        Help("Epsilon grows to its full size over this share of the steps."),
    ] = 0.3
    average: Annotated[
        Decay, Help("Decay of the running mean of the weights, which is saved. 0: no mean.")
    ] = 0.99
    sigma: Annotated[
        Positive, Help("Of gaussian: the standard deviation of its noise, of full scale 1.")
    ] = SMOOTHING_SIGMA
    keep: Annotated[Share, Help("Of ablation: the share of samples that are seen.")] = ABLATION_KEEP
    steps: Annotated[Count, Help("Training steps.")] = 600
    batch_size: Annotated[BatchSize, Help("Crops in a step.")] = 16
    seconds: Annotated[Seconds, Help("Length of a training crop.")] = 1.5
    learning_rate: Annotated[Rate, Help("Adam's learning rate.")] = 5e-4
    evaluate_every: Annotated[Count, Help("Steps between evaluations on dev.")] = 100
    patience: Annotated[
        Count | None, Help("Stop after this many evaluations without a better score.")
    ] = None
    speed: Annotated[Speed, Help("Crops are played at a speed drawn from 1 +- this.")] = 0.2
    noise_db: Annotated[
        NoiseLevel, Help("Crops get white noise at an SNR drawn between this and 60 dB.")
    ] = 25.0


@dataclass(frozen=True, slots=True, kw_only=True)
class DetectRecipe:
    """How a detector is put in front of a victim, and how it is attacked (``staanet detect``)."""

    __pydantic_config__: ClassVar = {"extra": "forbid"}
    detector: Annotated[str, Help("residual, disagreement or learned.")] = "residual"
    false_positive_rate: Annotated[
        float,
        Field(ge=0, lt=1, strict=True),
        Help("Share of clean dev clips that may get no answer."),
    ] = 0.05
    adaptive_clips: Annotated[
        CountOrNone, Help("Also attack this many test clips with knowledge of the detector.")
    ] = 0
    generator_steps: Annotated[
        CountOrNone, Help("Also train a STAA-Net through the detector, for this many steps.")
    ] = 0
    epsilon: Annotated[Epsilon, Help(f"Of learned and adaptive attacks. {EPSILON_HELP}")] = EPSILON
    max_density: Annotated[Share, Help("Largest share of samples changed.")] = MAX_DENSITY
    steps: Annotated[Count, Help("Training steps of learned.")] = 200
