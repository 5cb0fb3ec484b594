# Waveforms from files of any format, rate and number of channels.

from pathlib import Path

import numpy as np
import soundfile
import soxr


class AudioError(ValueError):
    """A file that is no recording, with its name and the reason in one line."""

    def __init__(self, path: Path | str, reason: str):
        super().__init__(f"{path}: {reason}")


def header(path: Path | str) -> tuple[int, int]:
    """The number of samples and the sample rate in Hz that a recording's header says.
    Raises an :class:`AudioError` for a file that is no recording."""
    if not Path(path).is_file():
        raise AudioError(path, "no such file")
    try:
        info = soundfile.info(path)
    except soundfile.LibsndfileError as error:
        raise AudioError(path, f"unreadable: {error.error_string}") from error
    if info.frames == 0:
        raise AudioError(path, "no samples")
    return info.frames, info.samplerate


def read(path: Path | str, sample_rate: int) -> np.ndarray:
    """The samples (samples,) of a recording, its channels' mean, in float32 at
    ``sample_rate`` Hz. Raises an :class:`AudioError` as :func:`header`
    does, and for one that ends early or holds NaN."""
    header(path)
    try:
        samples, rate = soundfile.read(path, dtype="float32", always_2d=True)
    except soundfile.LibsndfileError as error:
        raise AudioError(path, f"unreadable: {error.error_string}") from error
    if len(samples) == 0:
        raise AudioError(path, "no samples")
    if not np.isfinite(samples).all():
        raise AudioError(path, "samples that are not numbers")
    return soxr.resample(samples.mean(axis=1), rate, sample_rate)
