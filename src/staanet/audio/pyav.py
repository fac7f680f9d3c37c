"""Decodes what libsndfile does not read (WebM, MPEG-4, AMR, WMA) by PyAV (extra ``av``)."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from staanet.audio.containers.declared import fail
from staanet.audio.decoding import Decoder
from staanet.audio.limits import check_format
from staanet.errors import UnusableClip, printable

MAX_MISSING_S = 0.2
"""Seconds by which the sound may be shorter than its container says; encoders add padding."""


class PyavDecoder(Decoder):
    """A ``Decoder`` for containers that PyAV opens; it reads the first audio stream."""

    def __iter__(self) -> Iterator[NDArray[np.float32]]:
        import av

        try:
            with open(self.descriptor, "rb", closefd=False) as file, av.open(file) as container:
                if not container.streams.audio:
                    fail("holds no sound")
                stream = container.streams.audio[0]
                self.rate, self.channels = stream.rate, stream.channels
                check_format(self.channels, self.rate, self.limits)
                self.form = f"{container.format.name} {stream.codec_context.name}"
                seconds = float(container.duration or 0) / av.time_base
                if seconds > self.limits.max_seconds:
                    limit = f"longer than the limit of {self.limits.max_seconds:g} s"
                    raise UnusableClip(limit, remedy=self.limits.seconds_remedy)
                yield from self._mono(self._frames(av, container, seconds), None)
        except av.error.FFmpegError as error:
            raise UnusableClip(f"cannot be decoded ({printable(str(error))[:200]})") from error

    def _frames(self, av: Any, container: Any, seconds: float) -> Iterator[NDArray[np.float32]]:
        """Yields blocks ``[T, channels]``; raises ``UnusableClip`` if they end before ``seconds`` (0: unknown)."""
        resampler = av.AudioResampler(format="fltp")
        decoded = 0
        for frame in _with_flush(container.decode(audio=0)):
            for part in resampler.resample(frame):
                block = np.ascontiguousarray(part.to_ndarray().T, dtype=np.float32)
                decoded += len(block)
                if block.shape[1] != self.channels or part.sample_rate != self.rate:
                    fail("its number of channels or its rate changes on the way")
                yield block
        missing = seconds - decoded / self.rate
        if missing > MAX_MISSING_S + 0.01 * seconds:
            fail(f"holds {decoded / self.rate:.2f} of {seconds:.2f} declared s")
        if not seconds or not math.isfinite(seconds):
            self.notes.append("its container declares no length")


def _with_flush(frames: Iterator[Any]) -> Iterator[Any]:
    """Yields the frames, and then None, which flushes the resampler."""
    yield from frames
    yield None
