# Which local arrays of the kernels a compiler built on LLVM, as Apple's is, cannot keep
# in registers. They would be in scratch memory, which on a GPU is device memory.

import re
import shutil
import subprocess

import mlx.core as mx
import pytest
from static_check import FLAGS, as_opencl
from translation_units import launches_with_texts

VERSIONS = ["clang-16", "clang-17", "clang-18", "clang-19"]
CLANG = next(filter(shutil.which, VERSIONS), None)
TO_LLVM = ["-w", "-O2", "-S", "-emit-llvm", "-o", "-", "-"]
# Arrays with an index that is known at run time only: `sums` of by_class.h, of which
# a sequence writes as many as it has frames in the segment.
ALLOWED = {"ctc_posteriors by class": 1}
# Segments of 16 frames, and of 8.
SIZES = {"S=40": (60, 3, 30, 40), "S=300": (310, 9, 30, 300)}


def skip_without_clang():
    if CLANG is None:
        pytest.skip(f"needs one of {VERSIONS}, to compile the kernels to LLVM's code")
    targets = subprocess.run([CLANG, "--print-targets"], capture_output=True, text=True)
    if "nvptx64" not in targets.stdout:
        pytest.skip(f"needs the target nvptx64, which {CLANG} lacks")


def arrays_in_memory(metal) -> list[str]:
    done = subprocess.run(
        [CLANG, *FLAGS, *TO_LLVM],
        input=as_opencl(metal),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return re.findall(r"= alloca .*", done.stdout)


@pytest.mark.parametrize("size", SIZES)
def test_local_arrays_are_in_registers(size, with_logits):
    skip_without_clang()
    for launch, metal in launches_with_texts(
        *SIZES[size], mx.float32, with_logits=with_logits
    ):
        by_class = ("BY_CLASS", True) in launch.template
        name = f"{launch.name} by class" if by_class else launch.name
        found = arrays_in_memory(metal)
        assert len(found) == ALLOWED.get(name, 0), (name, found)
