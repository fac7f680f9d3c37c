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

EvaluateEvery = Annotated[Count, Help("Number of training steps between evaluations on dev.")]
Patience = Annotated[Count | None, Help("Stop after this many evaluations without a better score.")]
CropSpeed = Annotated[
    Speed,
    Help(
        "Largest change of speed. Each crop is played at a random speed "
        "of 1 plus or minus this value at most."
    ),
]
CropNoise = Annotated[
    NoiseLevel,
    Help(
        "Lowest SNR of white noise in dB. Each crop gets noise at a random SNR "
        "from this value to 60 dB."
    ),
]


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
            "Hugging Face Hub name or folder of the wav2vec2, wavlm or hubert to fine-tune.",
            absent="the published model",
        ),
    ] = None
    config: Annotated[
        str | None, Help("tiny trains a small wav2vec2, wavlm or hubert from scratch.")
    ] = None
    sample_rate: Annotated[
        SampleRate, Help("Sample rate of the victim in Hz. Recordings are resampled to this rate.")
    ] = SAMPLE_RATE
    steps: Annotated[Count, Help("Number of training steps.")] = 1500
    batch_size: Annotated[BatchSize, Help("Number of crops in a training step.")] = 16
    seconds: Annotated[Seconds, Help("Length of a training crop in seconds.")] = 2.0
    learning_rate: Annotated[
        Rate | None,
        Help("Learning rate of Adam.", absent="1e-3 as in the paper, 3e-5 for fine-tuning"),
    ] = None
    evaluate_every: EvaluateEvery = 50
    patience: Patience = None
    speed: CropSpeed = 0.1
    noise_db: CropNoise = 25.0
    tolerance: Annotated[
        Positive,
        Help(
            "Regression only: an answer counts as changed if it moves by more than this. The unit "
            "is the standard deviation of the number over the train clips."
        ),
    ] = 0.5
    augment: Annotated[
        Texts,
        Help(
            "Transform of the crops: everyday, none, or a name such as mp3:64 or noise:10..40. "
            "everyday includes noise, filters, rooms, codecs, level and silence. Each transform "
            "is applied to half of the crops. Repeat the option for several transforms.",
            metavar="NAME[:SETTING]",
            complete="augmentations",
        ),
    ] = ("everyday",)
    precision: Annotated[
        Precision,
        Help("Precision of the networks. With auto, a GPU that supports bfloat16 uses it."),
    ] = "auto"


@dataclass(frozen=True, slots=True, kw_only=True)
class GeneratorRecipe:
    """How the generator is trained against each of its sources."""

    __pydantic_config__: ClassVar = {"extra": "forbid"}
    network: Annotated[
        str,
        Help(
            "Registry name of the network. backward_net is replaced by surrogate for a "
            "transformer. It is replaced by compact for another source without convolutions.",
            complete="generators",
        ),
    ] = "backward_net"
    sources: Annotated[
        tuple[str, ...],
        Field(min_length=1),
        Help(
            "Source victims. Each gets a separate generator. emo18,zhao19 gets one generator "
            "against both."
        ),
    ] = ("emo18",)
    epsilon: Annotated[Epsilon, Help(EPSILON_HELP)] = EPSILON
    max_density: Annotated[Share, Help("Largest share of the samples that may change.")] = (
        MAX_DENSITY
    )
    any_budget: Annotated[
        Flag,
        Help(
            "Train a backward_net for every budget from 0.2 % of the samples and 50 dB below the "
            "speech. --no-any-budget trains it only for one epsilon and one density."
        ),
    ] = True
    steps: Annotated[Count, Help("Number of training steps.")] = 1200
    batch_size: Annotated[BatchSize, Help("Number of crops in a training step.")] = 16
    seconds: Annotated[Seconds, Help("Length of a training crop in seconds.")] = 1.5
    goal: Annotated[
        Literal["untargeted", "targeted"],
        Help("untargeted changes the prediction. targeted aims at a class that the attack names."),
    ] = "untargeted"
    objective: Annotated[
        Literal["constrained", "paper"],
        Help(
            "constrained keeps the limits. paper uses the published fixed weights and does not "
            "limit the density."
        ),
    ] = "constrained"
    sparsity: Annotated[
        NotNegative,
        Help(
            "Weight of the density term of --objective paper. A weight of 1 equals the published "
            "1e-5 for 6 s of speech."
        ),
    ] = 1.0
    min_snr_db: Annotated[
        Decibels | None,
        Help("Smallest ratio of speech energy to the energy of the change, in dB.", absent="any"),
    ] = None
    learning_rate: Annotated[
        Rate | None,
        Help(
            "Learning rate of Adam.",
            absent="3e-4 for a backward_net that starts from its source, 1e-5 for a surrogate, "
            "2e-3 for others",
        ),
    ] = None
    iterations: Annotated[
        int,
        Field(ge=1, le=64, strict=True),
        Help(
            "Number of iterations of a backward_net. The attack becomes stronger with more "
            "iterations. The time grows in proportion."
        ),
    ] = 1
    evaluate_every: EvaluateEvery = 100
    patience: Patience = None
    speed: CropSpeed = 0.1
    kappa: Annotated[
        NotNegative | None,
        Help(
            "A clip that is fooled by this margin adds nothing to the loss.",
            absent="no margin; 0 with --objective paper",
        ),
    ] = None
    magnitude: Annotated[NotNegative, Help("Weight of the magnitude term of the loss.")] = 0.0
    quantisation: Annotated[
        NotNegative | None,
        Help(
            "Weight of the quantisation term of the loss, which moves the mask towards 0 and 1.",
            absent="0.1 for the published objective or network, else 0",
        ),
    ] = None
    unlabelled: Annotated[
        tuple[str, ...],
        Help(
            "Also train on all audio of this folder, of KIND:PATH, or of synthetic:. Clips of the "
            "corpus are left out. Repeat the option for several sources.",
            metavar="DIR",
        ),
    ] = ()
    precision: Annotated[
        Precision,
        Help("Precision of the networks. With auto, a GPU that supports bfloat16 uses it."),
    ] = "auto"
    augment: Annotated[
        tuple[str, ...],
        Help(
            "Transform of the training clips before the source, such as mp3:64, opus:24, noise:30 "
            "or random_gain:6. Each step uses one transform or none, with equal probability. "
            "Repeat the option for several transforms.",
            metavar="NAME[:SETTING]",
            complete="transforms",
        ),
    ] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class TuneRecipe:
    """How the weights of the published objective are searched; the generator of each trial."""

    __pydantic_config__: ClassVar = {"extra": "forbid"}
    trials: Annotated[
        int, Field(ge=1, le=10_000, strict=True), Help("Number of generators to train.")
    ] = 20
    network: Annotated[str, Help("Registry name of the network.", complete="generators")] = (
        "compact"
    )
    epsilon: Annotated[Epsilon, Help(EPSILON_HELP)] = EPSILON
    max_density: Annotated[Share, Help("Largest share of the samples that may change.")] = (
        MAX_DENSITY
    )
    steps: Annotated[Count, Help("Number of training steps of each generator.")] = 300
    batch_size: Annotated[BatchSize, Help("Number of crops in a training step.")] = 8
    seconds: Annotated[Seconds, Help("Length of a training crop in seconds.")] = 1.5


@dataclass(frozen=True, slots=True, kw_only=True)
class SurrogateRecipe:
    """How a surrogate learns the answers of a black box, which ``distill:VICTIM`` names as a source."""

    __pydantic_config__: ClassVar = {"extra": "forbid"}
    steps: Annotated[
        Count,
        Help(
            "Number of training steps of a surrogate (distill:VICTIM). Each step makes 16 queries.",
            option="--surrogate-steps",
        ),
    ] = 600
    seconds: Annotated[
        Seconds,
        Help(
            "Length of a training crop of the surrogate in seconds.", option="--surrogate-seconds"
        ),
    ] = 1.5


@dataclass(frozen=True, slots=True, kw_only=True)
class VectorRecipe:
    """How a universal vector (``uap``) is learned; the ``settings`` of such an attack in a recipe."""

    __pydantic_config__: ClassVar = {"extra": "forbid"}
    epsilon: Annotated[Epsilon, Help(EPSILON_HELP)] = EPSILON
    max_density: Annotated[
        Share | None, Help("Largest share of the samples that may change.", absent="all")
    ] = None
    steps: Annotated[Count, Help("Number of training steps.")] = 200
    batch_size: Annotated[BatchSize, Help("Number of crops in a training step.")] = 8
    seconds: Annotated[Seconds, Help("Length of the vector and of a training crop in seconds.")] = (
        1.0
    )
    relative_step: Annotated[Positive, Help("Size of a step, as a share of epsilon.")] = 0.1
    decay: Annotated[Decay, Help("Decay of the running mean of the gradients.")] = 0.98
    clip_at: Annotated[
        Positive, Help("Largest cross-entropy that one clip adds to the loss (beta).")
    ] = 9.0


@dataclass(frozen=True, slots=True, kw_only=True)
class HardenRecipe:
    """How a trained victim is trained on against attacks (``staanet.training.adversarial``)."""

    __pydantic_config__: ClassVar = {"extra": "forbid"}
    method: Annotated[
        str,
        Help(
            "pgd and trades change every sample. sparse_pgd and sparse_trades change few samples. "
            "staa trains a generator beside the victim. gaussian and ablation prepare the victim "
            "for staanet certify."
        ),
    ] = "sparse_pgd"
    epsilon: Annotated[Epsilon, Help(f"{EPSILON_HELP}")] = EPSILON
    max_density: Annotated[
        Share | None,
        Help(
            "Largest share of the samples that may change.",
            absent="0.2 for the sparse methods and staa",
        ),
    ] = None
    inner_steps: Annotated[Count, Help("Number of PGD steps in each training step.")] = 4
    weight: Annotated[
        Positive | None,
        Help(
            "Weight of the adversarial loss. For trades and sparse_trades, this is beta.",
            absent="0.5, for a beta 6",
        ),
    ] = None
    ramp: Annotated[
        float,
        Field(ge=0, le=1, strict=True),
        Help("Share of the steps in which epsilon grows to its full size."),
    ] = 0.3
    average: Annotated[
        Decay,
        Help("Decay of the running mean of the weights. The mean is saved. 0 turns the mean off."),
    ] = 0.99
    sigma: Annotated[
        Positive, Help("Standard deviation of the noise of gaussian. Full scale is 1.")
    ] = SMOOTHING_SIGMA
    keep: Annotated[Share, Help("Share of the samples that ablation keeps.")] = ABLATION_KEEP
    steps: Annotated[Count, Help("Number of training steps.")] = 600
    batch_size: Annotated[BatchSize, Help("Number of crops in a training step.")] = 16
    seconds: Annotated[Seconds, Help("Length of a training crop in seconds.")] = 1.5
    learning_rate: Annotated[Rate, Help("Learning rate of Adam.")] = 5e-4
    evaluate_every: EvaluateEvery = 100
    patience: Patience = None
    speed: CropSpeed = 0.2
    noise_db: CropNoise = 25.0


@dataclass(frozen=True, slots=True, kw_only=True)
class DetectRecipe:
    """How a detector is put in front of a victim, and how it is attacked (``staanet detect``)."""

    __pydantic_config__: ClassVar = {"extra": "forbid"}
    detector: Annotated[str, Help("Detector to use: residual, disagreement or learned.")] = (
        "residual"
    )
    false_positive_rate: Annotated[
        float,
        Field(ge=0, lt=1, strict=True),
        Help("Share of the clean dev clips that the detector may reject."),
    ] = 0.05
    adaptive_clips: Annotated[
        CountOrNone,
        Help("Number of test clips that are also attacked by an attacker who knows the detector."),
    ] = 0
    generator_steps: Annotated[
        CountOrNone,
        Help(
            "Also train a STAA-Net generator through the detector for this many "
            "steps. 0 turns this off."
        ),
    ] = 0
    epsilon: Annotated[
        Epsilon,
        Help(f"{EPSILON_HELP} Only the detector learned and adaptive attacks use this value."),
    ] = EPSILON
    max_density: Annotated[Share, Help("Largest share of the samples that may change.")] = (
        MAX_DENSITY
    )
    steps: Annotated[Count, Help("Number of training steps of the detector learned.")] = 200
