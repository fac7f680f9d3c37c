"""Recipes: a whole experiment as a short TOML file, read into frozen dataclasses.

An unknown key is an error that suggests the right one. ``--set victims.emo18.steps=100`` replaces
one value by its path. Recipes that come with the package are found by their name (``quick``).
"""

from __future__ import annotations

import dataclasses
import stat
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, TypeVar

from pydantic import Field, StrictBool, StrictFloat, StrictInt, TypeAdapter, ValidationError

from staanet.errors import InvalidInput, printable, unknown_name

T = TypeVar("T")
Count = Annotated[int, Field(ge=1, le=10**9, strict=True)]
BatchSize = Annotated[int, Field(ge=1, le=2**16, strict=True)]
Decibels = Annotated[float, Field(ge=-300, le=300, strict=True)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False, strict=True)]
NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False, strict=True)]
Seconds = Annotated[float, Field(ge=0.01, le=3600, strict=True)]
Rate = Annotated[float, Field(gt=0, le=100, strict=True)]
Share = Annotated[float, Field(gt=0, le=1, strict=True)]
Flag = Annotated[bool, Field(strict=True)]
Precision = Literal["auto", "bfloat16", "float32"]
"""See ``staanet.nn.precision``; ``auto``: bfloat16 on a GPU that has it."""
Setting = StrictInt | StrictFloat | StrictBool
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]

LARGEST_RECIPE = 1 << 20  # bytes; a recipe is a page of text
MOST_DOTS = 200  # in a line; tomllib takes minutes for a key of a hundred thousand parts


@dataclass(frozen=True, slots=True, kw_only=True)
class VictimRecipe:
    """How one victim is trained; ``network`` is its registry name, by default the table's key."""

    __pydantic_config__: ClassVar = {"extra": "forbid"}
    network: str = ""
    pretrained: str | None = None
    """Hub name or folder to fine-tune wav2vec2, wavlm or hubert from; absent: the published model."""
    config: str | None = None
    """A small configuration of those, such as tiny, trained from scratch."""
    steps: Count = 1500
    batch_size: BatchSize = 16
    seconds: Seconds = 2.0
    learning_rate: Rate | None = None
    """Absent: the paper's, 1e-3 from scratch and 3e-5 for fine-tuning."""
    evaluate_every: Count = 50
    patience: Count | None = None
    speed: Annotated[float, Field(ge=0, lt=0.9)] = 0.1
    """Crops are played at a speed drawn from 1 +- this."""
    noise_db: Annotated[float, Field(ge=-20, le=60)] = 25.0
    """Crops get white noise at an SNR drawn between this and 60 dB."""
    precision: Precision = "auto"


@dataclass(frozen=True, slots=True, kw_only=True)
class GeneratorRecipe:
    """How the generator is trained against each of its sources."""

    __pydantic_config__: ClassVar = {"extra": "forbid"}
    network: str = "backward_net"
    """``mirror`` stands for a reflection where the source is a transformer, and for ``compact`` where it is
    neither that nor convolutional."""
    sources: Annotated[tuple[str, ...], Field(min_length=1)] = ("emo18",)
    """Victims, each with a generator of its own; ``emo18,zhao19`` is one against both."""
    epsilon: Share = 0.03
    max_density: Share = 0.2
    steps: Count = 1200
    batch_size: BatchSize = 16
    seconds: Seconds = 1.5
    goal: Literal["untargeted", "targeted"] = "untargeted"
    """``targeted``: towards any class that it is given, each as often."""
    objective: Literal["constrained", "paper"] = "constrained"
    """``paper``: fixed weights, a margin that stops at 0, and any share of samples that comes out."""
    sparsity: NotNegative = 1.0
    """Weight of the share of samples in the objective ``paper`` (its 1e-5 at 6 s of speech)."""
    min_snr_db: Decibels | None = None
    learning_rate: Rate | None = None
    """Absent: 3e-4 for a mirror that begins as its source, 1e-5 for a reflection, 2e-3 for what begins
    from nothing."""
    iterations: Annotated[int, Field(ge=1, le=64, strict=True)] = 1
    """Stages of a mirror: more are stronger and take so many times as long."""
    evaluate_every: Count = 100
    patience: Count | None = None
    speed: Annotated[float, Field(ge=0, lt=0.9)] = 0.1
    kappa: NotNegative | None = None
    """A clip fooled by this margin pushes no further; absent: it always does. The paper: 0."""
    magnitude: NotNegative = 0.0
    quantisation: NotNegative | None = None
    """Absent: 0.1 for the published objective or network, 0 for all others."""
    unlabelled: tuple[str, ...] = ()
    """Folders (or ``KIND:PATH``, or ``synthetic:``) of any audio that trains it beside the corpus."""
    precision: Precision = "auto"
    augment: tuple[str, ...] = ()
    """What clips meet on their way to the sources while it trains, each as often as nothing, such as
    ``["mp3:64", "opus:24", "noise:30", "random_gain:6"]``: any defence by name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AttackRecipe:
    """One attack on the test clips from each source."""

    __pydantic_config__: ClassVar = {"extra": "forbid"}
    attack: str = ""
    """Registry name, by default the table's key."""
    title: str = ""
    epsilon: Share = 0.03
    max_density: Share | None = None
    max_l0: Count | None = None
    """At most so many samples of a clip."""
    min_snr_db: Decibels | None = None
    """At least so many dB of speech above what is changed."""
    label: str = ""
    """Aim at this class; ``each``: a clip at one of the others, every class as often."""
    clips: Count | None = None
    """Attack no more than so many test clips, spread over labels and speakers; absent: all. An attack
    that matches another takes that one's clips."""
    eot: Count | None = None
    """Draws that a gradient is averaged over where the source is randomised; absent: 8."""
    match: str = ""
    """Change, clip by clip, as many samples as this attack of the recipe did."""
    precision: Precision = "auto"
    """Of the generator, for ``staa``."""
    batch_size: BatchSize = 1
    """Clips in one pass, padded: quicker on a GPU. Of two samples that are wanted alike, another may be chosen
    then than for the clip alone. Clips with a limit or a class of their own are attacked alone."""
    settings: dict[str, Setting] = field(default_factory=dict)
    """Further fields of the attack's dataclass, such as ``steps`` of ``pgd``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DefenceRecipe:
    """A chain of input transformations before some victims; VICTIM+KEY is the defended one's name."""

    __pydantic_config__: ClassVar = {"extra": "forbid"}
    chain: Annotated[tuple[str, ...], Field(min_length=1)]
    """Such as ``["median:3", "lowpass:4000"]``, in this order."""
    victims: tuple[str, ...] = ()
    """Absent: the generator's sources."""
    adaptive: tuple[str, ...] | None = None
    """Which attacks are made anew by one who knows the defence; absent: all, staa with a generator
    that is trained through it. Empty: none, and the report calls the result non-adaptive."""


@dataclass(frozen=True, slots=True, kw_only=True)
class VectorRecipe:
    """How a universal vector (``uap``) is learned; the fields of ``settings`` of such an attack."""

    __pydantic_config__: ClassVar = {"extra": "forbid"}
    epsilon: Share = 0.03
    max_density: Share | None = None
    steps: Count = 200
    batch_size: BatchSize = 8
    seconds: Seconds = 1.0
    """Length of the vector, and of the training crops."""
    relative_step: Positive = 0.1
    """A step, as a share of epsilon."""
    decay: Annotated[float, Field(ge=0, lt=1)] = 0.9
    """How much of the past gradients' mean a step keeps."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HardenRecipe:
    """How a trained victim is trained on against attacks (``staanet.training.adversarial``)."""

    __pydantic_config__: ClassVar = {"extra": "forbid"}
    method: str = "pgd"
    epsilon: Share = 0.03
    max_density: Share | None = None
    """Absent: every sample; for ``sparse_pgd``, ``sparse_trades`` and ``staa`` 0.2."""
    inner_steps: Count = 4
    """Steps of PGD for each step of training."""
    weight: Positive | None = None
    """The adversarial share of the loss, 0.5 where absent; for ``trades`` and ``sparse_trades`` their
    beta, 6 where absent."""
    ramp: Annotated[float, Field(ge=0, le=1)] = 0.3
    """Epsilon grows over this share of the steps."""
    average: Annotated[float, Field(ge=0, lt=1)] = 0.99
    """Decay of the running mean of the weights, which is what is kept; 0: the weights themselves."""
    sigma: Positive = 0.02
    """Of ``gaussian``: the standard deviation of its noise, of full scale 1."""
    keep: Share = 0.3
    """Of ``ablation``: the share of samples that are seen."""
    steps: Count = 600
    batch_size: BatchSize = 16
    seconds: Seconds = 1.5
    learning_rate: Rate = 5e-4
    evaluate_every: Count = 100
    patience: Count | None = None
    speed: Annotated[float, Field(ge=0, lt=0.9)] = 0.2
    noise_db: Annotated[float, Field(ge=-20, le=60)] = 25.0


@dataclass(frozen=True, slots=True, kw_only=True)
class DetectRecipe:
    """Which detector stands before a victim, and which attacks know it (``staanet detect``)."""

    __pydantic_config__: ClassVar = {"extra": "forbid"}
    detector: str = "residual"
    """``residual``, ``disagreement`` or ``learned``."""
    false_positive_rate: Annotated[float, Field(ge=0, le=1)] = 0.05
    """Share of clean dev clips that may get no answer."""
    adaptive_clips: Annotated[int, Field(ge=0)] = 0
    """So many test clips are attacked by PGD that knows the detector."""
    generator_steps: Annotated[int, Field(ge=0, le=10**9)] = 0
    """Training steps of a STAA-Net through the detector; 0: none."""
    epsilon: Share = 0.03
    """Largest change of a sample, for ``learned`` and for the attacks that know the detector."""
    max_density: Share = 0.2
    """Largest share of samples that such an attack changes."""
    steps: Count = 200
    """Training steps of ``learned``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditRecipe:
    """What a model is tried with in an audit (``staanet audit``)."""

    __pydantic_config__: ClassVar = {"extra": "forbid"}
    epsilons: Annotated[tuple[Share, ...], Field(min_length=1)] = (0.01, 0.03)
    densities: Annotated[tuple[Share, ...], Field(min_length=1)] = (0.05, 0.2)
    clips: Count = 48
    """Test clips, spread over labels and speakers."""
    query_clips: Annotated[int, Field(ge=0)] = 8
    """So many are also attacked by asking the model itself, without gradients."""
    queries: Count = 500
    surrogates: tuple[str, ...] = ("emo18", "zhao19")
    """Networks that are trained as the attacker's own models, where no sources are given."""
    surrogate_steps: Count = 400
    generator_steps: Count = 300
    batch_size: BatchSize = 8
    seconds: Seconds = 1.5
    channels: tuple[str, ...] = ("mp3:32", "mulaw", "resample:8000")
    defences: tuple[str, ...] = ("median:3", "lowpass:3000", "quantise:8")
    defended_clips: Count = 24
    """Clips on which each defence meets an attacker who knows it."""

    def __post_init__(self) -> None:
        for name in ("epsilons", "densities", "surrogates", "channels", "defences"):
            values = getattr(self, name)
            if len({*values}) < len(values):
                raise InvalidInput(f"{name} names a value twice", remedy="Name each once")


@dataclass(frozen=True, slots=True, kw_only=True)
class SweepRecipe:
    """Success against budget, for some of the recipe's attacks: epsilons at the largest density, and
    densities at the largest epsilon."""

    __pydantic_config__: ClassVar = {"extra": "forbid"}
    attacks: tuple[str, ...]
    sources: tuple[str, ...] = ()
    """Absent: those of the generator."""
    epsilons: Annotated[tuple[Share, ...], Field(min_length=1)] = (0.003, 0.01, 0.03)
    densities: Annotated[tuple[Share, ...], Field(min_length=1)] = (0.01, 0.05, 0.2, 1.0)
    clips: Count = 50
    grid: Flag = False
    """Every epsilon with every density."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SyntheticRecipe:
    """How much embedded speech is rendered where the corpus is ``synthetic:``."""

    __pydantic_config__: ClassVar = {"extra": "forbid"}
    voices: Annotated[int, Field(ge=6, le=20)] = 10
    sentences: Annotated[int, Field(ge=2, le=20)] = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """A whole experiment, from a corpus to a report."""

    __pydantic_config__: ClassVar = {"extra": "forbid"}
    name: Name
    corpus: str
    seed: Annotated[int, Field(ge=0, lt=2**32, strict=True)] = 0
    protocol: str | None = None
    """How the corpus is split (``staanet.core.protocols``); absent: speakers drawn by the seed."""
    classes: Literal["label", "speaker", "sex"] = "label"
    """What is told apart: the corpus's own labels, the speakers (then no sentence is in two parts of
    the split, while each speaker is in all) or their sex."""
    victims: dict[Name, VictimRecipe]
    generator: GeneratorRecipe
    attacks: dict[Name, AttackRecipe]
    synthetic: SyntheticRecipe = field(default_factory=SyntheticRecipe)
    sweep: SweepRecipe | None = None
    defences: dict[Name, DefenceRecipe] = field(default_factory=dict)
    """Defended victims beside the others; every attack is judged on them, from both sides."""
    clip_seconds: Seconds | None = None
    """Bring every test clip to this length before it is attacked, as the paper does: short ones are
    tiled, long ones cut. Absent: as they are."""
    channels: tuple[str, ...] = ()
    """Codecs, rooms and the like (``NAME[:SETTING]``) after which the matrix is told once more."""
    perceptual: Flag = False
    """Whether each adversarial clip is also judged by models of hearing (extra ``perceptual``)."""
    selfcheck: Flag = False
    """Check the finished run (``staanet selfcheck``) before its report is written."""

    def __post_init__(self) -> None:
        for source in self.generator.sources:
            if self.generator.sources.count(source) > 1:
                raise InvalidInput(
                    f"sources of [generator] name '{source}' twice", remedy="Name each once"
                )
            for member in source.split(","):
                if member not in self.victims:
                    raise unknown_name("source in [generator]", member, self.victims)
        for key, attack in self.attacks.items():
            if attack.match and attack.match not in self.attacks:
                raise unknown_name(f"match in [attacks.{key}]", attack.match, self.attacks)
            if attack.match == key:
                raise InvalidInput(f"[attacks.{key}] matches itself", remedy="Name another attack")
        self._check_defences()
        for source in self.sweep.sources if self.sweep else ():
            if source not in self.generator.sources:
                raise unknown_name("source in [sweep]", source, self.generator.sources)
        for attack_key in self.sweep.attacks if self.sweep else ():
            if attack_key not in self.attacks:
                raise unknown_name("attack in [sweep]", attack_key, self.attacks)

    def _check_defences(self) -> None:
        for key, defence in self.defences.items():
            for kind, names, known in (
                ("victim", defence.victims, self.victims),
                ("attack", defence.adaptive or (), self.attacks),
            ):
                for name in names:
                    if name not in known:
                        raise unknown_name(f"{kind} in [defences.{key}]", name, known)


def load_recipe(name_or_path: str, overrides: Sequence[str] = ()) -> Recipe:
    """Read a recipe by name or path and apply ``KEY=VALUE`` overrides.

    Raises ``InvalidInput`` naming the file, the key and what would be right.
    """
    path = find_recipe(name_or_path)
    try:
        about = path.stat()
        if not stat.S_ISREG(about.st_mode):
            raise InvalidInput("not a regular file", where=path, remedy="Pass a TOML recipe")
        if about.st_size > LARGEST_RECIPE:
            raise InvalidInput(
                f"is {about.st_size} bytes; a recipe has at most {LARGEST_RECIPE}",
                where=path,
                remedy="Pass a TOML recipe",
            )
        raw = path.read_bytes()
        text = raw.decode("utf-8-sig").replace("\r\n", "\n")
        deep = next(
            (n for n, line in enumerate(text.split("\n"), 1) if line.count(".") > MOST_DOTS), 0
        )
        if deep:
            raise InvalidInput(
                f"line {deep} has more than {MOST_DOTS} dots",
                where=path,
                remedy="Correct it, or start from a shipped recipe",
            )
        tree = tomllib.loads(text)
    except UnicodeDecodeError as problem:
        row = raw.count(b"\n", 0, problem.start) + 1
        raise InvalidInput(
            f"is not a readable TOML file (line {row} is not UTF-8)",
            where=path,
            remedy="Save as UTF-8",
        ) from problem
    except OSError as problem:
        raise InvalidInput(
            f"cannot be read ({problem.strerror})", where=path, remedy="Pass a TOML recipe"
        ) from problem
    except (ValueError, RecursionError) as problem:  # ValueError: a number too long
        raise InvalidInput(
            f"is not a readable TOML file ({printable(str(problem))})",
            where=path,
            remedy="Correct it, or start from a shipped recipe",
        ) from problem
    for override in overrides:
        _override(tree, override)
    return parse_recipe(tree, where=path)


def parse_recipe(tree: Mapping[str, Any], *, where: object = "recipe") -> Recipe:
    """A recipe from a decoded TOML tree; ``InvalidInput`` says which key is wrong and why."""
    try:
        recipe: Recipe = _adapter(Recipe).validate_python(tree)
        return recipe
    except ValidationError as problem:
        raise _explained(problem, where) from problem
    except InvalidInput as problem:
        raise InvalidInput(problem.what, where=where, remedy=problem.remedy) from problem


def checked(kind: type[T], values: Mapping[str, Any], *, where: object) -> T:
    """A dataclass of this module from plain values; ``InvalidInput`` says which is wrong and why."""
    try:
        found: T = _adapter(kind).validate_python(dict(values))
        return found
    except ValidationError as problem:
        raise _explained(problem, where) from problem


_ADAPTERS: dict[type[Any], TypeAdapter[Any]] = {}


def _adapter(kind: type[Any]) -> TypeAdapter[Any]:
    """What checks values against a dataclass: 10 ms to make, once for each."""
    if kind not in _ADAPTERS:
        _ADAPTERS[kind] = TypeAdapter(kind)
    return _ADAPTERS[kind]


def to_tree(recipe: Recipe) -> dict[str, Any]:
    """The recipe as plain values that ``tomli_w`` writes and ``parse_recipe`` reads back."""
    tree: dict[str, Any] = _plain(dataclasses.asdict(recipe))
    return tree


def to_toml(recipe: Recipe) -> str:
    """The recipe, every default spelled out, as TOML text."""
    import tomli_w

    return tomli_w.dumps(to_tree(recipe))


def shipped_recipes() -> dict[str, Path]:
    """Recipes that come with the package, by name."""
    inside = Path(__file__).parent / "recipes"  # in a wheel
    folder = inside if inside.is_dir() else Path(__file__).parents[2] / "recipes"
    return {path.stem: path for path in sorted(folder.glob("*.toml"))}


def find_recipe(name_or_path: str) -> Path:
    """The file of a shipped name, or the path itself."""
    shipped = shipped_recipes()
    if name_or_path in shipped:
        return shipped[name_or_path]
    path = Path(name_or_path)
    if path.suffix != ".toml" and not path.is_file():
        raise unknown_name("recipe", name_or_path, shipped)
    return path


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(inner) for key, inner in value.items() if inner is not None}
    return [_plain(inner) for inner in value] if isinstance(value, tuple | list) else value


def _override(tree: dict[str, Any], text: str) -> None:
    key, sign, value = text.partition("=")
    if not sign or not key:
        raise InvalidInput(
            f"--set '{printable(text)}' is not KEY=VALUE", remedy="Write, say, --set seed=1"
        )
    try:
        parsed = tomllib.loads(f"value = {value}")["value"]
    except (ValueError, RecursionError):
        parsed = value  # a bare word, such as emodb:PATH
    *tables, last = key.split(".")
    if len(tables) > MOST_DOTS:
        raise InvalidInput(f"--set '{printable(key)[:40]}...' has {len(tables)} dots")
    branch = tree
    for name in tables:
        branch = branch.setdefault(name, {})
        if not isinstance(branch, dict):
            raise InvalidInput(
                f"--set '{printable(text)}': '{name}' is a value, not a table",
                remedy="Give the path of one value",
            )
    branch[last] = parsed


def _explained(problem: ValidationError, where: object) -> InvalidInput:
    error = problem.errors(include_url=False)[0]
    parts = [str(part) for part in error["loc"]]
    place = ".".join(parts) or "recipe"
    cause = error.get("ctx", {}).get("error")
    if isinstance(cause, InvalidInput):
        return InvalidInput(cause.what, where=where, remedy=cause.remedy)
    if error["type"] == "unexpected_keyword_argument":
        known = [f.name for f in dataclasses.fields(_type_at(parts[:-1]))]
        return unknown_name(
            "key", place, [".".join([*parts[:-1], name]) for name in known], where=where
        )
    given = (
        ""
        if error["type"].startswith("missing")
        else f" (got {printable(repr(error['input']))[:80]})"
    )
    said = error["msg"][:1].lower() + error["msg"][1:]
    if error["type"] == "string_pattern_mismatch":
        said = "a name has 1 to 64 letters, digits, dots, dashes or underscores, the first no sign"
    elif error["type"] in ("dataclass_type", "dict_type"):
        said = "a table is due here"
    return InvalidInput(
        f"{printable(place)[:200]}: {said}{given}", where=where, remedy="Correct this value"
    )


def _type_at(path: Sequence[str]) -> Any:
    """The dataclass that a path of keys leads to."""
    named = {"victims": VictimRecipe, "attacks": AttackRecipe, "defences": DefenceRecipe}
    single = {"generator": GeneratorRecipe, "sweep": SweepRecipe, "synthetic": SyntheticRecipe}
    if not path:
        return Recipe
    return named.get(path[0]) or single.get(path[0]) or Recipe
