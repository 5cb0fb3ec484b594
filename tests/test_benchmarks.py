# The figures in the README and in docs/performance.md are those of the results.

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent


def test_pages_have_the_figures_of_the_results():
    command = [sys.executable, ROOT / "benchmarks" / "table.py", "--check"]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr


def test_every_figure_is_used():
    pages = [ROOT / "README.md", ROOT / "docs" / "performance.md"]
    text = "".join(page.read_text() for page in pages)
    for name in "summary cpu_table gpu_table".split():
        assert text.count(f"<!-- table.py {name} -->") == 1
    assert text.count("<!-- table.py end -->") == 3
