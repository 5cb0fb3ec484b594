"""Writes a stand-in for Apple's SDK, to compile and link for macOS arm64 elsewhere.

    python sdk.py SDK ZIG MLX LIBCXX LLVM_VERSION

SDK is the folder to write. ZIG is the folder lib of the package ziglang, which has
Darwin's headers and libSystem.tbd; MLX a folder with MLX's wheels for macOS; LIBCXX the
folder of LLVM's libc++ (include/c++/v1 and lib).

The libraries are text files that list what Apple's export. What Apple's libc++ exports
is not known here: the list is what LLVM's exports, and what MLX's binaries import.
"""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

FRAMEWORKS = ["Metal", "Foundation", "QuartzCore", "Accelerate"]


def text_library(path, install_name, symbols=()):
    """Writes a text-based library (.tbd), of which the linker reads the symbols."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [
        "--- !tapi-tbd",
        "tbd-version: 4",
        "targets: [ arm64-macos ]",
        f"install-name: '{install_name}'",
        "current-version: 1",
    ]
    if symbols:
        names = ", ".join(f"'{symbol}'" for symbol in sorted(symbols))
        lines += [
            "exports:",
            "  - targets: [ arm64-macos ]",
            f"    symbols: [ {names} ]",
        ]
    path.write_text("\n".join([*lines, "...", ""]))


def copy_headers(sdk, zig, libcxx):
    include = sdk / "usr/include"
    shutil.copytree(zig / "libc/include/any-darwin-any", include, dirs_exist_ok=True)
    cxx = include / "c++/v1"
    shutil.copytree(libcxx / "include/c++/v1", cxx, dirs_exist_ok=True)
    # The headers are those of the newest SDK, whose math.h leaves NAN and INFINITY to
    # the newest Clang's float.h. Older SDKs define them whatever the compiler.
    header = include / "math.h"
    text = header.read_text()
    has = "__has_feature(modules) && defined(__has_include) && __has_include(<float.h>)"
    has_not = (
        "!__has_feature(modules) || !defined(__has_include) || "
        "!__has_include(<float.h>)"
    )
    text = text.replace(f"defined(__has_feature) && {has}", "0")
    text = text.replace(
        f"!defined(__GNUC__) || !defined(__has_feature) || {has_not}", "1"
    )
    header.write_text(text)


def libcxx_symbols(mlx, libcxx, llvm):
    def symbols(*options):
        command = [f"llvm-nm-{llvm}", *options]
        return subprocess.run(
            command, check=True, capture_output=True, text=True
        ).stdout

    found = set()
    for binary in [*mlx.rglob("*.dylib"), *mlx.rglob("*.so")]:
        imported = symbols("-m", "--undefined-only", binary)
        found |= set(re.findall(r"external (\S+) \(from libc\+\+\)", imported))
    for name in ["libc++.so.1", "libc++abi.so.1"]:
        exported = symbols(
            "-D", "--defined-only", "--format=just-symbols", libcxx / "lib" / name
        )
        for symbol in exported.split():
            symbol = "_" + symbol.split("@")[0]
            found.add(symbol)
            if "atomic_wait" in symbol:  # of 64 bits on Darwin
                found.add(symbol.replace("EPVKvi", "EPVKvx"))
    return found


def main():
    sdk, zig, mlx, libcxx = map(Path, sys.argv[1:5])
    llvm = sys.argv[5]
    copy_headers(sdk, zig, libcxx)
    settings = {
        "CanonicalName": "macosx15.0",
        "DisplayName": "macOS 15.0",
        "Version": "15.0",
        "DefaultDeploymentTarget": "15.0",
        "MaximumDeploymentTarget": "99.0",
    }
    (sdk / "SDKSettings.json").write_text(json.dumps(settings))

    system = (zig / "libc/darwin/libSystem.tbd").read_text()
    system = re.sub(r",\s*arm64e\.x1-\w+", "", system).replace("arm64e-", "arm64-")
    (sdk / "usr/lib").mkdir(parents=True, exist_ok=True)
    (sdk / "usr/lib/libSystem.tbd").write_text(system)
    text_library(
        sdk / "usr/lib/libc++.tbd",
        "/usr/lib/libc++.1.dylib",
        libcxx_symbols(mlx, libcxx, llvm),
    )
    for name in FRAMEWORKS:
        folder = f"System/Library/Frameworks/{name}.framework"
        text_library(sdk / folder / f"{name}.tbd", f"/{folder}/Versions/A/{name}")


if __name__ == "__main__":
    main()
