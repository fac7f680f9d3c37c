"""The masking threshold of a clip, and the part of a perturbation above it.

Psychoacoustic model 1 of MPEG-1 (ISO/IEC 11172-3) as Qin et al. 2019 (arXiv 1903.10346) and
Schoenherr et al. 2019 (arXiv 1808.05665) use it against audio: every sound hides weaker ones near it
in frequency, within a spread of two slopes on the Bark scale, and the ear itself has a threshold. Ours
differs where theirs would let a louder sound lower the threshold: each frequency bin is a (tonal, so
cautious) masker and the strongest counts, in place of a sum over those that a search for peaks has
left. Frames last 32 ms, not 128: a click before a word is not hidden by the word.

Levels are in dB below a full-scale sine, whose power is 1. Clips are ``[B, T]`` in [-1, 1], padded
with zeros beyond their ``lengths [B]`` (None: all fill their rows), at 4,000 Hz or more; what is
padded changes nothing. Everything is differentiable with respect to the clips.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

FRAME_S = 0.032
LOUDEST_DB = 96.0
"""Sound pressure level at which the loudest bin of a clip is taken to be played (Qin et al.)."""
HIGHEST_HZ = 20_000.0
_SMALLEST = 1e-30  # a power below every threshold: its logarithm is finite
_MASKERS_AT_ONCE, _FRAMES_AT_ONCE = 16, 256  # what is held beside the spectrum: some megabytes


def bark(hz: Tensor) -> Tensor:
    """The place on the critical-band scale of a frequency, in Bark (Zwicker and Terhardt 1980).

    >>> bark(torch.tensor([100.0, 1000.0, 8000.0])).round(decimals=1)
    tensor([ 1.0000,  8.5000, 21.3000])
    """
    return 13 * torch.atan(0.00076 * hz) + 3.5 * torch.atan((hz / 7500).square())


def absolute_threshold_db(hz: Tensor) -> Tensor:
    """The threshold of hearing in quiet, in dB SPL (Terhardt 1979), 12 dB lower, as in MPEG-1.

    Frequencies below 20 Hz get the threshold of 20 Hz.

    >>> absolute_threshold_db(torch.tensor([100.0, 3300.0])).round()
    tensor([ 11., -17.])
    """
    khz = hz.clamp_min(20) / 1000
    quiet = 3.64 * khz**-0.8 - 6.5 * torch.exp(-0.6 * (khz - 3.3).square()) + 1e-3 * khz**4
    return quiet - 12


def frame_sizes(sample_rate: int) -> tuple[int, int]:
    """Samples of a frame and from one frame's centre to the next; the first is centred on sample 0.

    >>> frame_sizes(16_000)
    (512, 128)
    """
    hop = max(1, round(FRAME_S * sample_rate / 4))
    return 4 * hop, hop


def frequencies(sample_rate: int) -> Tensor:
    """The bins of a spectrum in Hz, up to half the rate and the limit of hearing: ``[F]``."""
    size, _ = frame_sizes(sample_rate)
    bins = torch.arange(size // 2 + 1, dtype=torch.float64) * sample_rate / size
    return bins[bins <= HIGHEST_HZ]


def power_spectrum(x: Tensor, lengths: Tensor | None, sample_rate: int) -> Tensor:
    """Power of each bin and frame, ``[B, T] -> [B, F, N]``, ``N = ceil(T / hop)``; Hann window.

    A sine of amplitude A on a bin has the power ``A ** 2`` in it. Frames centred beyond a clip's
    length hold its tail or nothing: ``valid_frames`` tells them apart.

    >>> tone = torch.sin(2 * torch.pi * 1000 * torch.arange(4096) / 16_000)[None]
    >>> power_spectrum(tone, None, 16_000)[0, 32, 16].round(decimals=3)  # bin 32 is 1,000 Hz
    tensor(1.)
    """
    size, hop = frame_sizes(sample_rate)
    _, time = x.shape
    if lengths is not None:
        x = x * (torch.arange(time, device=x.device) < lengths[:, None])
    number = -(-time // hop)
    x = torch.nn.functional.pad(x, (size // 2, number * hop + size // 2 - time))
    window = torch.hann_window(size, dtype=x.dtype, device=x.device)
    frames = x.unfold(1, size, hop)[:, :number] * (window * (4 / size))
    spectrum = torch.view_as_real(
        torch.fft.rfft(frames, dim=2)[..., : len(frequencies(sample_rate))]
    )
    return spectrum.square().sum(dim=3).transpose(1, 2)


def valid_frames(lengths: Tensor, number: int, sample_rate: int) -> Tensor:
    """``[B] -> [B, number]``: True for frames that are centred inside the clip."""
    _, hop = frame_sizes(sample_rate)
    return torch.arange(number, device=lengths.device) * hop < lengths[:, None]


def masking_threshold_db(
    x: Tensor, lengths: Tensor | None, sample_rate: int, *, full_scale_db: float | None = None
) -> Tensor:
    """The masking threshold of ``x`` per bin and frame: quieter sounds are inaudible, ``[B, F, N]``.

    In dB below a full-scale sine, to be compared with ``10 log10`` of a ``power_spectrum``. A
    full-scale sine is taken to be played at ``full_scale_db`` dB SPL; by default each clip is
    played so loud that its loudest bin has 96 dB (a silent clip: that a full-scale sine would), so
    that a gain of the clip is a gain of the threshold.

    >>> silence = masking_threshold_db(torch.zeros(1, 400), None, 16_000)
    >>> quiet = absolute_threshold_db(frequencies(16_000)) - LOUDEST_DB
    >>> bool(torch.allclose(silence[0, :, 0].double(), quiet))
    True
    """
    power = power_spectrum(x, lengths, sample_rate)
    batch, bins, number = power.shape
    if full_scale_db is None:
        inside = power
        if lengths is not None:
            inside = power * valid_frames(lengths, number, sample_rate)[:, None]
        peak = inside.flatten(1).amax(dim=1)
        played = LOUDEST_DB - _decibels(torch.where(peak > 0, peak, 1.0))[:, None, None]
    else:
        played = power.new_full((batch, 1, 1), full_scale_db)
    hz = frequencies(sample_rate).to(x.device)
    near = torch.nn.functional.pad(power, (0, 0, 1, 1)).unfold(1, 3, 1).sum(dim=3)
    level = torch.split(_decibels(near) + played, _FRAMES_AT_ONCE, dim=2)
    masked = torch.cat([_spread(some, bark(hz).to(x.dtype)) for some in level], dim=2)
    quiet = absolute_threshold_db(hz).to(x.dtype)[:, None].expand(bins, number)
    return _sum_db(masked, quiet) - played


def _spread(level: Tensor, z: Tensor) -> Tensor:
    """The strongest mask at each bin of maskers of ``level [B, F, N]`` in dB SPL at ``z [F]`` Bark.

    At its own place a masker hides what is 6.025 + 0.275 z dB weaker; towards lower frequencies that
    falls by 27 dB a Bark, towards higher ones the less the louder it is.
    """
    at_its_place = level - (6.025 + 0.275 * z[:, None])
    rising = -27 + 0.37 * (level - 40).clamp_min(0)
    strongest = at_its_place
    for first in range(0, len(z), _MASKERS_AT_ONCE):
        some = slice(first, first + _MASKERS_AT_ONCE)
        away = z - z[some, None]  # [maskers, F]
        below, above = 27 * away.clamp_max(0), away.clamp_min(0)
        masks = (
            at_its_place[:, some, None]
            + below[..., None]
            + rising[:, some, None] * above[..., None]
        )
        strongest = torch.maximum(strongest, masks.amax(dim=1))
    return strongest


def masked_excess(
    clean: Tensor, adversarial: Tensor, lengths: Tensor | None, sample_rate: int
) -> tuple[Tensor, Tensor]:
    """The audible part of a change, as share of bins and excess in dB: ``[B, T], [B, T] -> [B], [B]``.

    The share, in [0, 1], of the clip's time-frequency bins in which the change's spectrum lies above
    the masking threshold of the clean clip, and by how many dB it does so there on average (NaN
    where it nowhere does). A gain of both clips changes neither.

    >>> tone = torch.sin(2 * torch.pi * 1000 * torch.arange(1600) / 8000)[None]
    >>> masked_excess(tone, 1.01 * tone, None, 8000)[0]  # a tone 40 dB below an equal one
    tensor([0.])
    """
    threshold = masking_threshold_db(clean, lengths, sample_rate)
    change = power_spectrum(adversarial - clean, lengths, sample_rate)
    is_audible = change > 10 ** (threshold / 10)
    batch, bins, number = is_audible.shape
    total = torch.full((batch,), bins * number, device=clean.device)
    if lengths is not None:
        inside = valid_frames(lengths, number, sample_rate)
        is_audible = is_audible & inside[:, None]
        total = bins * inside.sum(dim=1)
    count = is_audible.flatten(1).sum(dim=1)
    above = torch.where(is_audible, _decibels(change) - threshold, 0.0)
    return count / total, above.flatten(1).sum(dim=1, dtype=torch.float64) / count


def masking_weight(x: Tensor, lengths: Tensor | None, sample_rate: int) -> Tensor:
    """How well a change of each sample is hidden by what sounds then, ``[B, T] -> [B, T]`` in (0, 1].

    The masking threshold of each frame, averaged over its bins in dB (a single changed sample is a
    click, which has equal power in all) and taken as an amplitude, over the clip's largest; between
    the frames' centres it is interpolated in dB. So 1 is where most is hidden, and 0.1 where a change
    has to be 20 dB weaker to be hidden as well. Without a gradient.

    >>> word = torch.cat([torch.zeros(1, 8000), torch.randn(1, 8000)], dim=1)
    >>> weight = masking_weight(word, None, 16_000)
    >>> bool(weight.amax() == 1), bool(weight[0, 4000] < 0.01)
    (True, True)
    """
    _, time = x.shape
    _, hop = frame_sizes(sample_rate)
    with torch.no_grad():
        envelope = masking_threshold_db(x, lengths, sample_rate).mean(dim=1)  # [B, N]
        sample = torch.arange(time, device=x.device).expand_as(x)
        length = torch.full_like(sample[:, :1], time) if lengths is None else lengths[:, None]
        last = (length - 1) // hop  # the last frame centred inside the clip
        before = torch.minimum(sample // hop, last)
        after = torch.minimum(before + 1, last)
        share = (sample % hop).to(x.dtype) / hop
        level = torch.lerp(envelope.gather(1, before), envelope.gather(1, after), share)
        level = level.masked_fill(sample >= length, -math.inf)
        level = level - level.amax(dim=1, keepdim=True)
        return torch.where(sample < length, 10 ** (level / 20), 1.0)


def _decibels(power: Tensor) -> Tensor:
    return 10 * torch.log10(power.clamp_min(_SMALLEST))


def _sum_db(first: Tensor, other: Tensor) -> Tensor:
    """The level of two powers together."""
    scale = math.log(10) / 10
    return torch.logaddexp(first * scale, other * scale) / scale
