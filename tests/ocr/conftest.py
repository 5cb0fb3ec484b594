# What the tests of examples/ocr share: a folder of images of digits, and a reader that
# has learned from it.

from importlib.metadata import PackageNotFoundError, distribution

import pytest

PACKAGES = "font-caladea font-hanken-grotesk font-intuitive jiwer matplotlib".split()


def pytest_pycollect_makemodule():
    for package in PACKAGES:
        try:
            distribution(package)
        except PackageNotFoundError:
            reason = f"{package} comes with the extra 'examples'"
            pytest.skip(reason, allow_module_level=True)


@pytest.fixture(scope="session")
def digits(tmp_path_factory):
    """A folder of images of short digit strings, each beside its text."""
    from ocr_lines import write_digits

    return write_digits(tmp_path_factory.mktemp("digits"))


@pytest.fixture(scope="session")
def trained(digits, tmp_path_factory):
    """What the command left and printed that learned to read these images."""
    from ocr_lines import run

    out = tmp_path_factory.mktemp("reader")
    return out, run("--images", digits, "--out", out, "--steps", 160)
