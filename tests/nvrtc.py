"""NVIDIA's run-time compiler, which compiles for any GPU and needs none."""

import os
import sys
from pathlib import Path

import pytest

LIBRARIES = [
    "nvidia/cu13/lib/libnvrtc.so.13",  # of the package nvidia-cuda-nvrtc
    "nvidia/cuda_nvrtc/lib/libnvrtc.so.12",  # nvidia-cuda-nvrtc-cu12
]


def library():
    """The path of MLX_CTC_NVRTC, or of one that pip has installed."""
    if named := os.environ.get("MLX_CTC_NVRTC"):
        return named
    found = [Path(folder, name) for name in LIBRARIES for folder in sys.path]
    found = [str(path) for path in found if path.exists()]
    if not found:
        pytest.skip("needs NVRTC: pip install nvidia-cuda-nvrtc")
    return found[0]
