"""Pictures of a clip: waveform, log-mel spectrogram and the changed samples.

The triptych has the layout of Chang et al. 2024, figure 3: original, adversarial clip and
perturbation side by side on one time axis. Below, ten milliseconds show single samples.
"""

from __future__ import annotations

import io
import warnings

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image

from staanet import audio
from staanet.core import Samples
from staanet.report.chart_style import BLUE, FAINT, INK, STYLE, VERMILION, to_png

WINDOW_S, HOP_S, MELS, RANGE_DB = 0.032, 0.008, 64, 80.0
ZOOM_S = 0.010


def log_mel(samples: NDArray[np.floating], sample_rate: int) -> NDArray[np.float64]:
    """Returns log-mel power, ``[T] in [-1, 1] -> [MELS, frames]`` in dB (floor at -100 dB), Hann window.

    >>> log_mel(np.zeros(16_000), 16_000).max()
    np.float64(-100.0)
    """
    size, hop = round(WINDOW_S * sample_rate), round(HOP_S * sample_rate)
    padded = np.pad(np.asarray(samples, dtype=np.float64), size // 2)
    frames = np.lib.stride_tricks.sliding_window_view(padded, size)[::hop]
    window = np.hanning(size + 1)[:-1]
    power = np.square(np.abs(np.fft.rfft(frames * window, axis=1))) / np.square(window).sum()
    return np.asarray(10 * np.log10(np.maximum(mel_filters(sample_rate, size) @ power.T, 1e-10)))


def mel_filters(sample_rate: int, size: int) -> NDArray[np.float64]:
    """Returns triangles, evenly spaced in mel (2595 log10(1 + f/700)), each of sum 1: ``[MELS, size//2+1]``.

    >>> mel_filters(16_000, 512).shape
    (64, 257)
    """
    bins = np.fft.rfftfreq(size, 1 / sample_rate)
    edges = mel_to_hz(np.linspace(0, hz_to_mel(sample_rate / 2), MELS + 2))
    low, centre, high = edges[:-2, None], edges[1:-1, None], edges[2:, None]
    triangles = np.minimum((bins - low) / (centre - low), (high - bins) / (high - centre)).clip(0)
    nearest = np.abs(bins[None] - centre).argmin(axis=1)  # low bands narrower than a bin get one
    empty = triangles.sum(axis=1) == 0
    triangles[empty, nearest[empty]] = 1
    return np.asarray(triangles / triangles.sum(axis=1, keepdims=True))


def hz_to_mel(hz: float) -> float:
    """Returns the mel of a frequency.

    >>> round(hz_to_mel(1000.0))
    1000
    """
    return float(2595 * np.log10(1 + hz / 700))


def mel_to_hz(mel: NDArray[np.float64]) -> NDArray[np.float64]:
    """Returns the frequencies of mel values; the inverse of ``hz_to_mel``."""
    return np.asarray(700 * (10 ** (mel / 2595) - 1))


def typical_span(clean: Samples, delta: NDArray[np.int64], sample_rate: int) -> tuple[int, int]:
    """Returns start and end of a ``ZOOM_S`` in the louder half of a clip ``[T]``.

    Of these, it is the one whose share of changed samples is nearest to that of the whole clip.

    >>> typical_span(np.int16([9] * 640), np.array([0] * 320 + [5] * 160 + [5, 0] * 80), 16_000)
    (480, 640)
    """
    length = max(1, min(len(delta), round(ZOOM_S * sample_rate)))
    blocks = len(delta) // length
    shape = (blocks, length)
    energy = np.square(clean[: blocks * length].astype(np.int64)).reshape(shape).sum(axis=1)
    changed = np.count_nonzero(delta[: blocks * length].reshape(shape), axis=1)
    usable = (changed > 0) & (energy >= np.median(energy))
    usable = usable if usable.any() else np.ones(blocks, dtype=bool)
    distance = np.abs(changed - length * np.count_nonzero(delta) / len(delta))
    start = int(np.where(usable, distance, np.inf).argmin()) * length
    return start, start + length


def densest_span(delta: NDArray[np.int64], sample_rate: int) -> tuple[int, int]:
    """Returns start and end of the ``ZOOM_S`` of a clip ``[T]`` in which most samples changed.

    >>> densest_span(np.array([0] * 300 + [1] * 40 + [0] * 300), 16_000)
    (180, 340)
    """
    length = max(1, min(len(delta), round(ZOOM_S * sample_rate)))
    total = np.concatenate([[0], np.cumsum(delta != 0)])
    start = int(np.argmax(total[length:] - total[:-length]))
    return start, start + length


def waveform_picture(
    clean: Samples, adversarial: Samples, sample_rate: int, *, narrow: bool = False
) -> bytes:
    """Draws a 16-bit clip ``[T]`` with its changed samples, above its densest ``ZOOM_S``; PNG on white.

    ``narrow`` puts the panels one below the other, for a phone.
    """
    with matplotlib.rc_context(STYLE):
        figure = draw_waveform(clean, adversarial, sample_rate, narrow=narrow)
        return to_png(figure, dpi=190 if narrow else 130)


def draw_waveform(
    clean: Samples, adversarial: Samples, sample_rate: int, *, narrow: bool
) -> Figure:
    """The figure of ``waveform_picture``."""
    delta = adversarial.astype(np.int64) - clean
    x, x_adv, change = audio.to_float(clean), audio.to_float(adversarial), delta / audio.FULL_SCALE
    span = densest_span(delta, sample_rate)
    figure = Figure(figsize=(3.7, 6.0) if narrow else (9.4, 4.6))
    if narrow:
        edges = {"left": 0.2, "right": 0.95, "top": 0.96, "bottom": 0.08, "hspace": 0.62}
        whole, wave, alone = figure.subplots(3, 1, gridspec_kw=edges)
    else:
        whole = figure.add_axes((0.07, 0.56, 0.835, 0.37))
        wave, alone = _zoom_axes(figure, 0.13, 0.38)
    time = np.arange(len(clean)) / sample_rate
    whole.plot(time, x_adv, color=FAINT, linewidth=0.5)
    changed = np.flatnonzero(delta)
    whole.plot(changed / sample_rate, x_adv[changed], ",", color=VERMILION)
    whole.axvspan(*(index / sample_rate for index in span), color=BLUE, alpha=0.35, linewidth=0)
    peak = 1.08 * max(float(np.abs(x).max()), float(np.abs(x_adv).max()), 1e-4)
    whole.set(xlim=(0, len(clean) / sample_rate), ylim=(-peak, peak), xlabel="time, s")
    count = f"{len(changed):,} of {len(clean):,} samples changed"
    whole.set_title(count if narrow else f"{count}; blue: enlarged below")
    whole.set_ylabel("full scale = 1")
    _draw_zoom((wave, alone), (x, x_adv, change), span, sample_rate)
    if narrow:
        title = wave.get_title(loc="left").replace(" samples changed", " changed")
        wave.set_title(title, fontsize=8.0)  # which fits also late in a long clip
    return figure


def triptych_picture(clean: Samples, adversarial: Samples, sample_rate: int) -> bytes:
    """Draws a pair of 16-bit clips ``[T]`` side by side as PNG on white, with at most 256 colours."""
    with matplotlib.rc_context(STYLE), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*Glyph.*")
        png = to_png(_draw_triptych(clean, adversarial, sample_rate), dpi=140)
    out = io.BytesIO()
    picture = Image.open(io.BytesIO(png)).convert("RGB")
    picture.quantize(256, dither=Image.Dither.NONE).save(out, format="PNG", optimize=True)
    return out.getvalue()


def _draw_triptych(clean: Samples, adversarial: Samples, sample_rate: int) -> Figure:
    delta = adversarial.astype(np.int64) - clean
    x, x_adv, change = audio.to_float(clean), audio.to_float(adversarial), delta / audio.FULL_SCALE
    end = len(clean) / sample_rate
    loud = 1.08 * max(float(np.abs(x).max()), float(np.abs(x_adv).max()), 1e-4)
    small = 1.15 * max(float(np.abs(change).max()), 1e-4)
    enlarged = f"perturbation (axis enlarged \N{MULTIPLICATION SIGN} {loud / small:.0f})"
    waves: list[NDArray[np.floating]] = [x, x_adv, change]
    titles, reaches = ("original", "adversarial", enlarged), (loud, loud, small)
    top = float(log_mel(x, sample_rate).max())
    figure = Figure(figsize=(9.4, 5.9))
    grid = figure.add_gridspec(
        2, 3, left=0.07, right=0.905, top=0.955, bottom=0.42, wspace=0.2, hspace=0.1
    )
    for column, (title, wave, reach) in enumerate(zip(titles, waves, reaches, strict=True)):
        above = figure.add_subplot(grid[0, column])
        ink = (INK, FAINT, VERMILION)[column]
        above.plot(np.arange(len(wave)) / sample_rate, wave, color=ink, linewidth=0.5)
        if column == 1:
            changed = np.flatnonzero(delta)
            above.plot(changed / sample_rate, wave[changed], ",", color=VERMILION)
        above.set(xlim=(0, end), ylim=(-reach, reach), title=title, xticklabels=[])
        below = figure.add_subplot(grid[1, column])
        image = below.imshow(
            log_mel(wave, sample_rate),
            origin="lower",
            aspect="auto",
            cmap="magma",
            vmin=top - RANGE_DB,
            vmax=top,
            extent=(0, end, 0, MELS),
            interpolation="nearest",
        )
        _mel_axis(below, sample_rate, column == 0)
        below.set_xlabel("time, s")
        if column == 0:
            above.set_ylabel("full scale = 1")
    bar = below.get_position()
    figure.colorbar(
        image, cax=figure.add_axes((0.92, bar.y0, 0.012, bar.height)), label="log-mel power, dB"
    )
    span = typical_span(clean, delta, sample_rate)
    _draw_zoom(_zoom_axes(figure, 0.085, 0.285), (x, x_adv, change), span, sample_rate)
    return figure


def _mel_axis(axes: Axes, sample_rate: int, labelled: bool) -> None:
    ticks = [hz for hz in (250, 500, 1000, 2000, 4000, 8000, 16000) if hz <= sample_rate / 2]
    top = hz_to_mel(sample_rate / 2)
    axes.set_yticks([hz_to_mel(hz) / top * MELS for hz in ticks])
    axes.set_yticklabels([f"{hz / 1000:g}" for hz in ticks] if labelled else [])
    if labelled:
        axes.set_ylabel("frequency, kHz")


def _zoom_axes(figure: Figure, bottom: float, top: float) -> tuple[Axes, Axes]:
    grid = figure.add_gridspec(1, 3, left=0.07, right=0.905, top=top, bottom=bottom, wspace=0.2)
    return figure.add_subplot(grid[0, :2]), figure.add_subplot(grid[0, 2])


def _draw_zoom(
    axes_pair: tuple[Axes, Axes],
    signals: tuple[NDArray[np.floating], NDArray[np.floating], NDArray[np.floating]],
    span: tuple[int, int],
    sample_rate: int,
) -> None:
    """Draws the samples of ``span`` one by one: the waveform with both values, then the changes.

    ``signals`` are the clean clip, the adversarial clip and the change.
    """
    (wave, alone), (x, x_adv, change) = axes_pair, signals
    inside = slice(*span)
    milliseconds = 1000 * np.arange(span[1] - span[0]) / sample_rate
    changed = np.flatnonzero(change[inside])
    wave.plot(
        milliseconds, x[inside], "o-", color=BLUE, markersize=2, linewidth=0.8, label="original"
    )
    for axes, low, high in ((wave, x, x_adv), (alone, np.zeros_like(change), change)):
        at, tips = milliseconds[changed], high[inside][changed]
        axes.vlines(at, low[inside][changed], tips, color=VERMILION, linewidth=1.1)
        axes.plot(at, tips, "o", color=VERMILION, markersize=2.8, label="changed sample")
        axes.set_xlim(-0.1, milliseconds[-1] + 0.1)
        axes.set_xlabel("time, ms", loc="left")
        axes.axhline(0, color=FAINT, linewidth=0.5, zorder=0)
    wave.set_title(
        f"{1000 * len(milliseconds) / sample_rate:.0f} ms from {span[0] / sample_rate:.3f} s: "
        f"{len(changed)} of {len(milliseconds)} samples changed"
    )
    alone.set_title("the changes alone")
    wave.set_ylabel("full scale = 1")
    wave.legend(loc="upper right", ncols=2, fontsize=8, bbox_to_anchor=(1.01, -0.12), borderpad=0.2)
