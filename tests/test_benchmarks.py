# The README's tables are those of the committed results.

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "benchmarks" / "results"


@pytest.mark.parametrize("reports", ["cpu.json cpu_2_threads.json", "h200.json"])
def test_readme_has_the_results(reports):
    command = [sys.executable, ROOT / "benchmarks" / "table.py", *reports.split()]
    printed = subprocess.run(
        command, cwd=RESULTS, capture_output=True, text=True, check=True
    ).stdout
    assert printed.strip() in (ROOT / "README.md").read_text()
