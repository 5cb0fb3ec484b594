# The figures in the README, docs/performance.md and docs/numerics.md are those of the
# results.

import json
import subprocess
import sys
from pathlib import Path

import pytest
from exact import allowed

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "benchmarks" / "results"


def test_pages_have_the_figures_of_the_results():
    command = [sys.executable, ROOT / "benchmarks" / "table.py", "--check"]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr


def test_every_figure_is_used():
    names = "README.md", "docs/performance.md", "docs/numerics.md"
    pages = [ROOT / name for name in names]
    text = "".join(page.read_text() for page in pages)
    figures = "summary cpu_table threads_table gpu_table exactness_table".split()
    figures += ["decoding_summary", "decoding_table", "host_table", "startup_table"]
    for name in figures:
        assert text.count(f"<!-- table.py {name} -->") == 1
    assert text.count("<!-- table.py end -->") == len(figures)


@pytest.mark.parametrize(
    "path", sorted(RESULTS.glob("exactness_*.json")), ids=lambda x: x.name
)
def test_measured_losses_are_exact(path):
    for record in json.loads(path.read_text())["records"]:
        error = record["ours"] * record["loss"]
        assert error <= allowed(record["loss"]), record
