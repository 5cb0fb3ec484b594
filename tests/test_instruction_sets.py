# The check that the build makes of the objects of each instruction set.

import subprocess
import sys
from pathlib import Path

import pytest
from tools import compiler, tool

SCRIPT = Path(__file__).parents[1] / "cmake/check_weak_symbols.cmake"

CLEAN = """
namespace {
template <typename T> [[gnu::noinline]] T twice(T x) { return x + x; }
}
int four_times(int x) { return twice(twice(x)); }
namespace kernels::avx { inline int one() { return 1; } }
auto one = &kernels::avx::one;
[[gnu::weak]] void declared();
void call() { if (declared) declared(); }
"""

PLANTED = {
    "std::max": (
        "#include <algorithm>\nconst int& (*max)(const int&, const int&) = std::max;",
        "int const& std::max<int>(int const&, int const&)",
    ),
    "another instruction set": (
        "namespace kernels::sse { inline int one() { return 1; } }\n"
        "auto one = &kernels::sse::one;",
        "kernels::sse::one()",
    ),
    "inline function": (
        "namespace planted { inline int one() { return 1; } }\n"
        "auto one = &planted::one;",
        "planted::one()",
    ),
    "inline variable": (
        "namespace planted { inline int count = 1; }\nint* count = &planted::count;",
        "planted::count",
    ),
}


@pytest.fixture
def compiled(tmp_path):
    def compile_(name, source):
        source_file, built = tmp_path / f"{name}.cpp", tmp_path / f"{name}.o"
        source_file.write_text(source)
        command = [compiler(), "-std=c++20", "-O1", "-c", source_file, "-o", built]
        subprocess.run(command, check=True)
        return built

    return compile_


def check(*objects):
    """What the script prints of errors, in one line."""
    listed = ";".join(map(str, objects))
    options = [f"-DNM={tool('nm')}", "-DISA=avx", f"-DOBJECTS={listed}"]
    command = [tool("cmake"), *options, "-P", SCRIPT]
    result = subprocess.run(command, capture_output=True, text=True)
    message = " ".join(result.stderr.split())
    assert (result.returncode == 0) == (message == ""), message
    return message


pytestmark = pytest.mark.skipif(
    sys.platform != "linux", reason="one instruction set alone, and other symbols"
)


def test_a_clean_object_passes(compiled):
    assert check(compiled("clean", CLEAN)) == ""


@pytest.mark.parametrize("name", PLANTED)
def test_a_weak_symbol_is_named_with_its_object(compiled, name):
    source, symbol = PLANTED[name]
    planted = compiled("planted", source)
    message = check(compiled("clean", CLEAN), planted)
    assert f"{planted} defines weak symbols that are not in" in message
    assert symbol in message


def test_a_missing_object_fails(tmp_path):
    assert "missing.o" in check(tmp_path / "missing.o")
