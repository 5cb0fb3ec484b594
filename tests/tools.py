"""Programs that tests call, and that a machine may not have."""

import os
import shutil
import sys

import pytest


def tool(*names):
    """The first of these that is beside Python or on the path."""
    path = os.pathsep.join([os.path.dirname(sys.executable), os.environ["PATH"]])
    found = [shutil.which(name, path=path) for name in names]
    if not any(found):
        pytest.skip(f"needs {' or '.join(names)}")
    return next(filter(None, found))


def compiler():
    return tool(os.environ.get("CXX", "c++"), "g++", "clang++")
