# The package: what an import gives. test_install.py has its errors.

import inspect
import runpy
import subprocess
import sys
from importlib import metadata, resources
from pathlib import Path

import mlx.core as mx
import pytest
import stubs

import mlx_ctc
from mlx_ctc._ext import cuda_compile, shipped_folder


def test_signature_is_torchs_then_ours():
    parameters = inspect.signature(mlx_ctc.ctc_loss).parameters.values()
    ours = ["with_logits", "normalized", "batch_first", "stream"]
    assert [(p.name, p.default) for p in parameters if p.name not in ours] == [
        ("log_probs", inspect.Parameter.empty),
        ("targets", inspect.Parameter.empty),
        ("input_lengths", None),
        ("target_lengths", None),
        ("blank", 0),
        ("reduction", "mean"),
        ("zero_infinity", False),
    ]
    keyword_only = [(p.name, p.default) for p in parameters if p.kind is p.KEYWORD_ONLY]
    assert keyword_only == list(zip(ours, [False, True, False, None], strict=True))


def test_import_gives_the_function_and_the_module():
    code = "import mlx_ctc; mlx_ctc.ctc_loss, mlx_ctc.nn.CTCLoss"
    subprocess.run([sys.executable, "-c", code], check=True)


# Each takes as long to import as the package, or longer, and MLX needs neither.
@pytest.mark.parametrize("module", ["numpy", "importlib.metadata"])
def test_loss_of_ints_and_arrays_imports_no(module):
    code = f"""
import sys
import mlx.core as mx, mlx_ctc
scores = mx.zeros((4, 3, 5))
loss = mlx_ctc.ctc_loss(scores, mx.ones((3, 2), mx.int32), 4, [2, 1, 2])
mx.eval(mx.grad(lambda x: mlx_ctc.ctc_loss(x, mx.ones((3, 2), mx.int32), 4, 2))(scores))
assert {module!r} not in sys.modules
"""
    subprocess.run([sys.executable, "-P", "-c", code], check=True)


def test_version_is_the_distributions():
    assert mlx_ctc.__version__ == metadata.version("mlx-ctc")


def test_citation_is_of_this_version():
    citation = (Path(__file__).parent.parent / "CITATION.cff").read_text()
    assert f"\nversion: {mlx_ctc.__version__}\n" in citation


def test_extension_is_the_one_for_this_mlx():
    assert Path(mlx_ctc._ext.__file__).parent.name == f"mlx-{mx.__version__}"


def test_package_is_typed():
    assert resources.files(mlx_ctc).joinpath("py.typed").is_file()


def test_stub_describes_the_extension():
    pytest.importorskip("nanobind")
    assert stubs.stub() == stubs.STUB.read_text(), "run python tests/stubs.py"


def test_the_kernels_of_a_wheel_are_those_that_its_steps_ask_for():
    if not Path(shipped_folder() or "none").exists():
        pytest.skip("this build carries no compiled CUDA kernels")
    script = Path(__file__).parents[1] / "packaging" / "kernels.py"
    kernels = runpy.run_path(str(script))
    usual = sorted(kernels["usual"]().items())
    for architecture in kernels["ARCHITECTURES"]:
        _, done = cuda_compile(
            "no NVRTC", architecture, usual, shipped=shipped_folder(), driver=12040
        )
        assert done["shipped"] == len(usual)


def test_function_is_documented():
    parts = ["Args:", "Returns:", "Graves"]
    for word in [*parts, "with_logits", "normalized", "zero_infinity"]:
        assert word in mlx_ctc.ctc_loss.__doc__
