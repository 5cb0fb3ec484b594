# The package: what an import gives, and what it says when MLX is another.

import inspect
import subprocess
import sys
from importlib import metadata, resources

import mlx.core as mx
import pytest
import stubs

import mlx_ctc


def test_signature_is_torchs_then_ours():
    assert str(inspect.signature(mlx_ctc.ctc_loss)).split(" ->")[0].count("*,") == 1
    parameters = inspect.signature(mlx_ctc.ctc_loss).parameters
    assert list(parameters) == [
        "log_probs",
        "targets",
        "input_lengths",
        "target_lengths",
        "blank",
        "reduction",
        "zero_infinity",
        "with_logits",
        "stream",
    ]
    assert [p.default for p in list(parameters.values())[4:]] == [
        0,
        "mean",
        False,
        False,
        None,
    ]
    keyword_only = [name for name, p in parameters.items() if p.kind is p.KEYWORD_ONLY]
    assert keyword_only == ["with_logits", "stream"]


def test_import_gives_the_function_and_the_module():
    code = "import mlx_ctc; mlx_ctc.ctc_loss, mlx_ctc.nn.CTCLoss"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_version_is_the_distributions():
    assert mlx_ctc.__version__ == metadata.version("mlx-ctc")


def test_package_is_typed():
    assert resources.files(mlx_ctc).joinpath("py.typed").is_file()


def test_stub_describes_the_extension():
    pytest.importorskip("nanobind")
    assert stubs.stub() == stubs.STUB.read_text(), "run python tests/stubs.py"


def test_function_is_documented():
    for word in ["Args:", "Returns:", "Graves", "with_logits", "zero_infinity"]:
        assert word in mlx_ctc.ctc_loss.__doc__


def test_another_mlx_is_refused_with_the_mending_command():
    code = "import mlx.core as mx; mx.__version__ = '0.1.2'; import mlx_ctc"
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True
    )
    assert result.returncode != 0
    said = result.stderr.splitlines()[-1]
    assert said.startswith("ImportError: ")
    for word in ["0.1.2", mx.__version__, "pip install"]:
        assert word in result.stderr
