# The speech example's command: a run that is stopped, killed, resumed, refused.

import json
import re
import signal
import subprocess
import sys
import time
from dataclasses import replace

import loop
import main
import mlx.core as mx
import numpy as np
import pytest
from checkpoint import CheckpointError
from recogniser import Recogniser
from runs import arguments, history, losses
from tones import untrained_recogniser


@pytest.fixture(scope="module")
def whole(digits, tmp_path_factory):
    """What a run leaves that was never stopped."""
    out = tmp_path_factory.mktemp("whole")
    main.main(main.parse_arguments(arguments(digits, out, steps=120)))
    return out


def test_command_trains_tests_and_saves(digits, tmp_path, capsys):
    main.main(main.parse_arguments(arguments(digits, tmp_path / "out")))
    printed = capsys.readouterr().out
    assert "FSDD digit strings, tested on the official split" in printed
    assert "anna" in printed.partition("test of the best model")[2]
    assert str(tmp_path / "out") in printed
    lines = history(tmp_path / "out")
    assert [line["step"] for line in lines] == [4, 8, 12, 16, 20, 24]
    assert lines[-1]["loss"] < lines[0]["loss"]
    saved = {path.name for path in (tmp_path / "out").iterdir()}
    assert saved >= {"model.safetensors", "recogniser.json", "curves.png"}


def test_best_model_is_the_one_kept(digits, corpus, tmp_path, monkeypatch):
    class Result:
        wer = 1.0

        def __init__(self, cer):
            self.cer = cer

    errors = iter([0.5, 0.2, 0.4])
    weights = []

    def evaluate(recogniser, utterances):
        assert utterances == corpus.dev
        weights.append(np.array(recogniser.model.classify.weight))
        return [Result(next(errors))]

    monkeypatch.setattr(loop, "evaluate", evaluate)
    args = main.parse_arguments(arguments(digits, tmp_path, steps=6, every=2))
    loop.train(
        corpus, untrained_recogniser(corpus.characters), args, mx.distributed.init()
    )
    kept = np.array(Recogniser.load(tmp_path).model.classify.weight)
    assert np.array_equal(kept, weights[1])
    assert not np.array_equal(kept, weights[2])


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT], ids=lambda s: s.name)
def test_stopped_run_goes_on_as_if_it_had_not_stopped(digits, whole, tmp_path, how):
    command = arguments(digits, tmp_path, steps=120)
    saved = tmp_path / "checkpoint.safetensors"
    run = subprocess.Popen(
        [sys.executable, main.__file__, *command],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    while not saved.exists():
        assert run.poll() is None, run.stderr.read()
        time.sleep(0.005)
    run.send_signal(how)
    _, messages = run.communicate(timeout=60)
    if how == signal.SIGINT:
        assert run.returncode == 130
        assert "--resume goes on" in messages
    _, metadata = mx.load(str(saved), return_metadata=True)
    assert 4 <= json.loads(metadata["progress"])["step"] < 120
    main.main(main.parse_arguments([*command, "--resume"]))
    assert losses(tmp_path) == losses(whole)
    expected = mx.load(str(whole / saved.name))
    weights = mx.load(str(saved))
    assert weights.keys() == expected.keys()
    for name in weights:
        assert mx.array_equal(weights[name], expected[name]), name


def test_resume_refuses_another_recipe_and_what_is_no_checkpoint(
    digits, corpus, tmp_path
):
    def run(*more):
        line = arguments(digits, tmp_path, *more, steps=2, every=2)
        args = main.parse_arguments(line)
        recogniser = untrained_recogniser(corpus.characters, args.blocks)
        loop.train(corpus, recogniser, args, mx.distributed.init())

    with pytest.raises(CheckpointError, match="nothing to resume"):
        run("--resume")
    run()
    with pytest.raises(CheckpointError, match=r"begun with seed 0, not 1\."):
        run("--seed", "1", "--resume")
    with pytest.raises(CheckpointError, match=r"begun with blocks 2, not 3\."):
        run("--blocks", "3", "--resume")
    (tmp_path / "checkpoint.safetensors").write_bytes(b"not one")
    with pytest.raises(CheckpointError, match="no checkpoint of this example"):
        run("--resume")


def test_loss_that_is_not_a_number_stops_the_run(digits, corpus, tmp_path):
    recogniser = untrained_recogniser(corpus.characters)
    recogniser.model.front.bias = recogniser.model.front.bias * mx.nan
    args = main.parse_arguments(arguments(digits, tmp_path))
    with pytest.raises(SystemExit, match="loss of step 1 is not a number"):
        loop.train(corpus, recogniser, args, mx.distributed.init())


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("--corpus fsdd", "which need it"),
        ("--data somewhere", "which need it"),
        ("--held-out-speaker anna", "is for --corpus fsdd"),
        ("--say phrases --text digits", "is for digit strings"),
        ("--corpus fsdd --data somewhere --characters abc", "is for --corpus folder"),
        ("--steps 0", "argument --steps: 0 is less than 1"),
        ("--batch-size -8", "argument --batch-size: -8 is less than 1"),
        ("--evaluate-every 0", "argument --evaluate-every: 0 is less than 1"),
        ("--channels 0", "argument --channels: 0 is less than 1"),
        ("--seed -1", "argument --seed: -1 is less than 0"),
        ("--beam x", "argument --beam: invalid"),
    ],
)
def test_arguments_of_no_use_are_refused(line, message, capsys):
    with pytest.raises(SystemExit):
        main.parse_arguments(line.split())
    assert message in capsys.readouterr().err


def test_stop_before_training_does_not_speak_of_resuming(
    digits, tmp_path, monkeypatch, capsys
):
    def interrupted(args):
        raise KeyboardInterrupt

    monkeypatch.setattr(main, "load_corpus", interrupted)
    with pytest.raises(SystemExit) as stop:
        main.main(main.parse_arguments(arguments(digits, tmp_path)))
    assert stop.value.code == 130
    assert capsys.readouterr().err.strip() == "Stopped."


def test_folder_that_cannot_be_written_ends_in_one_line(digits, tmp_path):
    (tmp_path / "file").write_text("in the way")
    line = arguments(digits, tmp_path / "file" / "out")
    with pytest.raises(SystemExit, match=rf"Not a directory: '{tmp_path}/file/out'"):
        main.main(main.parse_arguments(line))


def test_bad_corpus_ends_in_one_line(tmp_path):
    line = f"--corpus librispeech --data {tmp_path} --out {tmp_path / 'out'} --cpu"
    with pytest.raises(SystemExit) as stop:
        main.main(main.parse_arguments(line.split()))
    assert str(stop.value) == f"{tmp_path} has no folder train-*."


def test_alignment_that_cannot_be_drawn_is_named(recogniser, corpus, tmp_path, capsys):
    history = [{"step": 1, "losses": [1.0], "cer": 0.5, "wer": 0.5}]
    quick = replace(corpus.test[0], name="quick.wav", text="abc" * 100)
    main.draw(recogniser, replace(corpus, test=[quick]), history, tmp_path)
    message = r"no alignment\.png of quick\.wav: a text of 300 characters takes"
    assert re.match(message, capsys.readouterr().out)
    assert [path.name for path in tmp_path.iterdir()] == ["curves.png"]
