# Kernels that are compiled when a wheel is built: csrc/cuda/shipped.cpp and
# packaging/kernels.py. NVRTC needs no GPU.

import os
import runpy
from pathlib import Path

import mlx.core as mx
import pytest
from nvrtc import library, needs_compression

from mlx_ctc._ext import cuda_compile, cuda_texts, ship_kernel

ROOT = Path(__file__).resolve().parents[1]
MISSING = "/missing/libnvrtc.so"  # nothing can be compiled
SHAPE = (60, 8, 32, 20)


def texts_of(shape, dtype=mx.float32, ops=("loss", "gradient"), **options):
    """{function: text}"""
    of_op = cuda_texts(shape, dtype, **options)
    return dict(source for op in ops for source in of_op[op])


def ship(texts, architecture, folder):
    for function, text in texts.items():
        assert ship_kernel(library(), "", architecture, function, text, str(folder)) > 0


def found(texts, architecture, folder, nvrtc=MISSING, **options):
    """The codes by function, and how many were shipped and were compiled."""
    sources = sorted(texts.items())
    codes, done = cuda_compile(
        nvrtc, architecture, sources, shipped=str(folder), **options
    )
    functions = [function for function, _ in sources]
    return dict(zip(functions, codes, strict=True)), done["shipped"], done["compiled"]


def codes_of(texts, architecture, folder, **options):
    """The codes, all of which are shipped."""
    codes, shipped, _ = found(texts, architecture, folder, **options)
    assert shipped == len(texts)
    return codes


def is_found(texts, architecture, folder, **options):
    _, shipped, _ = found(texts, architecture, folder, **options)
    assert shipped in (0, len(texts))
    return shipped > 0


@pytest.fixture(scope="module")
def texts():
    return texts_of(SHAPE)


@pytest.fixture(scope="module")
def folder(texts, tmp_path_factory):
    needs_compression()
    folder = tmp_path_factory.mktemp("package") / "kernels"
    ship(texts, 80, folder)
    ship(texts, 90, folder)
    return folder


def test_shipped_kernels_are_what_would_be_compiled(texts, folder):
    for architecture in 80, 90:
        codes = codes_of(texts, architecture, folder)
        compiled, shipped, done = found(texts, architecture, "", library())
        assert (shipped, done) == (0, len(texts))
        assert codes == compiled


def test_a_device_runs_code_for_older_ones_of_its_major_version(texts, folder):
    codes = codes_of(texts, 80, folder)
    assert codes_of(texts, 86, folder) == codes
    assert codes_of(texts, 89, folder) == codes
    for architecture in 75, 100, 120:
        assert not is_found(texts, architecture, folder)


def test_the_newest_code_is_taken(texts, folder, tmp_path):
    [(function, text), *_] = sorted(texts.items())
    one = {function: text}
    for architecture in 80, 86:
        ship(one, architecture, tmp_path)
    of = {a: codes_of(one, a, tmp_path)[function] for a in (80, 86, 87, 89)}
    assert of[80] == codes_of(texts, 80, folder)[function] != of[86]
    assert of[86] == of[87] == of[89]


def test_an_older_driver_gets_no_code_that_it_may_not_load(texts, folder):
    assert is_found(texts, 90, folder, driver=13000)
    assert is_found(texts, 90, folder, driver=14020)
    assert not is_found(texts, 90, folder, driver=12090)  # NVRTC's CUDA is 13
    assert not is_found(texts, 90, folder, driver=12030)


def test_another_text_is_compiled(folder):
    others = texts_of((100, 8, 32, 50), mx.float16)
    _, shipped, compiled = found(others, 90, folder, library())
    assert (shipped, compiled) == (0, len(others))


@pytest.mark.parametrize("change", ["flip", "cut", "empty", "folder"])
def test_a_broken_file_is_compiled_again(texts, folder, tmp_path, change):
    broken = tmp_path / "kernels"
    ship(texts, 90, broken)
    file = sorted(broken.iterdir())[0]
    content = bytearray(file.read_bytes())
    if change == "flip":
        content[len(content) // 2] ^= 1
    elif change == "cut":
        del content[-1]
    elif change == "empty":
        content.clear()
    file.unlink()
    if change == "folder":
        file.mkdir()
    else:
        file.write_bytes(content)
    codes, shipped, compiled = found(texts, 90, broken, library())
    assert (shipped, compiled) == (len(texts) - 1, 1)
    assert codes == codes_of(texts, 90, folder)


def test_files_of_another_owner_are_used(texts, folder, tmp_path):
    """As where a package is installed for all users."""
    for file in folder.iterdir():
        copy = tmp_path / file.name
        copy.write_bytes(file.read_bytes())
        copy.chmod(0o664)
        if os.geteuid() == 0:
            os.chown(copy, 12345, 12345)
    assert is_found(texts, 90, tmp_path)


def test_what_cannot_be_compressed_is_not_shipped(texts, tmp_path):
    [(function, text), *_] = texts.items()
    with pytest.raises(RuntimeError, match=f"{function}: expected compressed code"):
        ship_kernel(library(), "off", 90, function, text, str(tmp_path))
    assert list(tmp_path.iterdir()) == []


@pytest.fixture(scope="module")
def usual():
    return runpy.run_path(str(ROOT / "packaging" / "kernels.py"))["usual"]()


def test_a_wheel_has_the_kernels_of_a_training_run(usual):
    startup = runpy.run_path(str(ROOT / "benchmarks" / "startup.py"))
    lengths = [int(S) for S in startup["LENGTHS"].split(",")]
    batches = [(128, S) for S in lengths] + list(startup["epoch"](128))
    assert len(batches) == 65
    for N, S in batches:
        assert texts_of((max(128, 2 * S), N, 32, S)).items() <= usual.items()


@pytest.mark.parametrize("C", [3, 29, 50, 80, 129, 500, 1025, 5000, 32000])
@pytest.mark.parametrize("S", [1, 33, 100, 128])
def test_a_wheel_has_the_kernels_of_usual_models(C, S, usual):
    for T in 3 * S, 3000:
        for options in {"with_logits": True}, {"with_logits": False}:
            assert texts_of((T, 16, C, S), **options).items() <= usual.items()
        assert texts_of((T, 16, C, S), mx.bfloat16).items() <= usual.items()


def test_a_wheel_has_few_kernels(usual):
    assert len(usual) < 140  # each has 75 kB for all architectures
