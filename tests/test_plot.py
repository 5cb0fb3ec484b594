# What is drawn, where, and what is said without Matplotlib.

import subprocess
import sys

import mlx.core as mx
import numpy as np
import pytest

from mlx_ctc import TokenSpan, ctc_posteriors

matplotlib = pytest.importorskip("matplotlib")
matplotlib.use("Agg")

import matplotlib.pyplot as plt  # noqa: E402

from mlx_ctc.plot import plot_alignment, plot_posteriors  # noqa: E402

SPANS = [TokenSpan(1, 2, 5, 0.9), TokenSpan(2, 6, 10, 0.8)]


@pytest.fixture
def ax():
    figure, ax = plt.subplots()
    yield ax
    plt.close(figure)


def names(ax):
    return [text.get_text() for text in ax.texts]


def test_posteriors_have_a_curve_for_the_blank_and_for_each_label(ax):
    gamma = ctc_posteriors(mx.zeros((8, 5)), [1, 2, 1], 8, 3, with_logits=True)
    assert plot_posteriors(gamma, ["x", "y", "x"], ax=ax) is ax
    np.testing.assert_array_equal([line.get_ydata() for line in ax.lines], gamma.T)
    np.testing.assert_allclose(ax.lines[0].get_xdata(), np.arange(8) + 0.5)
    assert names(ax) == ["x", "y", "x"]
    assert ax.get_xlim() == (0, 8)


def test_posteriors_over_seconds(ax):
    plot_posteriors(np.array([[0.2, 0.8], [0.9, 0.1]]), ["x"], duration=3.0, ax=ax)
    np.testing.assert_allclose(ax.lines[1].get_xdata(), [0.75, 2.25])
    assert ax.texts[0].xy == (0.75, 0.8)


@pytest.mark.parametrize("signal", [np.sin(np.arange(1000)), np.ones((50, 40))])
def test_spans_lie_over_the_signal(ax, signal):
    assert plot_alignment(SPANS, "ab", signal, 20, duration=4.0, ax=ax) is ax
    regions = [(box.get_x(), box.get_width()) for box in ax.patches]
    np.testing.assert_allclose(regions, [(0.4, 0.6), (1.2, 0.8)])
    assert names(ax) == ["a", "b"]
    assert ax.get_xlim() == (0, 4)
    assert len(ax.lines) + len(ax.images) == 1


def test_current_axes_are_the_default(ax):
    plt.sca(ax)
    assert plot_alignment(SPANS, "ab", mx.zeros((100,)), 20) is ax
    assert ax.get_xlim() == (0, 20)


def test_names_are_as_many_as_labels(ax):
    with pytest.raises(ValueError, match=r"\[plot_posteriors\] Expected 1 .* got 2"):
        plot_posteriors(np.zeros((3, 2)), "ab", ax=ax)
    with pytest.raises(ValueError, match=r"\[plot_alignment\] Expected 2 .* got 1"):
        plot_alignment(SPANS, "a", np.zeros(5), 10, ax=ax)


def test_matplotlib_is_loaded_for_pictures_alone():
    script = """
import sys, mlx_ctc
assert "matplotlib" not in sys.modules
sys.modules["matplotlib"] = None
import mlx_ctc.plot
"""
    result = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False
    )
    assert 'pip install "mlx-ctc[plot]"' in result.stderr
