# Which releases of MLX a build is for, and what the built wheel requires.

import importlib.util
import sys
from pathlib import Path

import pytest

from mlx_ctc import _build

SCRIPT = Path(__file__).parents[1] / "packaging" / "mlx_releases.py"


@pytest.fixture
def releases(monkeypatch, tmp_path):
    """The module, in an environment without MLX and without MLX_CTC_MLX."""
    spec = importlib.util.spec_from_file_location("mlx_releases", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "folders", lambda: [tmp_path])
    monkeypatch.delenv("MLX_CTC_MLX", raising=False)
    return module


def install(tmp_path, version):
    folder = tmp_path / f"mlx-{version}.dist-info"
    folder.mkdir()
    text = f"Metadata-Version: 2.1\nName: mlx\nVersion: {version}\n"
    (folder / "METADATA").write_text(text)


def test_releases_are_listed_oldest_first(releases):
    assert sorted(releases.RELEASES, key=releases.numbers) == releases.RELEASES
    assert releases.OLDEST == _build.OLDEST_MLX


def test_the_newest_where_mlx_is_not_installed(releases):
    assert releases.chosen() == [releases.NEWEST]


@pytest.mark.parametrize("version", ["0.30.3", "0.31.2", "0.99.0"])
def test_the_installed_mlx_is_built_for_and_kept(releases, tmp_path, version):
    install(tmp_path, version)
    assert releases.chosen() == [version]
    provider = releases.Provider()
    options = {"dependencies": ["numpy"], "optional-dependencies": {"plot": ["x"]}}
    mlx, nanobind = provider.get_requires_for_dynamic_metadata(options)
    assert mlx == ("mlx" if sys.platform == "darwin" else "mlx[cpu]") + f"=={version}"
    known = releases.NANOBIND.get(version, releases.NANOBIND[releases.NEWEST])
    assert nanobind == f"nanobind=={known}"
    assert provider.dynamic_metadata(options, {}) == {
        "dependencies": [f"mlx=={version}", "numpy"],
        "optional-dependencies": {
            "cpu": [f"mlx[cpu]=={version}"],
            "cuda12": [
                f"mlx[cuda12]=={version}",
                "nvidia-nvfatbin-cu12>=12.8; sys_platform == 'linux'",
            ],
            "cuda13": [
                f"mlx[cuda13]=={version}",
                "nvidia-nvfatbin>=13; sys_platform == 'linux'",
            ],
            "plot": ["x"],
        },
    }


def test_variable_names_a_release(releases, tmp_path, monkeypatch):
    install(tmp_path, "0.32.1")
    monkeypatch.setenv("MLX_CTC_MLX", "0.31.2")
    assert releases.chosen() == ["0.31.2"]


def test_variable_names_several(releases, monkeypatch):
    monkeypatch.setenv("MLX_CTC_MLX", "0.32.4,0.31.2")
    assert releases.chosen() == ["0.31.2", "0.32.4"]
    assert releases.Provider().get_requires_for_dynamic_metadata({}) == []
    monkeypatch.setenv("MLX_CTC_MLX", "all")
    assert releases.chosen() == releases.RELEASES


def test_wheel_requires_what_it_was_built_for(releases):
    assert releases.specifier(["0.31.2"]) == "==0.31.2"
    assert releases.specifier(releases.RELEASES) == f">={releases.OLDEST}"
    *others, last = releases.RELEASES[2:]
    absent = ",".join(f"!={release}" for release in others)
    assert releases.specifier([releases.RELEASES[1], last]) == (
        f">={releases.RELEASES[1]},{absent}"
    )


def test_source_distribution_requires_any_supported_release(releases, monkeypatch):
    monkeypatch.setenv("MLX_CTC_MLX", "0.31.2")
    provider = releases.Provider()
    provider.build_state("sdist")
    options = {"dependencies": [], "optional-dependencies": {}}
    found = provider.dynamic_metadata(options, {})["dependencies"]
    assert found == [f"mlx>={releases.OLDEST}"]


@pytest.mark.parametrize("version", ["0.29.4", "0.32.5.dev20260101"])
def test_other_mlx_is_refused_with_what_to_do(releases, tmp_path, version):
    install(tmp_path, version)
    says = rf"MLX {version} is installed here.*MLX_CTC_MLX={releases.NEWEST}"
    with pytest.raises(SystemExit, match=says):
        releases.chosen()
