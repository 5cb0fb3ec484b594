# What an import says where the installation is wrong, and the command that mends it.
#
# A folder stands for site-packages: with this package, without what is compiled, and
# with an MLX of one file.

import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

import mlx_ctc

SUFFIX = sysconfig.get_config_var("EXT_SUFFIX")
LINUX = sys.platform != "darwin"
CPU = "[cpu]" if LINUX else ""

linux_only = pytest.mark.skipif(not LINUX, reason="macOS has one backend, Metal")


class Site:
    """A folder for packages, without the packages that Python has."""

    def __init__(self, folder):
        self.folder = folder

    def write(self, path, text=""):
        path = self.folder / path
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path

    def distribution(self, name, version):
        self.write(
            f"{name.replace('-', '_')}-{version}.dist-info/METADATA",
            f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n",
        )

    def mlx(self, version, core=None, **backends):
        """MLX, and versions of the distributions mlx-..., with _ for -."""
        self.distribution("mlx", version)
        for name, of_backend in backends.items():
            self.distribution(f"mlx-{name.replace('_', '-')}", of_backend)
        self.write("mlx/core.py", core or f"__version__ = {version!r}")

    def mlx_ctc(self, *versions, suffix=SUFFIX, extension=b""):
        """This package with extensions for these releases of MLX."""
        package = self.folder / "mlx_ctc"
        package.mkdir()
        for name in ["__init__.py", "_install.py"]:
            shutil.copy(Path(mlx_ctc.__file__).parent / name, package)
        self.write(
            "mlx_ctc/_build.py",
            f"VERSION = '0.1.0'\nMLX_VERSIONS = {list(versions)}\n"
            "OLDEST_MLX = '0.30.3'\n",
        )
        for version in versions:
            path = self.write(f"mlx_ctc/lib/mlx-{version}/_ext{suffix}")
            path.write_bytes(extension)

    def says(self):
        """The error of `import mlx_ctc`."""
        code = f"import sys; sys.path.insert(0, {str(self.folder)!r}); import mlx_ctc"
        command = [sys.executable, "-I", "-S", "-c", code]
        result = subprocess.run(command, capture_output=True, text=True)
        said = result.stderr.splitlines()[-1]
        assert said.startswith("ImportError: "), result.stderr
        # mlx-ctc on PyPI is another project.
        assert "install mlx-ctc" not in said
        assert "--upgrade" not in said
        return said


@pytest.fixture
def site(tmp_path):
    return Site(tmp_path)


def test_without_mlx(site):
    site.mlx_ctc("0.31.2", "0.32.4")
    assert f'MLX is not installed. Install it: pip install "mlx{CPU}==0.32.4"' in (
        site.says()
    )


MISSING = "raise ImportError('libmlx.so: cannot open shared object file')"


@linux_only
def test_mlx_without_a_backend(site):
    site.mlx_ctc("0.31.2", "0.32.4")
    site.mlx("0.31.2", MISSING)
    said = site.says()
    assert "libmlx.so: cannot open" in said
    assert "without a backend" in said
    assert 'pip install "mlx[cpu]==0.31.2" (or cuda12 or cuda13 in place' in said


@linux_only
@pytest.mark.parametrize("extra", ["cpu", "cuda12", "cuda13"])
def test_backend_of_another_release(site, extra):
    name = extra.replace("cuda", "cuda_")
    site.mlx_ctc("0.31.2", "0.32.4")
    site.mlx("0.32.4", "raise ImportError('undefined symbol')", **{name: "0.31.2"})
    assert (
        f"mlx 0.32.4 and mlx-{name.replace('_', '-')} 0.31.2 are of different "
        "releases. Install both of one: pip install --force-reinstall "
        f'"mlx[{extra}]==0.32.4"'
    ) in site.says()


@linux_only
def test_two_backends(site):
    site.mlx_ctc("0.32.4")
    site.mlx("0.32.4", MISSING, cpu="0.32.4", cuda_13="0.32.4")
    assert (
        "mlx-cpu 0.32.4 and mlx-cuda-13 0.32.4 are both installed, and have files of "
        "the same names. Remove both and install one: pip uninstall --yes mlx-cpu "
        'mlx-cuda-13; pip install --force-reinstall "mlx[cuda13]==0.32.4"'
    ) in site.says()


NO_DRIVER = "raise ImportError('libcuda.so.1: cannot open shared object file')"


@linux_only
def test_cuda_without_a_driver(site):
    site.mlx_ctc("0.32.4")
    site.mlx("0.32.4", NO_DRIVER, cuda_12="0.32.4")
    assert (
        "mlx-cuda-12 0.32.4 needs NVIDIA's driver, which is not installed. Install it, "
        "or MLX for the CPU in its place: pip uninstall --yes mlx-cuda-12; "
        'pip install --force-reinstall "mlx[cpu]==0.32.4"'
    ) in site.says()


def test_mlx_that_is_not_complete(site):
    site.mlx_ctc("0.32.4")
    site.mlx("0.32.4", "raise ImportError('no file')", cpu="0.32.4")
    assert f'pip install --force-reinstall "mlx{CPU}==0.32.4"' in site.says()


@pytest.mark.parametrize("version", ["0.31.1", "0.33.0", "0.32.5.dev20260101+abc"])
def test_mlx_without_an_extension(site, version):
    site.mlx_ctc("0.30.3", "0.31.2", "0.32.4")
    site.mlx(version, cpu=version)
    said = site.says()
    assert f"built for MLX 0.30.3, 0.31.2 and 0.32.4, but MLX {version} is" in said
    assert f'pip install "mlx{CPU}==0.32.4", or build mlx-ctc for yours' in said
    assert f'pip install --force-reinstall --no-deps ".{CPU}"' in said


def test_mlx_that_no_build_supports(site):
    site.mlx_ctc("0.32.4")
    site.mlx("0.29.4", cpu="0.29.4")
    said = site.says()
    assert "built for MLX 0.32.4, but MLX 0.29.4 is installed" in said
    assert said.endswith(f'pip install "mlx{CPU}==0.32.4"')


def test_another_python(site):
    site.mlx_ctc("0.32.4", suffix=".cpython-39-somewhere.so")
    site.mlx("0.32.4", cpu="0.32.4")
    said = site.says()
    for word in ["another Python", "_ext.cpython-39-somewhere.so", f"_ext{SUFFIX}"]:
        assert word in said
    assert f"{sys.executable} -m pip install --force-reinstall" in said


def test_extension_that_cannot_be_loaded(site):
    site.mlx_ctc("0.32.4", extension=b"no library")
    site.mlx("0.32.4", cpu="0.32.4")
    said = site.says()
    assert "cannot load its extension for MLX 0.32.4" in said
    assert f'pip install --force-reinstall "mlx{CPU}==0.32.4"' in said


@linux_only
def test_package_of_a_newer_system(site):
    # One of Python's own modules, that asks for a C library which no system has.
    folder = Path(sysconfig.get_path("stdlib"), "lib-dynload")
    modules = (path.read_bytes() for path in sorted(folder.glob("*.so")))
    module = next(text for text in modules if b"\0GLIBC_2." in text)
    site.mlx_ctc("0.32.4", extension=module.replace(b"\0GLIBC_2.", b"\0GLIBC_9."))
    site.mlx("0.32.4", cpu="0.32.4")
    said = site.says()
    assert "version `GLIBC_9." in said
    assert (
        "built on a system with newer libraries. Build it on this one, in a copy of"
        in said
    )
    assert said.endswith('pip install --force-reinstall --no-deps ".[cpu]"')


def test_source_tree(site):
    site.mlx_ctc("0.32.4")
    (site.folder / "mlx_ctc" / "_build.py").unlink()
    site.mlx("0.32.4", cpu="0.32.4")
    said = site.says()
    assert f"source tree, {site.folder / 'mlx_ctc'}" in said
    assert f'pip install "{site.folder}{CPU}"' in said
