"""Python programs that run with a C++ library of the test's in LD_PRELOAD."""

import os
import subprocess
import sys

import pytest
from tools import compiler


def compile_library(source, tmp_path):
    """The path of the shared library; skips where Linux or a compiler is missing."""
    if sys.platform != "linux":
        pytest.skip("LD_PRELOAD is Linux's")
    text, library = tmp_path / "preload.cpp", tmp_path / "preload.so"
    text.write_text(source)
    subprocess.run([compiler(), "-shared", "-fPIC", "-o", library, text], check=True)
    return library


def run_with(library, program, *arguments, **environment):
    """Runs a Python program, which finds the library's path in sys.argv[1]."""
    return subprocess.run(
        [sys.executable, "-c", program, library, *arguments],
        env={**os.environ, "LD_PRELOAD": str(library), **environment},
        capture_output=True,
        text=True,
        timeout=120,
    )
