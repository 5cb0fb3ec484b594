# espeak-ng's synthesiser through ctypes.
#
# The PyPI package espeakng-loader carries the library and its voices. espeak-ng
# is licensed under the GPL 3, so it is an optional dependency of this example.

import ctypes
import os
import sys
import tempfile

import numpy as np

# From espeak-ng's speak_lib.h.
AUDIO_OUTPUT_SYNCHRONOUS = 2
INITIALIZE_DONT_EXIT = 0x8000
POS_CHARACTER = 1
CHARS_UTF8, ENDPAUSE = 1, 0x1000
PARAMETERS = {"rate": 1, "pitch": 3, "range": 4, "wordgap": 7}
LONGEST_DATA_PATH = 159
# int callback(short *samples, int count, espeak_EVENT *events)
CALLBACK = ctypes.CFUNCTYPE(
    ctypes.c_int, ctypes.c_void_p, ctypes.c_int, ctypes.c_void_p
)


class Espeak:
    """espeak-ng's synthesiser. The same calls in the same order give the same samples,
    but for the last bits of a few clips in a thousand."""

    def __init__(self):
        try:
            import espeakng_loader
        except ImportError:
            sys.exit(
                "The default corpus is synthesised by espeak-ng (GPL 3): "
                "pip install espeakng-loader, or give --data."
            )
        self.library = ctypes.CDLL(espeakng_loader.get_library_path())
        path = espeakng_loader.get_data_path()
        if len(path) > LONGEST_DATA_PATH:
            self.link = tempfile.TemporaryDirectory()
            os.symlink(path, f"{self.link.name}/espeak-ng-data")
            path = f"{self.link.name}/espeak-ng-data"
        self.sample_rate = self.library.espeak_Initialize(
            AUDIO_OUTPUT_SYNCHRONOUS, 0, path.encode(), INITIALIZE_DONT_EXIT
        )
        if self.sample_rate <= 0:
            raise RuntimeError(f"espeak-ng did not start with the voices in {path}.")
        self.variants = sorted(os.listdir(f"{path}/voices/!v"))
        self.chunks = []
        self.receive = CALLBACK(self._receive)
        self.library.espeak_SetSynthCallback(self.receive)
        self.library.espeak_ng_SetRandSeed(ctypes.c_long(0))

    def _receive(self, samples, count, events):
        if samples and count > 0:
            self.chunks.append(ctypes.string_at(samples, 2 * count))
        return 0

    def __call__(self, text: str, voice: str, **parameters: int) -> np.ndarray:
        """16-bit samples of ``text`` spoken by ``voice``, such as ``"en-us+f3"``."""
        if self.library.espeak_SetVoiceByName(voice.encode()) != 0:
            raise ValueError(f"espeak-ng has no voice {voice}.")
        for name, value in parameters.items():
            self.library.espeak_SetParameter(PARAMETERS[name], value, 0)
        self.chunks.clear()
        encoded = text.encode()
        self.library.espeak_Synth(
            encoded,
            ctypes.c_size_t(len(encoded) + 1),
            0,
            POS_CHARACTER,
            0,
            CHARS_UTF8 | ENDPAUSE,
            None,
            None,
        )
        self.library.espeak_Synchronize()
        return np.frombuffer(b"".join(self.chunks), np.int16)
