# The emulator, one for all tests. Compiled kernels stay in pytest's cache.

import sys
from pathlib import Path

import pytest
from emulator import Emulator


@pytest.fixture(scope="session")
def emulator(request) -> Emulator:
    if sys.platform != "linux":
        pytest.skip("The emulator runs on Linux")
    return Emulator(Path(request.config.cache.mkdir("metal")))
