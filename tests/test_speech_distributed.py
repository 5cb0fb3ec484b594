# The speech example's training on several processes: the curve of one.

import json
import os
import socket
import subprocess
import sys

import numpy as np
import pytest
from speech import FOLDER, write_digits

# isort: split
import main

pytest.importorskip("mlx._distributed_utils.launch", reason="MLX without mlx.launch")
# As the command mlx.launch does, by the Python that runs the tests.
LAUNCH = "from mlx._distributed_utils.launch import main; main()"


def two_free_ports():
    """The first of two neighbouring ports that nobody listens to."""
    for port in range(20000 + os.getpid() % 10000, 60000, 2):
        with socket.socket() as one, socket.socket() as other:
            try:
                one.bind(("127.0.0.1", port))
                other.bind(("127.0.0.1", port + 1))
            except OSError:
                continue
            return port
    raise OSError("no free ports")


def launch(command, cwd, ranks=2):
    """Run main.py on ``ranks`` processes of this machine, joined in a ring."""
    options = f"-n {ranks} --backend ring -p {two_free_ports()}".split()
    options += ["--env", "OPENBLAS_NUM_THREADS=1"]
    program = [sys.executable, str(FOLDER / "main.py"), *command]
    launcher = subprocess.Popen(
        [sys.executable, "-c", LAUNCH, *options, "--", *program],
        stdin=subprocess.PIPE,  # which the launcher reads
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=cwd,
    )
    try:
        printed = launcher.stdout.read()
        assert launcher.wait(timeout=60) == 0, printed
    finally:
        launcher.kill()
    return printed


def losses(out):
    lines = json.loads((out / "history.json").read_text())
    return np.array([loss for line in lines for loss in line["losses"]])


def arguments(digits, out, *more):
    line = f"--corpus fsdd --data {digits} --text digits --out {out} --cpu "
    line += "--channels 16 --blocks 2 --steps 12 --evaluate-every 6 --batch-size 8"
    return [*line.split(), *more]


def test_two_ranks_have_the_curve_of_one_and_resume_together(tmp_path):
    digits = write_digits(tmp_path / "digits")
    main.main(main.parse_arguments(arguments(digits, tmp_path / "one")))
    printed = launch(arguments(digits, tmp_path / "two"), tmp_path)
    assert printed.count("test of the best model") == 1  # said by one of them
    one, two = losses(tmp_path / "one"), losses(tmp_path / "two")
    assert len(two) == 12
    np.testing.assert_allclose(two, one, rtol=1e-4)
    assert one[-1] < one[0]
