"""Builds a wheel for this machine's platform and Python that runs with several MLX.

    python packaging/build_wheel.py --mlx all --out dist
    python packaging/build_wheel.py --mlx 0.31.2,0.32.4
    python packaging/build_wheel.py --mlx all --kernels build/kernels
    python packaging/build_wheel.py --mlx all --fetch FOLDER

Fetches the headers and libraries of each release as wheels, and the nanobind that it
was built with (mlx_releases.py), into build/mlx. What does not include MLX is compiled
once.
"""

import argparse
import os
import platform
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path

import mlx_releases

SOURCE = Path(__file__).resolve().parents[1]
PIP = [sys.executable, "-m", "pip", "--disable-pip-version-check"]


# The oldest systems that MLX's wheels for Linux run on. A build only links to them, and
# cibuildwheel's images may be older: without this, pip would refuse the wheels there.
MLX_LINUX = "manylinux_2_35"


def fetch(release, folder):
    """Puts MLX and its nanobind into the folder, if they are not there."""
    if folder.exists():
        return
    library = "mlx-metal" if sys.platform == "darwin" else "mlx-cpu"
    packages = [
        f"mlx=={release}",
        f"{library}=={release}",
        f"nanobind=={mlx_releases.nanobind(release)}",
    ]
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
        target = Path(scratch, "packages")
        options = ["--quiet", "--no-deps", "--only-binary=:all:", "--target", target]
        if sys.platform == "linux":
            options += ["--platform", f"{MLX_LINUX}_{platform.machine()}"]
        subprocess.run([*PIP, "install", *options, *packages], check=True)
        target.rename(folder)


def build(releases, folder, out, kernels=None):
    """Builds the wheel with the releases' packages in the folder; returns its path.

    The wheel carries what is in the folder of kernels.
    """
    environment = {
        **os.environ,
        "MLX_CTC_MLX": ",".join(releases),
        "MLX_CTC_RELEASES_DIR": str(folder),
    }
    # Not in build/: what CMake remembers of pip's environment for the build would name
    # programs that are gone when it is run again.
    with tempfile.TemporaryDirectory() as scratch:
        wheels = Path(scratch, "wheels")
        options = ["--no-deps", "--wheel-dir", wheels]
        options.append(f"--config-settings=build-dir={scratch}/build")
        # A single release is built in the same layout as several.
        options.append(
            f"--config-settings=cmake.define.MLX_CTC_RELEASES={';'.join(releases)}"
        )
        if kernels:
            options.append(
                f"--config-settings=cmake.define.MLX_CTC_KERNELS={kernels.resolve()}"
            )
        command = [*PIP, "wheel", *options, SOURCE]
        subprocess.run(command, check=True, env=environment)
        [wheel] = wheels.iterdir()
        out.mkdir(parents=True, exist_ok=True)
        return Path(shutil.copy(wheel, out))


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--mlx",
        default="all",
        help="releases with commas between; default: all that are supported",
    )
    parser.add_argument(
        "--out", type=Path, default="dist", help="folder of the wheel; default: dist"
    )
    parser.add_argument(
        "--kernels",
        type=Path,
        metavar="FOLDER",
        help="compiled CUDA kernels that the wheel carries: packaging/kernels.py",
    )
    parser.add_argument(
        "--fetch",
        type=Path,
        metavar="FOLDER",
        help="fetch the releases' packages into FOLDER and build nothing; a build with "
        "MLX_CTC_RELEASES_DIR=FOLDER and MLX_CTC_MLX in the environment uses them",
    )
    arguments = parser.parse_args()
    os.environ["MLX_CTC_MLX"] = arguments.mlx
    releases = mlx_releases.chosen()

    python = f"cp{sys.version_info[0]}{sys.version_info[1]}"
    cache = SOURCE / "build" / "mlx" / f"{python}-{sysconfig.get_platform()}"
    folder = arguments.fetch or cache
    for release in releases:
        fetch(release, folder / release)
    if arguments.fetch:
        return
    wheel = build(releases, folder, arguments.out, arguments.kernels)
    size = wheel.stat().st_size
    print(f"{wheel}: {size / 1e6:.2f} MB, for MLX {', '.join(releases)}")


if __name__ == "__main__":
    main()
