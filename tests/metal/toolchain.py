# The host's C++ compiler, and the folder where its results are kept.

import functools
import hashlib
import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

SOURCES = Path(__file__).parent / "emulator"

# A kernel reports each access and each undefined operation to the emulator
# (sanitizer_callbacks.cpp). No optimisation: what the text says is what happens.
# No contraction: a product is rounded before it is added to something.
KERNEL_FLAGS = [
    "-std=c++20",
    "-g",
    "-O0",
    "-fPIC",
    "-fsanitize=thread",
    "-fsanitize=signed-integer-overflow,integer-divide-by-zero,shift,bounds",
    "-ffp-contract=off",
    "-ftrivial-auto-var-init=pattern",  # no variable is zero by chance
    "-Wno-attributes",
    f"-I{SOURCES / 'msl'}",
]
# Fortified jumps refuse to go from one stack to another.
EMULATOR_FLAGS = ["-std=c++20", "-O2", "-fPIC", "-U_FORTIFY_SOURCE", f"-I{SOURCES}"]


class Toolchain:
    def __init__(self, cache: Path):
        candidates = filter(None, [os.environ.get("CXX"), "g++", "clang++"])
        self._compiler = next(filter(shutil.which, candidates), None)
        if self._compiler is None:
            raise RuntimeError("Expected CXX, g++ or clang++ to be a C++ compiler")
        self._cache = cache
        files = sorted(path for path in SOURCES.rglob("*") if path.is_file())
        self._version = call([self._compiler, "--version"]) + "".join(
            path.read_text() for path in files
        )

    @functools.cached_property
    def emulator(self) -> Path:
        """The emulator itself, as a shared library."""
        sources = {path.name: path.read_text() for path in SOURCES.glob("*.cpp")}
        return self._shared_library(sources, EMULATOR_FLAGS, [])

    def kernel(self, program: str) -> Path:
        """A kernel's host program as a shared library that calls the emulator."""
        link = [str(self.emulator), "-lm"]
        try:
            return self._shared_library({"kernel.cpp": program}, KERNEL_FLAGS, link)
        except RuntimeError as error:
            raise RuntimeError(with_lines(str(error), program)) from None

    def _shared_library(self, sources: dict[str, str], flags, link) -> Path:
        key = "\0".join([self._version, *sources.values(), *flags, *link])
        library = self._cache / f"{hashlib.sha256(key.encode()).hexdigest()[:20]}.so"
        if not library.exists():
            with tempfile.TemporaryDirectory(dir=self._cache) as folder:
                objects = []
                for name, text in sources.items():
                    source = Path(folder, name)
                    source.write_text(text)
                    objects.append(f"{source}.o")
                    call([self._compiler, *flags, "-c", source, "-o", objects[-1]])
                # Linked without the flags, hence without the sanitizers' runtimes.
                unfinished = Path(folder, "library.so")
                link = [*objects, *link, "-o", unfinished]
                call([self._compiler, "-shared", *link])
                unfinished.rename(library)
        return library


def line_of_kernel(library: Path, offset: int) -> str | None:
    """The line of the kernel's text from which the machine code before offset is."""
    found = call(["addr2line", "-i", "-e", library, hex(offset - 1)])
    line = re.search(r"kernel\.metal:(\d+)", found)
    return line[1] if line else None


def with_lines(message: str, program: str) -> str:
    """The compiler's message with the kernel's lines that it names."""
    lines = program.partition('#line 1 "kernel.metal"\n')[2].splitlines()

    def add_line(named):
        return f"{named[0]}\n    {lines[int(named[1]) - 1].strip()}"

    return re.sub(r"^.*kernel\.metal:(\d+).*$", add_line, message, flags=re.MULTILINE)


def call(command: list) -> str:
    command = list(map(str, command))
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(command)}\n{done.stderr}")
    return done.stdout
