"""Checks a wheel that was built for macOS, without running it.

    python check.py WHEEL PACKAGES LLVM_VERSION

PACKAGES has a folder for each release of MLX, with MLX's wheel for macOS and nanobind.
Every undefined symbol must come from libmlx of that release, from the core library,
from libc++ or libSystem, or be one of Python's; rpath, signature, the oldest macOS, and
nanobind's ABI tag must be right.
"""

import hashlib
import re
import struct
import subprocess
import sys
import tempfile
import zipfile
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


def oldest_macos(binary):
    return re.search(r"minos (\S+)", run("otool", "-l", binary))[1]


def code_directory(signature):
    """In a signature, what has the hashes of the binary's pages."""
    _, _, count = struct.unpack_from(">3I", signature)
    for i in range(count):
        _, offset = struct.unpack_from(">2I", signature, 12 + 8 * i)
        if signature[offset : offset + 4] == b"\xfa\xde\x0c\x02":
            return signature[offset:]
    return None


def is_signed(binary):
    """Whether the signature is there and its hashes are those of the binary's pages.

    macOS on Apple silicon loads nothing else.
    """
    found = re.search(
        r"cmd LC_CODE_SIGNATURE\s+cmdsize \d+\s+dataoff (\d+)\s+datasize (\d+)",
        run("otool", "-l", binary),
    )
    if not found:
        return False
    offset, size = map(int, found.groups())
    content = binary.read_bytes()
    directory = code_directory(content[offset : offset + size])
    if directory is None:
        return False
    first, _, _, pages, end = struct.unpack_from(">5I", directory, 16)
    hash_size, hash_type, _, page_bits = struct.unpack_from("4B", directory, 36)
    starts = range(0, end, 1 << page_bits)
    if (hash_size, hash_type, pages, end) != (32, 2, len(starts), offset):
        return False
    return all(
        hashlib.sha256(content[start : min(start + (1 << page_bits), end)]).digest()
        == directory[first + 32 * i : first + 32 * (i + 1)]
        for i, start in enumerate(starts)
    )


def problems_of_binary(binary, macos):
    if not is_signed(binary):
        yield "has no valid signature"
    if oldest_macos(binary) != macos:
        yield f"is for macOS {oldest_macos(binary)}, and the wheel for {macos}"


def problems_of_core(core):
    if others := set(imported(core)) - {"libc++", "libSystem"}:
        yield f"needs {others}"
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
    ours, theirs = (set(TAG.findall(f.read_bytes())) for f in (extension, mlx_core))
    if not ours or ours != theirs:
        yield f"nanobind's tag is {ours}, and in mlx.core {theirs}"
    counts = {str(library): len(symbols) for library, symbols in found.items()}
    print(f"{extension.parent.name}: symbols {counts}, tag {ours}")


def problems_of_wheel(wheel, folder, packages):
    macos = re.search(r"macosx_(\d+)_(\d+)_arm64\.whl", wheel.name)
    if macos is None:
        yield "its tag is not one of macOS arm64"
        return
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder)
    core = folder / "mlx_ctc/lib/libmlx_ctc_core.dylib"
    extensions = sorted(folder.glob("mlx_ctc/lib/mlx-*/_ext.*-darwin.so"))
    if {path.parent.name for path in extensions} != {
        f"mlx-{path.name}" for path in packages.iterdir()
    }:
        yield f"has extensions for {[path.parent.name for path in extensions]} only"
    for binary in [core, *extensions]:
        for problem in problems_of_binary(binary, ".".join(macos.groups())):
            yield f"{binary.parent.name}/{binary.name} {problem}"
    for problem in problems_of_core(core):
        yield f"{core.name} {problem}"
    for extension in extensions:
        release = extension.parent.name.removeprefix("mlx-")
        for problem in problems_of_extension(extension, core, packages / release):
            yield f"{extension.parent.name}: {problem}"


def main():
    wheel, packages = map(Path, sys.argv[1:3])
    with tempfile.TemporaryDirectory() as folder:
        problems = list(problems_of_wheel(wheel, Path(folder), packages))
    print("\n".join(problems) or f"{wheel.name}: nothing is missing")
    return bool(problems)


if __name__ == "__main__":
    sys.exit(main())
