"""Audio files: the 16-bit grid, complete reading of common formats, writing of WAV and FLAC.

The public names of the modules are here: ``audio.read_audio``, ``audio.snap``, ``audio.encode``.
``staanet.audio.psychoacoustics`` needs torch and is imported by its own name.
"""

from staanet.audio.embedded import source_file
from staanet.audio.grid import (
    FULL_SCALE,
    content_hash,
    cut,
    degeneracy,
    fit_length,
    resample,
    snap,
    to_float,
)
from staanet.audio.levels import recording_notes
from staanet.audio.limits import OWN_FILES, AudioLimits
from staanet.audio.reading import (
    Sound,
    declared_seconds,
    load_recording,
    load_samples,
    read_audio,
    read_int16,
    stream_samples,
)
from staanet.audio.writing import encode, wav_header

__all__ = [
    "FULL_SCALE",
    "OWN_FILES",
    "AudioLimits",
    "Sound",
    "content_hash",
    "cut",
    "declared_seconds",
    "degeneracy",
    "encode",
    "fit_length",
    "load_recording",
    "load_samples",
    "read_audio",
    "read_int16",
    "recording_notes",
    "resample",
    "snap",
    "source_file",
    "stream_samples",
    "to_float",
    "wav_header",
]
