"""The limits of an audio file that is read: channels, rate, duration and bytes."""

from __future__ import annotations

from dataclasses import dataclass, field

from staanet.errors import UnusableClip


@dataclass(frozen=True, slots=True, kw_only=True)
class AudioLimits:
    """Limits of an audio file.

    A command that has options for ``max_seconds`` and ``max_bytes`` names them here. The remedy of an error
    then names them too.
    """

    max_channels: int = 8
    min_rate_hz: int = 4_000
    max_rate_hz: int = 192_000
    max_seconds: float = 600.0
    max_bytes: int = 512 * 2**20
    seconds_option: str = field(default="", repr=False, compare=False)
    bytes_option: str = field(default="", repr=False, compare=False)

    @property
    def seconds_remedy(self) -> str:
        """What to do with a file that is too long.

        >>> AudioLimits().seconds_remedy
        'Cut the file into shorter files'
        >>> AudioLimits(seconds_option="--max-seconds").seconds_remedy
        'Cut the file into shorter files, or raise --max-seconds'
        """
        return _cut_or_raise(self.seconds_option)

    @property
    def bytes_remedy(self) -> str:
        """What to do with a file that is too large."""
        return _cut_or_raise(self.bytes_option)


def _cut_or_raise(option: str) -> str:
    return "Cut the file into shorter files" + (f", or raise {option}" if option else "")


DEFAULT_LIMITS = AudioLimits()
OWN_FILES = AudioLimits(
    max_channels=1, min_rate_hz=1, max_rate_hz=655_350, max_seconds=float("inf"), max_bytes=2**40
)
"""For files that we wrote: as long as they are."""


def check_format(channels: int, rate: int, limits: AudioLimits) -> None:
    """Before any decoder or resampler is built from them."""
    if not 1 <= channels <= limits.max_channels:
        remedy = f"Mix it down to {limits.max_channels} or fewer" if channels else ""
        raise UnusableClip(
            f"{channels} channels, the limit is {limits.max_channels}", remedy=remedy
        )
    if rate < limits.min_rate_hz:
        raise UnusableClip(
            f"{rate} Hz, at least {limits.min_rate_hz} Hz are needed",
            remedy="Leave it out: it holds too little of the speech",
        )
    if rate > limits.max_rate_hz:
        raise UnusableClip(
            f"{rate} Hz, the limit is {limits.max_rate_hz} Hz",
            remedy=f"Resample it to {limits.max_rate_hz} Hz or less",
        )
