"""Runs a program on several processes of this machine, joined in a ring."""

import os
import signal
import socket
import subprocess
import sys

import pytest

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


def launch(program, ranks=2):
    """Run a Python file with its arguments; return what the processes print."""
    pytest.importorskip(
        "mlx._distributed_utils.launch", reason="MLX without mlx.launch"
    )
    options = f"-n {ranks} --backend ring -p {two_free_ports()}".split()
    options += ["--env", "OPENBLAS_NUM_THREADS=1"]
    command = [sys.executable, *map(str, program)]
    launcher = subprocess.Popen(
        [sys.executable, "-c", LAUNCH, *options, "--", *command],
        stdin=subprocess.PIPE,  # which the launcher reads
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        printed, _ = launcher.communicate(timeout=300)
    except subprocess.TimeoutExpired:
        os.killpg(launcher.pid, signal.SIGKILL)
        raise
    assert launcher.returncode == 0, printed
    return printed
