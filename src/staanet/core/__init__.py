"""The vocabulary: victims, goals, budgets, attacks, clips and corpora.

Waveforms are ``[B, T]`` float tensors in [-1, 1]; on disk and in a ``Clip`` they are 16-bit integers.
A batch of clips of different lengths is padded with zeros and carries ``lengths [B]``; without
``lengths`` every clip fills its row.
"""

from __future__ import annotations

import hashlib
import math
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar, Protocol, Self, runtime_checkable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from staanet import audio, storage
from staanet.core import splits
from staanet.errors import InvalidInput, UnusableClip, printable
from staanet.storage import lazy_rows

Samples = NDArray[np.int16]
NO_CHANNEL = "pcm16"
"""Name of the channel that leaves a file as it is."""
Progress = Callable[[str, int, int, str], None]
"""Called with (what, done, total, current figures); the command line draws a bar from it."""


def silent(what: str, done: int, total: int, figures: str = "") -> None:
    """The progress that shows nothing."""


@runtime_checkable
class MetricLogger(Protocol):
    """A progress that also takes the figures of a training as numbers, such as TensorBoard's."""

    def note(self, what: str, row: Mapping[str, float]) -> None: ...


# ---------------------------------------------------------------- victims


class Victim(nn.Module):
    """A classifier under study: ``[B, T]`` waveforms in [-1, 1] -> ``[B, K]`` logits.

    It owns its preprocessing: each clip is standardised, ``(x - mean) / std``, over its own
    ``lengths``, so that whoever calls it, trains against it or attacks it, sees the same function.
    A subclass implements ``logits`` on standardised clips and gives its smallest usable clip.
    """

    architecture: ClassVar[str]
    minimum_samples: int = 1
    differentiable: bool = True
    """False for a black box: it answers, and raises where a gradient is asked for."""
    forward_passes: int = 1
    """How often the model inside runs for one answer: a mean over draws asks for each."""
    exact_gradient: bool = True
    """False where the gradient is that of a differentiable stand-in (BPDA)."""
    may_abstain: bool = False
    """Whether it has ``abstains(waveforms, lengths) -> [B]`` bool: a detector stands before it."""
    randomised: bool = False
    """Whether answers are drawn: an attacker follows their mean (EOT)."""

    def __init__(self, *, name: str, labels: Sequence[str], sample_rate: int = 16_000) -> None:
        super().__init__()
        self.name, self.labels, self.sample_rate = name, tuple(labels), sample_rate

    @property
    def device(self) -> torch.device:
        """Where its weights are, and its input has to be."""
        return next((weight.device for weight in self.parameters()), torch.device("cpu"))

    def forward(self, waveforms: Tensor, lengths: Tensor | None = None) -> Tensor:
        return self.logits(standardise(waveforms, lengths), lengths)

    def abstains(self, waveforms: Tensor, lengths: Tensor | None = None) -> Tensor:
        """``[B, T] -> [B]`` bool: which clips get no answer; none where ``may_abstain`` is False."""
        return torch.zeros(len(waveforms), dtype=torch.bool, device=waveforms.device)

    def logits(self, standardised: Tensor, lengths: Tensor | None) -> Tensor:
        """``[B, T]`` standardised clips, zero beyond their ``lengths`` -> ``[B, K]``."""
        raise TypeError(f"{type(self).__name__} does not implement logits")

    @property
    def weights(self) -> nn.Module:
        """Whose tensors are saved and read: itself, or a part that another library knows by name."""
        return self

    def settings(self) -> dict[str, Any]:
        """What, besides labels and sample rate, is needed to build this network again."""
        return {}

    def save_pretrained(self, folder: Path | str, **card: Any) -> None:
        """Write ``model.safetensors`` and ``card.json``; ``card`` adds to what the card says."""
        storage.save_model(
            Path(folder),
            kind="victim",
            tensors=self.weights.state_dict(),
            card={
                "architecture": self.architecture,
                "name": self.name,
                "labels": list(self.labels),
                "sample_rate": self.sample_rate,
                "settings": self.settings(),
                **card,
            },
        )

    @classmethod
    def from_pretrained(cls, folder: Path | str) -> Self:
        """Read what ``save_pretrained`` wrote, frozen and in ``eval()``.

        Raises ``InvalidInput`` where card and weights do not fit each other or this class.
        """
        tensors, card = storage.load_model(Path(folder), kind="victim")
        if card.get("architecture") != cls.architecture:
            raise InvalidInput(
                f"holds a '{card.get('architecture')}', not a '{cls.architecture}'",
                where=folder,
                remedy="Load it with staanet.load_victim",
            )
        _check_card(card, Path(folder))
        victim = storage.build_from_card(
            lambda: cls(
                name=card["name"],
                labels=card["labels"],
                sample_rate=card["sample_rate"],
                **card["settings"],
            ),
            folder,
        )
        storage.fill_module(victim.weights, tensors, folder)
        return victim.requires_grad_(False).eval()


def _check_card(card: Mapping[str, Any], folder: Path) -> None:
    """What a victim's card says of itself; ``InvalidInput`` where a victim cannot be like that."""
    name, labels, rate = card.get("name"), card.get("labels"), card.get("sample_rate")
    wrong = ""
    if not isinstance(name, str) or not 0 < len(name) <= 200 or not _is_word(name):
        wrong = "its name is no word"  # folders are called by it
    elif not isinstance(rate, int) or isinstance(rate, bool) or not 1000 <= rate <= 192_000:
        wrong = f"its sample rate is {rate!r:.40}, not a whole number from 1000 to 192000"
    elif not isinstance(labels, list) or not all(isinstance(x, str) and x for x in labels):
        wrong = "its labels are no list of words"
    elif len(set(labels)) < max(2, len(labels)):
        wrong = f"it has {len(set(labels))} different labels, of {len(labels)}"
    if wrong:
        raise InvalidInput(
            wrong, where=folder / storage.CARD, remedy="Copy the folder again, or train again"
        )


def _is_word(name: str) -> bool:
    return name == printable(name) and name[0] != "." and not {*name} & {"/", "\\"}


def standardise(waveforms: Tensor, lengths: Tensor | None = None) -> Tensor:
    """Each clip to zero mean and unit (population) deviation over its own samples, ``[B, T]``.

    Samples beyond ``lengths`` stay 0; a clip without any movement gives zeros, never NaN.

    >>> standardise(torch.tensor([[0.1, 0.3, 0.0]]), torch.tensor([2])).round(decimals=3) + 0
    tensor([[-1.,  1.,  0.]])
    """
    _, time = waveforms.shape
    if lengths is None:
        centred = waveforms - waveforms.mean(dim=1, keepdim=True)
        variance = centred.square().mean(dim=1, keepdim=True)
        return centred / variance.clamp_min(1e-12).sqrt()  # in this order: silence has a gradient
    inside = valid(lengths, time)
    count = lengths[:, None].to(waveforms.dtype)
    centred = (waveforms - (waveforms * inside).sum(dim=1, keepdim=True) / count) * inside
    variance = centred.square().sum(dim=1, keepdim=True) / count
    return centred / variance.clamp_min(1e-12).sqrt()


def valid(lengths: Tensor, time: int) -> Tensor:
    """``[B] -> [B, time]``: True at samples that belong to the clip.

    >>> valid(torch.tensor([1, 2]), 2)
    tensor([[ True, False],
            [ True,  True]])
    """
    return torch.arange(time, device=lengths.device)[None] < lengths[:, None]


def clip_generators(x: Tensor, lengths: Tensor | None, seed: int) -> list[torch.Generator]:
    """A source of randomness (on the CPU) for each clip of ``x [B, T]``, from it and the seed alone.

    So a clip meets the same draws whatever batch, order or machine it comes in.
    """
    batch, time = x.shape
    generators = []
    for row in range(batch):
        length = time if lengths is None else int(lengths[row])
        own = torch.Generator()  # it takes no more than 32 bits of a seed: mix both into those
        own.manual_seed(zlib.crc32(x[row, :length].detach().cpu().numpy().tobytes(), seed))
        generators.append(own)
    return generators


# ---------------------------------------------------------------- what the attacker wants, and may


@dataclass(frozen=True, slots=True)
class Untargeted:
    """Any answer but ``label`` (the source's own clean answer, ``int`` or ``[B]``)."""

    label: Tensor | int

    def margin(self, logits: Tensor) -> Tensor:
        """``z_c - max_{i != c} z_i``, ``[B, K] -> [B]``: negative once the attack has succeeded.

        >>> Untargeted(0).margin(torch.tensor([[3.0, 1.0, 2.0]]))
        tensor([1.])
        """
        own, other = _own_and_best_other(logits, self.label)
        return own - other

    def achieved(self, logits: Tensor) -> Tensor:
        """``[B, K] -> [B]`` bool: the answer is another."""
        return logits.argmax(dim=1) != _as_rows(self.label, logits)


@dataclass(frozen=True, slots=True)
class Targeted:
    """The answer ``label`` and no other."""

    label: Tensor | int

    def margin(self, logits: Tensor) -> Tensor:
        """``max_{i != t} z_i - z_t``, ``[B, K] -> [B]``: negative once the attack has succeeded.

        >>> Targeted(1).margin(torch.tensor([[3.0, 1.0, 2.0]]))
        tensor([2.])
        """
        own, other = _own_and_best_other(logits, self.label)
        return other - own

    def achieved(self, logits: Tensor) -> Tensor:
        """``[B, K] -> [B]`` bool: the answer is the wanted one."""
        return logits.argmax(dim=1) == _as_rows(self.label, logits)


Goal = Untargeted | Targeted


def _as_rows(label: Tensor | int, logits: Tensor) -> Tensor:
    return torch.as_tensor(label, device=logits.device).expand(len(logits))


def _own_and_best_other(logits: Tensor, label: Tensor | int) -> tuple[Tensor, Tensor]:
    rows = _as_rows(label, logits)[:, None]
    own = logits.gather(1, rows).squeeze(1)
    return own, logits.scatter(1, rows, -math.inf).amax(dim=1)


LOUDEST_DB = 300
"""No SNR of 16-bit audio is beyond this, and no power of ten below it is beyond a float."""


@dataclass(frozen=True, slots=True)
class Budget:
    """What an attack may change: how much, how many samples, how loud. ``None`` is no limit."""

    epsilon: float
    max_density: float | None = None
    max_l0: int | None = None
    min_snr_db: float | None = None

    def __post_init__(self) -> None:
        if not 0 < self.epsilon <= 2:
            raise InvalidInput(f"epsilon is {self.epsilon}", remedy="Give a value in (0, 2]")
        if self.max_density is not None and not 0 < self.max_density <= 1:
            raise InvalidInput(
                f"max_density is {self.max_density}", remedy="Give a value in (0, 1]"
            )
        if self.max_l0 is not None and self.max_l0 < 0:
            raise InvalidInput(f"max_l0 is {self.max_l0}", remedy="Give 0 or more samples")
        if self.min_snr_db is not None and not abs(self.min_snr_db) <= LOUDEST_DB:
            raise InvalidInput(
                f"min_snr_db is {self.min_snr_db}", remedy=f"Give -{LOUDEST_DB} to {LOUDEST_DB} dB"
            )

    @property
    def epsilon_lsb(self) -> int:
        """Epsilon in whole steps of the 16-bit grid: ``floor(epsilon * 32768)``.

        >>> Budget(epsilon=0.03).epsilon_lsb
        983
        """
        return math.floor(self.epsilon * audio.FULL_SCALE)

    def max_samples(self, length: int) -> int:
        """How many samples of a clip of ``length`` may change.

        >>> Budget(epsilon=0.01, max_density=0.05).max_samples(150)
        7
        """
        by_density = length if self.max_density is None else math.floor(self.max_density * length)
        return min(length, by_density, length if self.max_l0 is None else self.max_l0)

    def step_limit(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        """How far each sample may move where a clip of ``x [B, T]`` changes as many as it may, ``[B, 1]``.

        That is epsilon, or as much less as ``min_snr_db`` asks: a search within epsilon whose result is
        scaled down in the end would have looked at another ball than the one it may use.

        >>> Budget(epsilon=0.25, max_l0=1, min_snr_db=20).step_limit(torch.tensor([[0.5, 0.5, 0.5, 0.5]]))
        tensor([[0.1000]])
        """
        epsilon = self.epsilon_lsb / audio.FULL_SCALE
        if self.min_snr_db is None:
            return x.new_full((len(x), 1), epsilon)
        sizes = [x.shape[1]] * len(x) if lengths is None else lengths.tolist()
        counts = x.new_tensor([max(1, self.max_samples(int(size))) for size in sizes])
        allowed = x.square().sum(dim=1) / 10 ** (self.min_snr_db / 10)
        return (allowed / counts).sqrt().clamp_max(epsilon)[:, None]

    def violations(self, clean: Samples, adversarial: Samples) -> list[str]:
        """Each limit that a pair of 16-bit clips ``[T]`` breaks, in words; empty when it is kept.

        >>> Budget(epsilon=0.01).violations(np.int16([0, 0]), np.int16([0, 328]))
        ['a sample moved by 328 steps of 2^-15; epsilon 0.01 allows 327']
        """
        if clean.shape != adversarial.shape:
            return [f"length changed from {len(clean)} to {len(adversarial)} samples"]
        delta = adversarial.astype(np.int64) - clean
        largest, moved = int(np.abs(delta).max(initial=0)), int(np.count_nonzero(delta))
        found = []
        if largest > self.epsilon_lsb:
            found.append(
                f"a sample moved by {largest} steps of 2^-15; epsilon {self.epsilon} allows {self.epsilon_lsb}"
            )
        if moved > self.max_samples(len(clean)):
            found.append(f"{moved} samples changed; {self.max_samples(len(clean))} are allowed")
        if self.min_snr_db is not None and moved:
            snr = 10 * math.log10(max(_energy(clean), 1e-12) / _energy(delta))
            if snr < self.min_snr_db:
                found.append(f"snr {snr:.2f} dB is below {self.min_snr_db} dB")
        return found

    def project(self, clean: Samples, adversarial: NDArray[np.floating]) -> Samples:
        """The attack's float result ``[T]`` as integers within epsilon, full scale and min_snr_db.

        Rounds to the grid around the clean integers; it never chooses *which* samples change:
        keeping max_density and max_l0 is the attack's own task.
        """
        delta = np.rint(adversarial.astype(np.float64) * audio.FULL_SCALE) - clean
        delta = np.clip(delta, -self.epsilon_lsb, self.epsilon_lsb)
        if self.min_snr_db is not None:
            allowed = _energy(clean) / 10 ** (self.min_snr_db / 10)
            energy = _energy(delta)
            if energy > allowed:
                delta = np.trunc(delta * math.sqrt(allowed / energy))
        moved = np.clip(clean + delta, -audio.FULL_SCALE, audio.FULL_SCALE - 1)
        fitted: Samples = moved.astype(np.int16)
        return fitted


def _energy(samples: NDArray[Any]) -> float:
    return float(np.square(samples.astype(np.float64)).sum())


@runtime_checkable
class Attack(Protocol):
    """A frozen dataclass of its paper's settings: changes waveforms within its ``budget``.

    ``x [B, T]`` in [-1, 1] -> ``x_adv [B, T]``; samples beyond ``lengths`` are returned untouched.
    """

    @property
    def budget(self) -> Budget: ...

    def __call__(
        self, source: Victim, x: Tensor, goal: Goal, lengths: Tensor | None = None
    ) -> Tensor: ...


# ---------------------------------------------------------------- labelled audio


@dataclass(frozen=True, slots=True)
class Clip:
    """One clip in memory: mono 16-bit integers ``[T]`` on a grid shared by all that follows."""

    id: str
    samples: Samples
    sample_rate: int
    label: str | None = None
    speaker: str = "unknown"

    @property
    def waveform(self) -> Tensor:
        """``[T]`` float in [-1, 1)."""
        return torch.from_numpy(audio.to_float(self.samples))


@dataclass(frozen=True, slots=True)
class Utterance:
    """One labelled file of a corpus, or a part of one; ``id`` is unique and safe as a file name."""

    id: str
    path: Path
    label: str | None
    speaker: str
    sex: str | None = None
    start_s: float = 0.0
    end_s: float | None = None
    """Where the utterance ends in the file; None: where the file does."""
    part: str | None = None
    """What the corpus's own split calls its part (``train``, ``dev`` or ``test``), if it has one."""

    row: str = field(default="", compare=False)
    """The row that names it, such as ``list.csv:4``, where there is one."""
    content: str | None = None
    """What is said, such as a sentence's code: what speakers have in common; None: not known."""

    @property
    def is_segment(self) -> bool:
        """Whether it is a part of its file, not all of it."""
        return self.start_s > 0 or self.end_s is not None

    @property
    def where(self) -> str:
        """The file, for an error; of a part, also its times and its row.

        >>> Utterance("a", Path("a.wav"), "joy", "s", start_s=0.5, row="list.csv:4").where
        'a.wav [0.5 s to end, list.csv:4]'
        """
        if not self.is_segment:
            return str(self.path)
        end = "end" if self.end_s is None else f"{self.end_s:.9g} s"
        return f"{self.path} [{self.start_s:.9g} s to {end}{self.row and f', {self.row}'}]"


OnUnusable = Callable[[Utterance, UnusableClip], None]


def _raise(utterance: Utterance, problem: UnusableClip) -> None:
    raise problem


class Store(Protocol):
    """Clips that were decoded before; see ``staanet.corpora.cache``."""

    def samples(self, utterance: Utterance, sample_rate: int) -> Samples | None:
        """``[T]``, or None where the clip has to be read from its source."""


@dataclass(frozen=True)
class Corpus:
    """Labelled audio, or a part of it. ``notes`` say what was unusual but usable."""

    name: str
    utterances: Sequence[Utterance]
    """A tuple, or what makes each when it is looked at (``columns.Made``)."""
    labels: tuple[str, ...]
    part: str = "all"
    split_hash: str = ""
    notes: tuple[str, ...] = ()
    limits: audio.AudioLimits = field(default_factory=audio.AudioLimits)
    fixed: Mapping[str, Sequence[splits.Fold]] = field(default_factory=dict, hash=False)
    """Splits that the corpus's literature uses, by name; the seed chooses where there are several."""
    classes: str = "label"
    """What the labels are: the corpus's own ``label``, or each clip's ``speaker`` or ``sex``."""
    decoded: Store | None = field(default=None, compare=False, repr=False)
    """Clips that need not be decoded again; None: every clip is read from its source."""

    def __len__(self) -> int:
        return len(self.utterances)

    @property
    def speakers(self) -> tuple[str, ...]:
        return tuple(sorted(set(lazy_rows.field(self.utterances, "speaker"))))

    @property
    def contents(self) -> tuple[str, ...]:
        """What is said in it; a clip of which that is not known counts by its file."""
        return tuple(sorted({_content(u) for u in self.utterances}))

    @property
    def apart(self) -> str:
        """What no two parts of a split share: ``speakers``, or ``contents`` where speakers are the
        classes, each of which every part needs."""
        return splits.CONTENTS if self.classes == "speaker" else splits.DRAWN

    def unit(self, utterance: Utterance) -> str:
        """The speaker or content with which ``utterance`` goes into a part."""
        return utterance.speaker if self.apart == splits.DRAWN else _content(utterance)

    def units(self) -> Iterator[str]:
        """``unit`` of each utterance."""
        if self.apart == splits.DRAWN:
            return lazy_rows.field(self.utterances, "speaker")
        return map(_content, self.utterances)

    def load(self, utterance: Utterance, sample_rate: int) -> Clip:
        """Read one utterance as mono 16-bit audio at ``sample_rate``.

        Raises ``UnusableClip`` where the file is broken, silent, beyond ``limits`` or ends before
        the utterance does.
        """
        if self.decoded is not None:
            known = self.decoded.samples(utterance, sample_rate)
            if known is not None:
                return Clip(utterance.id, known, sample_rate, utterance.label, utterance.speaker)
        try:
            samples = audio.load_samples(
                utterance.path,
                sample_rate,
                self.limits,
                start_s=utterance.start_s,
                end_s=utterance.end_s,
            )
        except UnusableClip as problem:
            raise UnusableClip(
                problem.what, where=utterance.where, remedy=problem.remedy
            ) from problem
        return Clip(utterance.id, samples, sample_rate, utterance.label, utterance.speaker)

    def clips(self, sample_rate: int, on_unusable: OnUnusable = _raise) -> Iterator[Clip]:
        """All usable clips in order of their ids; the others are handed to ``on_unusable``."""
        for utterance in self.utterances:
            try:
                yield self.load(utterance, sample_rate)
            except UnusableClip as problem:
                on_unusable(utterance, problem)

    @property
    def protocols(self) -> tuple[str, ...]:
        """What ``split`` can be asked for."""
        return splits.protocols(self.fixed, lazy_rows.field(self.utterances, "part"), self.apart)

    def split(self, seed: int = 0, protocol: str | None = None) -> tuple[Corpus, Corpus, Corpus]:
        """Train, dev and test parts with disjoint speakers, every class in each.

        By default a fifth of the speakers each, of both sexes, goes to dev and test; ``protocol``
        names another way (``staanet.core.splits``). Where speakers are the classes, contents are disjoint
        instead: no sentence is in two parts. Raises ``InvalidInput`` where the corpus has too few
        speakers, a class that is not in all parts, or no such protocol.
        """
        drawn = protocol in (None, self.apart)
        parts = _drawn(self, seed) if drawn else _fixed(self, seed, str(protocol))
        digest = _split_hash(self, {unit: part for part, units in parts.items() for unit in units})
        train, dev, test = (
            replace(
                self,
                utterances=lazy_rows.where(self.utterances, (u in units for u in self.units())),
                part=part,
                split_hash=digest,
            )
            for part, units in parts.items()
        )
        return train, dev, test


def _split_hash(corpus: Corpus, part_of: Mapping[str, str]) -> str:
    """The sha256 of the sorted lines ``id, part``, of the clips that are in one."""
    digest, last = hashlib.sha256(), ""
    for line in _split_lines(corpus, part_of):
        if line < last:
            break
        digest.update(("\n" * bool(last) + line).encode("utf-8", "surrogatepass"))
        last = line
    else:  # in order, as ids are by rule: no list of them is needed
        return digest.hexdigest()
    text = "\n".join(sorted(_split_lines(corpus, part_of)))
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def _split_lines(corpus: Corpus, part_of: Mapping[str, str]) -> Iterator[str]:
    ids = lazy_rows.field(corpus.utterances, "id")
    for name, unit in zip(ids, corpus.units(), strict=True):
        if unit in part_of:
            yield f"{name}\t{part_of[unit]}"


def _content(utterance: Utterance) -> str:
    """What is said, or the file: parts of one recording are never torn apart."""
    return utterance.content or str(utterance.path)


def _fixed(corpus: Corpus, seed: int, protocol: str) -> dict[str, set[str]]:
    if corpus.apart == splits.CONTENTS and protocol.partition(":")[0] == splits.DRAWN:
        raise InvalidInput(
            f"the protocol '{protocol[:100]}' keeps speakers apart, but they are the classes",
            where=corpus.name,
            remedy=f"Drop --protocol, or write {splits.CONTENTS_BY_HAND}",
        )
    own = lazy_rows.field(corpus.utterances, "part")
    clips = Counter(zip(corpus.units(), own, strict=True))
    parts = splits.parts_of(
        protocol, clips, corpus.fixed, seed=seed, where=corpus.name, apart=corpus.apart
    )
    for part, units in parts.items():
        labels = lazy_rows.field(corpus.utterances, "label")
        held = {one for one, u in zip(labels, corpus.units(), strict=True) if u in units}
        for label in corpus.labels:
            if label not in held:
                raise InvalidInput(
                    f"class '{label}' has 0 {part} clips in the protocol '{protocol[:100]}'",
                    where=corpus.name,
                    remedy="Leave the class out, or choose speakers that have it",
                )
    return parts


def _drawn(corpus: Corpus, seed: int) -> dict[str, set[str]]:
    """A fifth of the speakers (or contents) each for dev and test, until every class is in each part."""
    labelled: dict[str, set[str]] = {}
    for unit, label in zip(
        corpus.units(), lazy_rows.field(corpus.utterances, "label"), strict=True
    ):
        labelled.setdefault(unit, set()).add(label or "")
    if len(labelled) < 3:
        raise InvalidInput(
            f"{len(labelled)} {corpus.apart} cannot be split into train, dev and test",
            where=corpus.name,
            remedy=f"Give a corpus with at least 3 {corpus.apart}, or use this one whole with "
            "--part all",
        )
    groups = _by_sex(corpus) if corpus.apart == splits.DRAWN else _by_who_says_them(corpus)
    rng = np.random.default_rng(seed)
    lacking: tuple[str, str] = ("", "")
    for _ in range(1000):
        parts: dict[str, set[str]] = {"train": set(), "dev": set(), "test": set()}
        for group in groups:
            order = [group[i] for i in rng.permutation(len(group))]
            fifth = max(1, round(len(group) / 5))
            parts["test"].update(order[:fifth])
            parts["dev"].update(order[fifth : 2 * fifth])
            parts["train"].update(order[2 * fifth :])
        missing = [
            (part, label)
            for part, units in parts.items()
            for label in sorted(set(corpus.labels).difference(*(labelled[u] for u in units)))
        ]
        if not missing:
            return parts
        lacking = missing[0]
    raise InvalidInput(
        f"class '{lacking[1]}' has 0 {lacking[0]} clips in every {corpus.apart[:-1]}-disjoint split "
        "tried",
        where=corpus.name,
        remedy=f"Leave the class out, or add {corpus.apart} that have it",
    )


def _by_sex(corpus: Corpus) -> list[list[str]]:
    speakers, sexes = (lazy_rows.field(corpus.utterances, name) for name in ("speaker", "sex"))
    sex = {speaker: one or "" for speaker, one in zip(speakers, sexes, strict=True)}
    groups = [[s for s in sorted(sex) if sex[s] == g] for g in sorted(set(sex.values()))]
    few = any(len(group) < 3 for group in groups)  # too few of one sex to be in every part
    return [sorted(sex)] if few else groups


def _by_who_says_them(corpus: Corpus) -> list[list[str]]:
    """The contents that several speakers have, and of each speaker those that no other has: a fifth
    of each group keeps every speaker in every part, whether or not they say the same."""
    said_by: dict[str, set[str]] = {content: set() for content in corpus.contents}
    for u in corpus.utterances:
        said_by[_content(u)].add(u.speaker)
    own: dict[str, list[str]] = {speaker: [] for speaker in corpus.speakers}
    for content, speakers in said_by.items():
        if len(speakers) == 1:
            own[min(speakers)].append(content)
    alone = [group for group in own.values() if len(group) >= 3]
    dealt = {content for group in alone for content in group}
    common = [content for content in said_by if content not in dealt]
    return [*([common] if common else []), *alone]
