"""Types of settings, and the help text that each setting carries."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import (
    BeforeValidator,
    Field,
    PlainValidator,
    StrictBool,
    StrictFloat,
    StrictInt,
    StrictStr,
)

from staanet.config.epsilon import check_epsilon

Count = Annotated[int, Field(ge=1, le=10**9, strict=True)]
CountOrNone = Annotated[int, Field(ge=0, le=10**9, strict=True)]
BatchSize = Annotated[int, Field(ge=1, le=2**16, strict=True)]
Votes = Annotated[int, Field(ge=1, le=10**7, strict=True)]
Decibels = Annotated[float, Field(ge=-300, le=300, strict=True)]
SampleRate = Annotated[int, Field(ge=1000, le=192_000, strict=True)]
Positive = Annotated[float, Field(gt=0, le=1e6, strict=True)]
NotNegative = Annotated[float, Field(ge=0, le=1e6, strict=True)]
Probability = Annotated[float, Field(gt=0, lt=1, strict=True)]
Seconds = Annotated[float, Field(ge=0.01, le=3600, strict=True)]
Rate = Annotated[float, Field(gt=0, le=100, strict=True)]
Share = Annotated[float, Field(gt=0, le=1, strict=True)]
AnyShare = Annotated[float, Field(ge=0, le=1, strict=True)]
Epsilon = Annotated[float | str, PlainValidator(check_epsilon)]
Speed = Annotated[float, Field(ge=0, lt=0.9, strict=True)]
NoiseLevel = Annotated[float, Field(ge=-20, le=60, strict=True)]
Decay = Annotated[float, Field(ge=0, lt=1, strict=True)]
Flag = Annotated[bool, Field(strict=True)]
Precision = Literal["auto", "bfloat16", "float32"]
"""See ``staanet.nn.precision``; ``auto`` is bfloat16 on a GPU that has it."""
Texts = Annotated[
    tuple[str, ...], BeforeValidator(lambda value: (value,) if isinstance(value, str) else value)
]
"""One text, or a list of them."""
Setting = StrictInt | StrictFloat | StrictBool | StrictStr
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]

SAMPLE_RATE = 16_000
"""The usual sample rate of speech models and of the speech that the program makes, in Hz."""
EPSILON_HELP = (
    "Largest change of a sample. Give a share of full scale, such as 0.03, or a level relative to "
    "the speech, such as '-20 dB'."
)
EPSILON = "-20 dB"
"""The usual largest change of a sample, relative to the speech: with a fifth of the samples its SNR is about 25 dB."""
PAPER_EPSILON = 0.03
"""The paper's largest change of a sample, of full scale 1."""
MAX_DENSITY = 0.2
"""The usual largest share of samples changed, where an attack or a generator is sparse."""


SMOOTHING_SIGMA, ABLATION_KEEP = 0.02, 0.3
"""The usual noise of certificates, and of the training that makes a victim fit for them."""
SELFCHECK_CLIPS = 24
"""Test clips on which ``selfcheck`` tries each victim."""


@dataclass(frozen=True, slots=True)
class Help:
    """Help text of a setting, for the command line and the docs; part of the field's annotation.

    Args:
        text: One or two plain sentences.
        absent: What happens where the setting is None, for "[default: ...]".
        option: The command's option, by default ``--`` and the field's name with dashes.
        metavar: What the help shows in the place of a value.
        complete: Which names a shell completes: a function of ``staanet.cli.names``.
    """

    text: str
    absent: str = ""
    option: str = ""
    metavar: str = ""
    complete: str = ""


def default_of(recipe: type[Any], name: str) -> Any:
    """The default of a recipe's field, for code that has the same setting.

    >>> from staanet.config import GeneratorRecipe
    >>> default_of(GeneratorRecipe, "epsilon")
    '-20 dB'
    """
    (field,) = (field for field in dataclasses.fields(recipe) if field.name == name)
    return (
        field.default if field.default_factory is dataclasses.MISSING else field.default_factory()
    )
