# The speech example's training on several processes: the curve of one.

import os
import shutil
import signal
import socket
import subprocess
import sys

import checkpoint
import main
import numpy as np
import pytest
from runs import arguments, losses

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


def launch(command, ranks=2):
    """Run main.py on ``ranks`` processes of this machine, joined in a ring."""
    options = f"-n {ranks} --backend ring -p {two_free_ports()}".split()
    options += ["--env", "OPENBLAS_NUM_THREADS=1"]
    program = [sys.executable, main.__file__, *command]
    launcher = subprocess.Popen(
        [sys.executable, "-c", LAUNCH, *options, "--", *program],
        stdin=subprocess.PIPE,  # which the launcher reads
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        printed, _ = launcher.communicate(timeout=120)
    except subprocess.TimeoutExpired:
        os.killpg(launcher.pid, signal.SIGKILL)
        raise
    assert launcher.returncode == 0, printed
    return printed


def command_line(digits, out, *more):
    return arguments(digits, out, "--batch-size", "8", *more, steps=12, every=6)


@pytest.fixture(scope="module")
def one(digits, tmp_path_factory):
    """What one process leaves, and its checkpoint after the sixth step."""
    out = tmp_path_factory.mktemp("one")
    save, checkpoints = checkpoint.save, []

    def save_and_read(path, *state):
        save(path, *state)
        checkpoints.append(path.read_bytes())

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(checkpoint, "save", save_and_read)
        main.main(main.parse_arguments(command_line(digits, out)))
    (out / "sixth.safetensors").write_bytes(checkpoints[0])
    return out


def test_two_ranks_have_the_curve_of_one(digits, one, tmp_path):
    printed = launch(command_line(digits, tmp_path))
    assert printed.count("test of the best model") == 1  # said by one of them
    assert len(losses(tmp_path)) == 12
    np.testing.assert_allclose(losses(tmp_path), losses(one), rtol=1e-4)
    assert losses(one)[-1] < losses(one)[0]


def test_two_ranks_resume_what_the_first_one_has(digits, one, tmp_path):
    shutil.copy(one / "sixth.safetensors", tmp_path / "checkpoint.safetensors")
    launch(command_line(digits, tmp_path, "--resume"))
    assert len(losses(tmp_path)) == 12
    assert losses(tmp_path)[:6] == losses(one)[:6]
    np.testing.assert_allclose(losses(tmp_path), losses(one), rtol=1e-4)
