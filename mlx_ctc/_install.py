"""Imports the extension that was compiled for the installed release of MLX.

The extension uses MLX's C++ types, whose layout differs between releases. A package has
an extension for each release that it was built for, in lib/mlx-<release>. This module
is imported before all others. Its errors name a command that repairs the installation.
"""

import importlib
import re
import sys
import sysconfig
from pathlib import Path

import mlx_ctc

PACKAGE = Path(__file__).parent

# Only one of these may be installed: each brings a libmlx.
BACKENDS = {"mlx-cpu": "cpu", "mlx-cuda-12": "cuda12", "mlx-cuda-13": "cuda13"}


def installed(name: str) -> str | None:
    """The version of an installed distribution."""
    from importlib import metadata  # takes 20 ms, and only errors need it

    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def backends() -> dict[str, str]:
    """The installed distributions that bring libmlx on Linux, and their versions."""
    versions = {name: installed(name) for name in BACKENDS}
    return {name: version for name, version in versions.items() if version}


def mlx_extra() -> str:
    """The extra of mlx, and of mlx-ctc, for this machine: [cpu], [cuda13] or none."""
    if sys.platform == "darwin":
        return ""
    present = [BACKENDS[name] for name in backends()]
    return f"[{present[-1] if present else 'cpu'}]"


def pip_install(requirement: str, *options: str) -> str:
    return " ".join(["pip install", *options, f'"{requirement}"'])


try:
    from mlx_ctc import _build
except ImportError as error:
    raise ImportError(
        f"mlx_ctc is imported from a source tree, {PACKAGE}, in which nothing is "
        f"built. Install it: {pip_install(f'{PACKAGE.parent}{mlx_extra()}')}"
    ) from error

VERSION = _build.VERSION
SUPPORTED = _build.MLX_VERSIONS


def numbers(version: str) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", version)[:3]]


def build_here() -> str:
    command = pip_install(f".{mlx_extra()}", "--force-reinstall", "--no-deps")
    return f"in a copy of its source: {command}"


def install_mlx(version: str | None, *options: str, extra: str) -> str:
    """The command that installs this release of MLX, or the newest supported one."""
    if version not in SUPPORTED:
        version = SUPPORTED[-1]
    return pip_install(f"mlx{extra}=={version}", *options)


def what_is_wrong_with_mlx(error: ImportError) -> str:
    """Why mlx.core, or an extension for its version, cannot be loaded.

    The distributions of MLX share files, and pip removes them with either: they are
    installed again together, by --force-reinstall.
    """
    version = installed("mlx")
    has_no_driver = "libcuda.so" in str(error)
    extra = "[cpu]" if has_no_driver else mlx_extra()
    install = install_mlx(version, extra=extra)
    reinstall = install_mlx(version, "--force-reinstall", extra=extra)
    if version is None:
        cuda = " (or cuda12 or cuda13 in place of cpu)" if extra == "[cpu]" else ""
        return f"MLX is not installed. Install it: {install}{cuda}"
    if sys.platform != "darwin":
        present = backends()
        listed = " and ".join(f"{name} {present[name]}" for name in present)
        remove = f"pip uninstall --yes {' '.join(present)}"
        if not present:
            return (
                f"mlx {version} is installed without a backend, which has its library. "
                f"Install one: {install} (or cuda12 or cuda13 in place of cpu)"
            )
        if len(present) > 1:
            return (
                f"{listed} are both installed, and have files of the same names. "
                f"Remove both and install one: {remove}; {reinstall}"
            )
        if has_no_driver:
            return (
                f"{listed} needs NVIDIA's driver, which is not installed. Install it, "
                f"or MLX for the CPU in its place: {remove}; {reinstall}"
            )
        if version not in present.values():
            return (
                f"mlx {version} and {listed} are of different releases. Install both "
                f"of one: {reinstall}"
            )
    return (
        f"MLX {version} is installed, but its files are not complete or not that "
        f"release's. Install it again: {reinstall}"
    )


try:
    import mlx.core as mx
except ImportError as error:
    raise ImportError(
        f"mlx-ctc {VERSION} cannot import MLX ({error}). "
        f"{what_is_wrong_with_mlx(error)}"
    ) from error

INSTALLED: str = mx.__version__  # type: ignore[attr-defined]


def listing(versions: list[str]) -> str:
    return " and ".join(filter(None, [", ".join(versions[:-1]), versions[-1]]))


if INSTALLED not in SUPPORTED:
    message = (
        f"mlx-ctc {VERSION} was built for MLX {listing(SUPPORTED)}, but MLX "
        f"{INSTALLED} is installed. Install one that it was built for: "
        f"{install_mlx(None, extra=mlx_extra())}"
    )
    if numbers(INSTALLED) >= numbers(_build.OLDEST_MLX):
        message += f", or build mlx-ctc for yours, {build_here()}"
    raise ImportError(message)

FOLDER = Path(_build.__file__).parent / "lib" / f"mlx-{INSTALLED}"
SUFFIX = sysconfig.get_config_var("EXT_SUFFIX")

if not (FOLDER / f"_ext{SUFFIX}").exists():
    others = ", ".join(path.name for path in FOLDER.glob("_ext.*")) or "nothing"
    raise ImportError(
        f"mlx-ctc {VERSION} was installed for another Python: {FOLDER} has {others}, "
        f"and this Python needs _ext{SUFFIX}. Install mlx-ctc with this one, from a "
        f"wheel for it or in a copy of the source: {sys.executable} -m "
        + pip_install(f".{mlx_extra()}", "--force-reinstall")
    )

# Where `import mlx_ctc._ext` finds it.
mlx_ctc.__path__.append(str(FOLDER))

try:
    importlib.import_module("mlx_ctc._ext")
except ImportError as error:
    if "version `GLIBC" in str(error):  # of the C library, or of C++'s: GLIBCXX
        mend = "It was built on a system with newer libraries. Build it on this one, "
        mend += build_here()
    else:
        mend = what_is_wrong_with_mlx(error)
    raise ImportError(
        f"mlx-ctc {VERSION} cannot load its extension for MLX {INSTALLED} ({error}). "
        f"{mend}"
    ) from error
