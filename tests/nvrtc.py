"""NVIDIA's libraries that compile for any GPU and need none: NVRTC and nvFatbin."""

import os
import sys
from pathlib import Path

import pytest

from mlx_ctc._ext import cuda_compile

CUBIN, FAT_BINARY = b"\x7fELF", b"\x50\xed\x55\xba"  # how the codes begin

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


def needs_compression():
    """Skips the test where no library compresses what NVRTC compiles."""
    source = ("f", 'extern "C" __global__ void f() {}')
    [code], _ = cuda_compile(library(), 90, [source])
    if code.startswith(CUBIN):
        pytest.skip("needs nvFatbin: pip install nvidia-nvfatbin")
