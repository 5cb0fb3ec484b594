"""Connectionist Temporal Classification for MLX."""

import pkgutil

# In a source tree, which has no built extension, use that of the installed package.
__path__ = pkgutil.extend_path(__path__, __name__)

from mlx_ctc import _install
from mlx_ctc import nn as nn
from mlx_ctc.alignment import TokenSpan, ctc_posteriors, forced_align, merge_tokens
from mlx_ctc.decoding import Hypothesis, beam_search_decode, greedy_decode
from mlx_ctc.functional import ctc_loss
from mlx_ctc.words import TextSpan, merge_segments, merge_words

__version__ = _install.VERSION
__all__ = [
    "Hypothesis",
    "TextSpan",
    "TokenSpan",
    "beam_search_decode",
    "ctc_loss",
    "ctc_posteriors",
    "forced_align",
    "greedy_decode",
    "merge_segments",
    "merge_tokens",
    "merge_words",
    "nn",
]
