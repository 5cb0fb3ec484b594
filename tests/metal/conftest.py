# The emulator, one for all tests. Compiled kernels stay in pytest's cache.

import sys
from pathlib import Path

import pytest
from emulator import Emulator


def pytest_ignore_collect():
    return True if sys.platform != "linux" else None


@pytest.fixture(scope="session")
def emulator(request) -> Emulator:
    return Emulator(Path(request.config.cache.mkdir("metal")))
