"""Connectionist Temporal Classification for MLX."""

from mlx_ctc import _install
from mlx_ctc import nn as nn
from mlx_ctc.functional import ctc_loss

__version__ = _install.VERSION
__all__ = ["ctc_loss", "nn"]
