# The emulator, one for all tests. Compiled kernels stay in pytest's cache, if it has
# one.

import sys
from pathlib import Path

import pytest
from emulator import Emulator


@pytest.fixture(scope="session")
def emulator(request, tmp_path_factory) -> Emulator:
    if sys.platform != "linux":
        pytest.skip("The emulator runs on Linux")
    cache = getattr(request.config, "cache", None)
    folder = cache.mkdir("metal") if cache else tmp_path_factory.mktemp("metal")
    return Emulator(Path(folder))
