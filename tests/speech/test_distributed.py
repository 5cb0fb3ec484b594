# The speech example's training on several processes: the curve of one.

import shutil

import checkpoint
import main
import numpy as np
import pytest
from launcher import launch
from runs import arguments, losses


def launch_main(command):
    return launch([main.__file__, *command])


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
    printed = launch_main(command_line(digits, tmp_path))
    assert printed.count("test of the best model") == 1  # said by one of them
    assert len(losses(tmp_path)) == 12
    np.testing.assert_allclose(losses(tmp_path), losses(one), rtol=1e-4)
    assert losses(one)[-1] < losses(one)[0]


def test_two_ranks_resume_what_the_first_one_has(digits, one, tmp_path):
    shutil.copy(one / "sixth.safetensors", tmp_path / "checkpoint.safetensors")
    launch_main(command_line(digits, tmp_path, "--resume"))
    assert len(losses(tmp_path)) == 12
    assert losses(tmp_path)[:6] == losses(one)[:6]
    np.testing.assert_allclose(losses(tmp_path), losses(one), rtol=1e-4)
