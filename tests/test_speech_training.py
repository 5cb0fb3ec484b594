# The speech example's training: what a step learns from, and a run that is stopped,
# killed, resumed.

import json
import signal
import subprocess
import sys
import time

import mlx.core as mx
import numpy as np
import pytest
from speech import FOLDER, write_digits

# isort: split
import corpora
import data
import features
import main
import model
import train
from checkpoint import CheckpointError
from corpora import fsdd
from mlx.utils import tree_flatten
from recogniser import Recogniser

from mlx_ctc import ctc_loss

SMALL = {"channels": 16, "blocks": 2}


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    return write_digits(tmp_path_factory.mktemp("digits"))


@pytest.fixture(scope="module")
def corpus(digits):
    return corpora.digits_as_symbols(fsdd.load(digits))


def arguments(digits, out, *more, steps=24, every=4):
    """A command line that trains a tiny model on tones."""
    line = f"--corpus fsdd --data {digits} --text digits --out {out} --cpu "
    line += f"--channels 16 --blocks 2 --steps {steps} --evaluate-every {every} "
    return [*line.split(), "--batch-size", "4", *more]


@pytest.fixture(scope="module")
def whole(digits, tmp_path_factory):
    """What a run leaves that was never stopped."""
    out = tmp_path_factory.mktemp("whole")
    main.main(main.parse_arguments(arguments(digits, out, steps=120)))
    return out


def history(out):
    return json.loads((out / "history.json").read_text())


def losses(out):
    return [loss for line in history(out) for loss in line["losses"]]


def tiny(corpus):
    mx.random.seed(0)
    alphabet = data.Alphabet(corpus.characters)
    log_mel = features.LogMel(corpus.sample_rate)
    encoder = model.Encoder(log_mel.bands, alphabet.classes, **SMALL)
    return Recogniser(encoder, alphabet, log_mel)


def updated(recogniser, batches, dtype=mx.float32):
    """The metrics of the steps that learn from these batches."""
    optimizer = train.make_optimizer(3e-3, 100)
    optimizer.init(recogniser.model.trainable_parameters())
    group = mx.distributed.init()
    mx.disable_compile()  # whose time is not worth these few steps
    try:
        update, _ = train.make_update(recogniser, optimizer, dtype, group)
        return [update(mx.array(0.0), *batch).tolist() for batch in batches]
    finally:
        mx.enable_compile()


# Batches.


def test_batches_depend_on_the_seed_and_the_step_alone(corpus):
    alphabet = data.Alphabet(corpus.characters)
    one, other = (data.TrainingBatches(corpus, alphabet, 4, seed=1) for _ in range(2))
    batches = [one[step] for step in range(60)]
    for step in (59, 3):
        for a, b in zip(batches[step], other[step], strict=True):
            assert mx.array_equal(a, b)
    different = data.TrainingBatches(corpus, alphabet, 4, seed=2)[3]
    assert not mx.array_equal(batches[3].targets, different.targets)


def test_ranks_share_each_batch(corpus):
    alphabet = data.Alphabet(corpus.characters)
    whole = data.TrainingBatches(corpus, alphabet, 6, seed=1)[5]
    for rank in range(2):
        part = data.TrainingBatches(corpus, alphabet, 6, 1, rank, ranks=2)[5]
        assert mx.array_equal(part.audio_lengths, whole.audio_lengths[rank::2])
        assert mx.array_equal(part.masks, whole.masks[rank::2])
        samples = min(part.audio.shape[1], whole.audio.shape[1])
        theirs = whole.audio[rank::2, :samples]
        assert mx.array_equal(part.audio[:, :samples], theirs)


def test_batches_are_mostly_speech(corpus):
    alphabet = data.Alphabet(corpus.characters)
    batches = data.TrainingBatches(corpus, alphabet, 4, seed=0)
    used = padded = 0
    for step in range(len(corpus.train) // 4):
        batch = batches[step]
        used += batch.audio_lengths.sum().item()
        padded += batch.audio.size
    assert used > 0.8 * padded


def test_text_longer_than_its_audio_is_left_out_by_name(corpus):
    alphabet = data.Alphabet(corpus.characters)
    first = corpus.train[0]
    assert data.frames_needed(alphabet.encode("1123")) == 5
    frames = {first.samples: 3}
    text = corpora.replace(first, name="quick.wav", text="1123")
    short = corpora.replace(corpus, train=[text, *corpus.train])
    kept = data.without_infeasible(
        short, alphabet, lambda samples: frames.get(samples, 1000)
    )
    assert "quick.wav: its text needs 5 frames, it has 3" in kept.left_out
    assert text not in kept.train
    assert corpus.train[1] in kept.train


# Features and the network.


def test_log_mel_is_the_textbook_one(rng):
    audio = rng.normal(size=4000).astype(np.float32)
    log_mel = features.LogMel(8000)
    (ours, lengths) = log_mel(mx.array(audio)[None], mx.array([4000]))
    frames = [audio[i : i + 200] * np.hanning(200) for i in range(0, 3801, 80)]
    power = np.abs(np.fft.rfft(frames, 256)) ** 2
    theirs = np.log(power @ features.mel_filters(8000, 256, 40) + 1e-6)
    theirs = (theirs - theirs.mean(0)) / theirs.std(0)
    assert lengths.item() == len(frames)
    np.testing.assert_allclose(ours[:, 0], theirs, atol=2e-4)


def test_padding_changes_nothing(rng):
    audio = mx.array(rng.normal(size=(1, 9000)).astype(np.float32))
    log_mel, encoder = features.LogMel(8000), model.Encoder(40, 11, **SMALL)
    padding = mx.array(rng.normal(size=(1, 4000)).astype(np.float32))
    alone, lengths = encoder(*log_mel(audio, mx.array([9000])))
    longer = mx.concatenate([audio, padding], axis=1)
    padded, _ = encoder(*log_mel(longer, mx.array([9000])))
    np.testing.assert_allclose(padded[: lengths.item()], alone, atol=1e-5)


def test_spec_augment_hides_a_few_frames_and_bands(rng):
    inputs = mx.ones((90, 50, 40))
    lengths = mx.array(rng.integers(20, 90, 50))
    masks = mx.array(rng.random((50, 4)))
    hidden = np.array(features.spec_augment(inputs, lengths, masks) == 0)
    frames, bands = hidden.all(axis=2).sum(axis=0), hidden.all(axis=0).sum(axis=1)
    assert set(frames) == set(range(7))
    assert set(bands) == set(range(5))
    for n, length in enumerate(lengths.tolist()):
        assert not hidden.all(axis=2)[length:, n].any()
    none = features.spec_augment(inputs, lengths, mx.zeros((50, 4)))
    assert mx.array_equal(none, inputs)


# The step.


def test_loss_is_the_mean_per_label(corpus):
    recogniser = tiny(corpus)
    batch = data.TrainingBatches(corpus, recogniser.alphabet, 4, seed=0)[0]
    batch = batch._replace(masks=mx.zeros((4, 4)))
    logits, lengths = recogniser(batch.audio, batch.audio_lengths)
    each = ctc_loss(
        logits,
        batch.targets,
        lengths,
        batch.target_lengths,
        reduction="none",
        with_logits=True,
    )
    [[loss, too_short, flags]] = updated(recogniser, [batch])
    expected = (each / batch.target_lengths).mean().item()
    assert loss == pytest.approx(expected, rel=1e-5)
    assert (too_short, flags) == (0, 0)


def test_utterances_shorter_than_their_text_are_counted_and_harmless(corpus):
    recogniser = tiny(corpus)
    batch = data.TrainingBatches(corpus, recogniser.alphabet, 4, seed=0)[0]
    fair, _ = updated(recogniser, [batch, batch])
    short = batch._replace(audio_lengths=batch.audio_lengths * mx.array([1, 1, 1, 0]))
    recogniser = tiny(corpus)
    (loss, too_short, _), _ = updated(recogniser, [short, short])
    assert too_short == 1
    assert 0 < loss < fair[0]
    for _, array in tree_flatten(recogniser.model.parameters()):
        assert mx.isfinite(array).all()


@pytest.mark.parametrize("dtype", [mx.float32, mx.bfloat16], ids=str)
def test_steps_learn_in_either_precision(corpus, dtype):
    recogniser = tiny(corpus)
    batches = data.TrainingBatches(corpus, recogniser.alphabet, 4, seed=0)
    metrics = updated(recogniser, [batches[0]] * 12, dtype)
    assert metrics[-1][0] < 0.8 * metrics[0][0]
    for _, array in tree_flatten(recogniser.model.parameters()):
        assert array.dtype == mx.float32


# The run.


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
        return Result(next(errors))

    monkeypatch.setattr(train, "evaluate", evaluate)
    args = main.parse_arguments(arguments(digits, tmp_path, steps=6, every=2))
    train.train(corpus, tiny(corpus), args, mx.distributed.init())
    kept = np.array(Recogniser.load(tmp_path).model.classify.weight)
    assert np.array_equal(kept, weights[1])
    assert not np.array_equal(kept, weights[2])


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT], ids=lambda s: s.name)
def test_stopped_run_goes_on_as_if_it_had_not_stopped(digits, whole, tmp_path, how):
    command = arguments(digits, tmp_path, steps=120)
    saved = tmp_path / "checkpoint.safetensors"
    run = subprocess.Popen(
        [sys.executable, str(FOLDER / "main.py"), *command],
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
        train.train(corpus, tiny(corpus), args, mx.distributed.init())

    with pytest.raises(CheckpointError, match="nothing to resume"):
        run("--resume")
    run()
    with pytest.raises(CheckpointError, match=r"begun with seed 0, not 1\."):
        run("--seed", "1", "--resume")
    (tmp_path / "checkpoint.safetensors").write_bytes(b"not one")
    with pytest.raises(CheckpointError, match="no checkpoint of this model"):
        run("--resume")


def test_loss_that_is_not_a_number_stops_the_run(digits, corpus, tmp_path):
    recogniser = tiny(corpus)
    recogniser.model.front.bias = recogniser.model.front.bias * mx.nan
    args = main.parse_arguments(arguments(digits, tmp_path))
    with pytest.raises(SystemExit, match="loss of step 1 is not a number"):
        train.train(corpus, recogniser, args, mx.distributed.init())


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("--corpus fsdd", "which need it"),
        ("--data somewhere", "which need it"),
        ("--held-out-speaker anna", "is for --corpus fsdd"),
        ("--say phrases --text digits", "is for digit strings"),
    ],
)
def test_arguments_that_do_not_go_together_are_refused(line, message, capsys):
    with pytest.raises(SystemExit):
        main.parse_arguments(line.split())
    assert message in capsys.readouterr().err


def test_bad_corpus_ends_in_one_line(tmp_path, capsys):
    line = f"--corpus librispeech --data {tmp_path} --out {tmp_path / 'out'} --cpu"
    with pytest.raises(SystemExit) as stop:
        main.main(main.parse_arguments(line.split()))
    assert str(stop.value) == f"{tmp_path} has no folder train-*."
