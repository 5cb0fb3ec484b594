"""Checks what was built for macOS, without running it.

    python check.py PACKAGE PACKAGES LLVM_VERSION

PACKAGE is the built folder mlx_ctc; PACKAGES has a folder for each release of MLX, with
MLX's wheel for macOS and nanobind. Every undefined symbol must come from libmlx of that
release, from the core library, from libc++ or libSystem, or be one of Python's; rpath,
signature, and nanobind's ABI tag must be right.
"""

import re
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

TAG = re.compile(rb"(?:nanobind|v\d+)_[a-z0-9_]*abi[a-z0-9_]*")


def run(tool, *arguments):
    command = [f"llvm-{tool}-{sys.argv[3]}", *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def imported(binary):
    """The undefined symbols of each library, and of none: {library: symbols}."""
    found = defaultdict(list)
    for line in run("nm", "-m", "--undefined-only", binary).splitlines():
        match = re.search(
            r"external (\S+) \((?:from (\S+)|dynamically looked up)\)", line
        )
        found[match[2]].append(match[1])
    return found


def exported(binary):
    options = ["--defined-only", "--extern-only", "--format=just-symbols"]
    return set(run("nm", *options, binary).split())


def rpaths(binary):
    commands = run("otool", "-l", binary)
    return re.findall(r"LC_RPATH\s+cmdsize \d+\s+path (\S+)", commands)


def is_signed(binary):
    return "LC_CODE_SIGNATURE" in run("otool", "-l", binary)


def problems_of_core(core):
    if others := set(imported(core)) - {"libc++", "libSystem"}:
        yield f"needs {others}"
    if not is_signed(core):
        yield "has no signature"
    if "@rpath/" + core.name not in run("otool", "-D", core):
        yield "its install name is not relative to the rpath"


def problems_of_extension(extension, core, packages):
    [libmlx] = packages.glob("mlx/lib/libmlx.dylib")
    [mlx_core] = packages.glob("mlx/core.*.so")
    names = packages / "nanobind/cmake/darwin-ld-cpython.sym"
    python = {
        line.split()[1] for line in names.read_text().splitlines() if line[:2] == "-U"
    }
    allowed = {
        "libmlx": exported(libmlx),
        "libmlx_ctc_core": exported(core),
        None: {symbol for symbol in python if re.match("__?Py", symbol)},
    }
    found = imported(extension)
    for library, symbols in found.items():
        if library in allowed:
            for symbol in set(symbols) - allowed[library]:
                yield f"{library or 'no library'} has {symbol}"
        elif library not in {"libc++", "libSystem"}:
            yield f"needs {library}"
    # Type information of nanobind's exceptions is visible before nanobind 2.12.
    ours = {s for s in exported(extension) if not re.match("__ZT[ISV]N8nanobind", s)}
    if ours != {"_PyInit__ext"}:
        yield f"exports {ours}"
    if rpaths(extension) != ["@loader_path/..", "@loader_path/../../../mlx/lib"]:
        yield f"its rpath is {rpaths(extension)}"
    if not is_signed(extension):
        yield "has no signature"
    ours, theirs = (set(TAG.findall(f.read_bytes())) for f in (extension, mlx_core))
    if not ours or ours != theirs:
        yield f"nanobind's tag is {ours}, and in mlx.core {theirs}"
    counts = {str(library): len(symbols) for library, symbols in found.items()}
    print(f"{extension.parent.name}: symbols {counts}, tag {ours}")


def main():
    package, packages = map(Path, sys.argv[1:3])
    core = package / "lib/libmlx_ctc_core.dylib"
    problems = [f"{core.name} {problem}" for problem in problems_of_core(core)]
    extensions = sorted(package.glob("lib/mlx-*/_ext.*.so"))
    if not extensions:
        problems.append(f"no extension in {package}")
    for extension in extensions:
        release = extension.parent.name.removeprefix("mlx-")
        for problem in problems_of_extension(extension, core, packages / release):
            problems.append(f"{extension.parent.name}: {problem}")
    print("\n".join(problems) or f"{len(extensions)} extensions: nothing is missing")
    return bool(problems)


if __name__ == "__main__":
    sys.exit(main())
