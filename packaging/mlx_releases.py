"""The MLX releases that mlx-ctc is built for, and which of them a build is for.

A provider of dynamic metadata for scikit-build-core: the packages that a build needs
and that the built wheel requires. Its options in pyproject.toml are the requirements
that do not depend on MLX.

Run as a script it prints the releases that a build here would be for.
"""

import os
import re
import site
import sys
import sysconfig
from importlib import metadata
from pathlib import Path

# The nanobind that each release of MLX was built with, oldest first. Another one may
# not share its types with mlx.core; cmake/check_nanobind_tag.cmake compares. No release
# in this table needs compiler flags of its own. (Those before 0.30.3 are not supported:
# they need -fabi-version=16 on Linux, and before 0.29 have no fast::cuda_kernel.)
NANOBIND = {
    "0.30.3": "2.10.2",
    "0.30.4": "2.10.2",
    "0.30.5": "2.10.2",
    "0.30.6": "2.10.2",
    "0.31.0": "2.10.2",
    "0.31.1": "2.10.2",
    "0.31.2": "2.12.0",
    "0.32.0": "2.13.0",
    "0.32.1": "2.13.0",
    "0.32.2": "2.15.0",
    "0.32.3": "3.1.0",
    "0.32.4": "3.1.0",
}
RELEASES = list(NANOBIND)
OLDEST, NEWEST = RELEASES[0], RELEASES[-1]

# MLX's extras on Linux, and what mlx-ctc uses besides: nvFatbin compresses kernels that
# are compiled on the user's machine (csrc/cuda/fatbin.h).
BACKENDS = {
    "cpu": [],
    "cuda12": ["nvidia-nvfatbin-cu12>=12.8; sys_platform == 'linux'"],
    "cuda13": ["nvidia-nvfatbin>=13; sys_platform == 'linux'"],
}

# Where another kind of MLX is installed, the build still needs the headers of this one.
MLX_TO_BUILD_WITH = "mlx" if sys.platform == "darwin" else "mlx[cpu]"


def numbers(release):
    """The release as a tuple, for comparisons."""
    return tuple(map(int, re.findall(r"\d+", release)[:3]))


def folders():
    """Where this environment's packages are, though pip hides them from a build."""
    yield sysconfig.get_path("purelib")
    yield sysconfig.get_path("platlib")
    if sys.prefix == sys.base_prefix:
        yield site.getusersitepackages()
    else:
        config = Path(sys.prefix, "pyvenv.cfg")
        if config.exists() and re.search(
            r"(?m)^include-system-site-packages *= *true", config.read_text()
        ):
            yield sysconfig.get_path("purelib", vars={"base": sys.base_prefix})


def installed():
    """The release of MLX in this environment, or None."""
    found = metadata.distributions(name="mlx", path=list(folders()))
    return next((distribution.version for distribution in found), None)


def chosen():
    """The releases to build for.

    Those that the environment variable MLX_CTC_MLX names: one, several with commas
    between, or "all". Without it the release that is installed, so that pip does not
    replace it, and the newest where there is none.
    """
    named = os.environ.get("MLX_CTC_MLX")
    if named == "all":
        return RELEASES
    if named:
        releases = sorted(set(named.split(",")), key=numbers)
        source = f"MLX_CTC_MLX is {named}"
    else:
        releases = [installed() or NEWEST]
        source = f"MLX {releases[0]} is installed here"
    for release in releases:
        if not re.fullmatch(r"\d+\.\d+\.\d+", release):
            raise SystemExit(
                f"{source}, but mlx-ctc is built for releases of MLX alone: {OLDEST} "
                f"to {NEWEST}. Name one that pip shall install in its place, such as "
                f"MLX_CTC_MLX={NEWEST}"
            )
        if numbers(release) < numbers(OLDEST):
            raise SystemExit(
                f"{source}, but mlx-ctc needs MLX {OLDEST} or later. Upgrade MLX first "
                f'(pip install --upgrade "{MLX_TO_BUILD_WITH}"), or name the release '
                f"that pip shall install in its place, such as MLX_CTC_MLX={NEWEST}"
            )
    return releases


def nanobind(release):
    """The nanobind to build with; for an MLX newer than the table, the newest."""
    return NANOBIND.get(release, NANOBIND[NEWEST])


def specifier(releases):
    """The versions of MLX that a wheel for these releases requires."""
    if len(releases) == 1:
        return f"=={releases[0]}"
    absent = [
        f"!={release}"
        for release in RELEASES
        if numbers(release) > numbers(releases[0]) and release not in releases
    ]
    return ",".join([f">={releases[0]}", *absent])


class Provider:
    """See "dynamic-metadata" in scikit-build-core's documentation."""

    state = "wheel"

    def build_state(self, state):
        self.state = state

    def get_requires_for_dynamic_metadata(self, settings):
        releases = chosen()
        # A wheel for several releases is built with the packages that
        # packaging/build_wheel.py has fetched.
        if len(releases) > 1:
            return []
        [release] = releases
        return [f"{MLX_TO_BUILD_WITH}=={release}", f"nanobind=={nanobind(release)}"]

    def dynamic_wheel(self, settings):
        return {"dependencies": True, "optional-dependencies": True}

    def dynamic_metadata(self, settings, project):
        versions = specifier(RELEASES if self.state == "sdist" else chosen())
        # On Linux mlx alone is MLX's Python half: the extra brings its library, and
        # only one of them may be installed.
        backends = {
            extra: [f"mlx[{extra}]{versions}", *libraries]
            for extra, libraries in BACKENDS.items()
        }
        return {
            "dependencies": [f"mlx{versions}", *settings["dependencies"]],
            "optional-dependencies": {**backends, **settings["optional-dependencies"]},
        }


if __name__ == "__main__":
    print(",".join(chosen()))
