# What the tests of examples/speech share: its modules, a corpus and a recogniser of
# tones.

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "examples" / "speech"))

PACKAGES = (
    "espeakng_loader jiwer matplotlib praatio pysubs2 soundfile soxr tqdm".split()
)


def pytest_pycollect_makemodule():
    for package in PACKAGES:
        reason = f"{package} comes with the extra 'examples'"
        pytest.importorskip(package, reason=reason)


@pytest.fixture(scope="session")
def digits(tmp_path_factory):
    """A folder in the layout of the Free Spoken Digit Dataset."""
    from tones import write_digits

    return write_digits(tmp_path_factory.mktemp("digits"))


@pytest.fixture(scope="session")
def corpus(digits):
    from corpora import digits_as_symbols, fsdd

    return digits_as_symbols(fsdd.load(digits))


@pytest.fixture(scope="session")
def recogniser():
    """One that has learned to hear tones."""
    from tones import trained_recogniser

    return trained_recogniser()


@pytest.fixture
def saved(recogniser, tmp_path, monkeypatch):
    """The recogniser's folder, where the tools look for the model saved last."""
    import paths

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    folder = paths.models_folder() / "tones"
    recogniser.save(folder)
    return folder
