# The kernels' texts for CUDA and their compilation: csrc/gpu/cuda_text.cpp and
# csrc/cuda. NVRTC needs no GPU.

import ast
import os
import re
import subprocess
import sys
from collections import defaultdict

import mlx.core as mx
import pytest
from nvrtc import CUBIN, FAT_BINARY, library, needs_compression

from mlx_ctc._ext import cuda_architecture, cuda_compile, cuda_texts, ship_kernel
from mlx_ctc.check import DTYPES

ARCHITECTURE = 90  # H100, H200
STEP = ["loss", "gradient"]
PLANS = list(cuda_texts((1, 1, 2, 1), mx.float32))


def texts_of(shapes, plans, dtype=mx.float32, **options):
    """{kernel: {(function, text)} of all shapes}."""
    found = defaultdict(set)
    for shape in shapes:
        texts = cuda_texts(shape, dtype, **options)
        for plan in plans:
            for function, text in texts[plan]:
                found[function.rpartition("_")[0]].add((function, text))
    return found


def counts(texts):
    return {name: len(of_name) for name, of_name in texts.items()}


def compile_all(texts, **options):
    """The codes of what texts_of returns, compiled at the same time."""
    sources = sorted(source for several in texts.values() for source in several)
    return cuda_compile(library(), ARCHITECTURE, sources, **options)


# A text for each range of lengths: S up to 32, 64 and 128 in the scan. Of the
# gradient, which writes up to 4 rows at once, another up to 96.
def test_buckets_of_labels_need_few_compilations():
    shapes = [(4 * S, N, 32, S) for S in range(5, 121) for N in (1, 7, 8, 64)]
    found = counts(texts_of(shapes, STEP))
    assert found == {
        "ctc_normalisers": 1,
        "ctc_scan": 3,
        "ctc_refine": 1,
        "ctc_gradient": 4,
    }


def test_long_labels_need_few_compilations():
    shapes = [(2 * S, 8, 32, S) for S in range(1, 2000, 3)]
    found = counts(texts_of(shapes, STEP))
    assert found["ctc_scan"] == 9  # up to 32, 64, 128, 256, 320, 384, 448, 512, more
    assert found["ctc_gradient"] == 11


@pytest.mark.parametrize("plan", PLANS)
def test_other_sizes_and_options_need_no_compilation(plan):
    shapes = [
        (100, 16, 32, 20),
        (1, 1, 32, 1),
        (3000, 16, 32, 20),
        (100, 4000, 32, 20),
        (100, 16, 32, 7),
        (100, 16, 32, 0),
    ]
    texts = defaultdict(set)
    for blank in 0, 1, 31:
        for zero_infinity in False, True:
            options = {"blank": blank, "zero_infinity": zero_infinity}
            for name, found in texts_of(shapes, [plan], **options).items():
                texts[name] |= found
    # Of long sequences refine multiplies the factors that another kernel computes.
    assert counts(texts) == {name: 1 + (name == "ctc_refine") for name in texts}


def test_the_classes_matter_to_the_rows_only():
    shapes = [(100, 16, C, 20) for C in range(300, 900, 50)]
    found = counts(texts_of(shapes, STEP))
    assert set(found.values()) == {1}


SHAPES = [
    (128, 64, 32, 10),
    (128, 64, 32, 128),
    (800, 8, 32, 400),  # 8 frames in a segment
    (1200, 8, 5000, 600),  # rounds, and a threadgroup for a row
    (100, 2, 32, 7000),  # parts
]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_every_kernel_compiles(dtype, with_logits):
    shapes = SHAPES if dtype == mx.float32 else SHAPES[:1]
    texts = texts_of(shapes, PLANS, dtype, with_logits=with_logits)
    codes, done = compile_all(texts)
    assert done["error"] == ""
    assert done["compiled"] == len(codes) == sum(map(len, texts.values()))
    assert all(code.startswith((CUBIN, FAT_BINARY)) for code in codes)


@pytest.mark.parametrize("dtype", [mx.int32, mx.complex64])
def test_scores_of_another_type_are_refused(dtype):
    with pytest.raises(ValueError, match=r"scores of float16, .* another type"):
        cuda_texts(SHAPES[0], dtype)


def test_a_text_includes_nothing():
    for several in texts_of(SHAPES, STEP).values():
        assert not any("#include" in text for _, text in several)


def test_a_function_has_its_own_name():
    sources = set()
    for dtype in DTYPES:
        for several in texts_of(SHAPES, STEP, dtype).values():
            sources |= several
    functions = {function for function, _ in sources}
    assert len(functions) == len(sources)
    assert all(f"void {function}(" in text for function, text in sources)


@pytest.fixture(scope="module")
def step_texts():
    return texts_of(SHAPES[:1], STEP)


@pytest.fixture(scope="module")
def cubins(step_texts):
    codes, _ = compile_all(step_texts, nvfatbin="off")
    assert all(code.startswith(CUBIN) for code in codes)
    return codes


def test_code_is_compressed(step_texts, cubins):
    needs_compression()
    codes, done = compile_all(step_texts)
    assert done["compiled"] == len(cubins)
    assert all(code.startswith(FAT_BINARY) for code in codes)
    assert sum(map(len, codes)) < 0.4 * sum(map(len, cubins))


@pytest.mark.parametrize(
    "options",
    [{"driver": 12030}, {"nvfatbin": "missing.so"}, {"nvfatbin": "libm.so.6"}],
)
def test_code_that_cannot_be_compressed_is_as_without(step_texts, cubins, options):
    codes, done = compile_all(step_texts, **options)
    assert done["compiled"] == len(cubins)
    assert codes == cubins


def test_a_folder_has_both_kinds_of_code(tmp_path):
    needs_compression()
    texts = texts_of(SHAPES[:1], ["loss"])
    for options in {}, {"driver": 12030}:
        codes, done = compile_all(texts, folder=str(tmp_path), **options)
        assert (done["compiled"], done["loaded"]) == (3, 0)
        again, done = compile_all(texts, folder=str(tmp_path), **options)
        assert (done["compiled"], done["loaded"]) == (0, 3)
        assert again == codes


def test_a_later_process_loads_what_was_compiled(tmp_path):
    texts = texts_of(SHAPES[:1], ["loss"])
    codes, done = compile_all(texts, folder=str(tmp_path))
    assert (done["compiled"], done["loaded"]) == (3, 0)
    again, done = compile_all(texts, folder=str(tmp_path))
    assert (done["compiled"], done["loaded"]) == (0, 3)
    assert again == codes


def test_a_broken_file_is_compiled_again(tmp_path):
    texts = texts_of(SHAPES[:1], ["loss"])
    codes, _ = compile_all(texts, folder=str(tmp_path))
    files = sorted(tmp_path.iterdir())
    content = bytearray(files[0].read_bytes())
    content[-1000] ^= 1
    files[0].write_bytes(content)
    again, done = compile_all(texts, folder=str(tmp_path))
    assert (done["compiled"], done["loaded"]) == (1, 2)
    assert again == codes
    _, done = compile_all(texts, folder=str(tmp_path))
    assert (done["compiled"], done["loaded"]) == (0, 3)


def test_the_code_depends_on_the_device(tmp_path):
    source = [("f", 'extern "C" __global__ void f(int* x) { *x = 1; }')]
    of_device = {}
    for architecture in 80, 90:
        [code], done = cuda_compile(
            library(), architecture, source, folder=str(tmp_path)
        )
        assert (done["compiled"], done["loaded"]) == (1, 0)
        of_device[architecture] = code
    assert of_device[80] != of_device[90]


def test_a_device_that_nvrtc_does_not_know_gets_ptx():
    source = [("f", 'extern "C" __global__ void f(int* x) { *x = 1; }')]
    [code], done = cuda_compile(library(), 999, source)
    assert done["error"] == ""
    assert re.search(rb"\.target sm_\d+", code)


def test_an_error_has_the_messages_of_the_compiler():
    sources = [("good", 'extern "C" __global__ void good() {}'), ("bad", "no_type x;")]
    [good, bad], done = cuda_compile(library(), ARCHITECTURE, sources)
    assert good
    assert bad == b""
    assert done["failed"] == 1
    assert 'bad.cu(1): error: identifier "no_type" is undefined' in done["error"]


def test_without_nvrtc_nothing_is_compiled(tmp_path):
    source = [("f", 'extern "C" __global__ void f() {}')]
    missing = str(tmp_path / "libnvrtc.so")
    [code], done = cuda_compile(missing, ARCHITECTURE, source)
    assert code == b""
    assert done["failed"] == 1
    assert missing in done["error"]
    # A library that has not its functions, and depends on none that has.
    [code], done = cuda_compile("libm.so.6", ARCHITECTURE, source)
    assert code == b""
    assert "nvrtc" in done["error"]


# A step in a process of its own: its loss and gradient, and what was compiled.
STEP_IN_PROCESS = """
import sys
import mlx.core as mx
from mlx_ctc import ctc_loss
from mlx_ctc._ext import cuda_compilations

mx.random.seed(3)
for T, N, C, S, blank in (40, 3, 32, 10, 0), (90, 9, 32, 40, 31), (40, 3, 32, 10, 5):
    logits = mx.random.normal((T, N, C)).astype(getattr(mx, sys.argv[1]))
    targets = (blank + mx.random.randint(1, C, (N, S))) % C
    lengths = mx.full(N, T), mx.random.randint(0, S + 1, (N,))

    def loss(x):
        return ctc_loss(x, targets, *lengths, blank=blank, with_logits=True,
                        reduction="none").sum()

    value, gradient = mx.value_and_grad(loss)(logits)
    transposed = mx.contiguous(logits.swapaxes(0, 1)).swapaxes(0, 1)
    mx.eval(value, gradient)
    assert mx.array_equal(mx.grad(loss)(transposed), gradient)
    print(value.item(), hash(str(gradient.astype(mx.float32).tolist())))
done = cuda_compilations()
print({name: done[name] for name in ("shipped", "loaded", "compiled", "failed")})
"""


def step_in_process(dtype, **variables):
    environment = {**os.environ, "PYTHONHASHSEED": "0", **variables}
    command = [sys.executable, "-c", STEP_IN_PROCESS, dtype]
    output = subprocess.run(
        command, env=environment, check=True, stdout=subprocess.PIPE, text=True
    ).stdout.splitlines()
    return output[:-1], ast.literal_eval(output[-1])


def counted(**numbers):
    return {"shipped": 0, "loaded": 0, "compiled": 0, "failed": 0} | numbers


def ship_step(dtype, folder):
    """Puts the kernels of the step above into a folder, for the GPU that is here."""
    needs_compression()
    for shape in (40, 3, 32, 10), (90, 9, 32, 40):
        texts = cuda_texts(shape, getattr(mx, dtype))
        for function, text in texts["loss"] + texts["gradient"]:
            ship_kernel(library(), "", cuda_architecture(), function, text, folder)


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_a_step_is_the_same_however_its_kernels_were_compiled(dtype, tmp_path):
    if not mx.cuda.is_available():
        pytest.skip("needs a CUDA GPU")
    none = {"MLX_CTC_KERNELS": "off"}
    folder = none | {"MLX_CTC_CACHE": str(tmp_path / "kernels")}
    first, done = step_in_process(dtype, **folder)
    assert done == counted(compiled=6)
    later, done = step_in_process(dtype, **folder)
    assert done == counted(loaded=6)
    assert later == first
    off = none | {"MLX_CTC_CACHE": "off"}
    uncached, done = step_in_process(dtype, **off)
    assert done == counted(compiled=6)
    assert uncached == first
    larger, done = step_in_process(dtype, MLX_CTC_NVFATBIN="off", **off)
    assert done == counted(compiled=6)
    assert larger == first
    by_mlx, done = step_in_process(
        dtype, MLX_CTC_NVRTC=str(tmp_path / "none.so"), **none
    )
    assert done == counted(failed=6)
    assert by_mlx == first


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_step_is_the_same_with_shipped_kernels(dtype, tmp_path):
    if not mx.cuda.is_available():
        pytest.skip("needs a CUDA GPU")
    folder = str(tmp_path / "kernels")
    ship_step(dtype, folder)
    shipped, done = step_in_process(
        dtype, MLX_CTC_KERNELS=folder, MLX_CTC_NVRTC="none.so"
    )
    assert done == counted(shipped=6)
    compiled, done = step_in_process(dtype, MLX_CTC_KERNELS="off", MLX_CTC_CACHE="off")
    assert done == counted(compiled=6)
    assert shipped == compiled
