# What a step of the speech example's training learns, and from which batches.

import re
from dataclasses import replace

import corpora
import data
import features
import loop
import mlx.core as mx
import model
import numpy as np
import pytest
import train
from mlx.utils import tree_flatten
from tones import untrained_recogniser

from mlx_ctc import ctc_loss


def updated(recogniser, batches, dtype=mx.float32):
    """The metrics of the steps that learn from these batches."""
    optimizer = train.make_optimizer(3e-3, 100)
    optimizer.init(recogniser.model.trainable_parameters())
    group = mx.distributed.init()
    mx.disable_compile()  # whose time is not worth these few steps
    try:
        update, _ = train.make_update(recogniser, optimizer, dtype, group)
        return [update(*batch).tolist() for batch in batches]
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
        assert mx.array_equal(part.draws, whole.draws[rank::2])
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
    text = replace(first, name="quick.wav", text="1123")
    short = replace(corpus, train=[text, *corpus.train])
    kept = data.without_infeasible(
        short, alphabet, lambda samples: frames.get(samples, 1000)
    )
    assert "quick.wav: its text needs 5 frames, it has 3" in kept.left_out
    assert text not in kept.train
    assert corpus.train[1] in kept.train


def test_corpus_of_nothing_but_such_texts_is_refused(corpus):
    alphabet = data.Alphabet(corpus.characters)
    name = re.escape(corpus.train[0].name)
    with pytest.raises(
        corpora.CorpusError, match=rf"for train: {name}: its text needs"
    ):
        data.without_infeasible(corpus, alphabet, lambda samples: 0)


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
    log_mel, encoder = (
        features.LogMel(8000),
        model.Encoder(40, 11, channels=16, blocks=2),
    )
    padding = mx.array(rng.normal(size=(1, 4000)).astype(np.float32))
    alone, lengths = encoder(*log_mel(audio, mx.array([9000])))
    longer = mx.concatenate([audio, padding], axis=1)
    padded, _ = encoder(*log_mel(longer, mx.array([9000])))
    np.testing.assert_allclose(padded[: lengths.item()], alone, atol=1e-5)


def test_spec_augment_hides_a_few_frames_and_bands(rng):
    inputs = mx.ones((90, 50, 40))
    lengths = mx.array(rng.integers(20, 90, 50))
    draws = mx.array(rng.random((50, 4)))
    hidden = np.array(features.spec_augment(inputs, lengths, draws) == 0)
    frames, bands = hidden.all(axis=2).sum(axis=0), hidden.all(axis=0).sum(axis=1)
    assert set(frames) == set(range(7))
    assert set(bands) == set(range(5))
    for n, length in enumerate(lengths.tolist()):
        assert not hidden.all(axis=2)[length:, n].any()
    none = features.spec_augment(inputs, lengths, mx.zeros((50, 4)))
    assert mx.array_equal(none, inputs)


# The step.


def test_loss_is_the_mean_per_label(corpus):
    recogniser = untrained_recogniser(corpus.characters)
    batch = data.TrainingBatches(corpus, recogniser.alphabet, 4, seed=0)[0]
    batch = batch._replace(draws=mx.zeros((4, 4)))
    logits, lengths = recogniser(batch.audio, batch.audio_lengths)
    each = ctc_loss(
        logits,
        batch.targets,
        lengths,
        batch.target_lengths,
        reduction="none",
        with_logits=True,
    )
    [[loss, infeasible]] = updated(recogniser, [batch])
    expected = (each / batch.target_lengths).mean().item()
    assert loss == pytest.approx(expected, rel=1e-5)
    assert infeasible == 0


def test_infeasible_utterances_are_counted_and_harmless(corpus):
    recogniser = untrained_recogniser(corpus.characters)
    batch = data.TrainingBatches(corpus, recogniser.alphabet, 4, seed=0)[0]
    fair, _ = updated(recogniser, [batch, batch])
    short = batch._replace(audio_lengths=batch.audio_lengths * mx.array([1, 1, 1, 0]))
    recogniser = untrained_recogniser(corpus.characters)
    (loss, infeasible), _ = updated(recogniser, [short, short])
    assert infeasible == 1
    assert 0 < loss < fair[0]
    for _, array in tree_flatten(recogniser.model.parameters()):
        assert mx.isfinite(array).all()


def test_infeasible_utterances_are_shown_since_the_last_evaluation(corpus, tmp_path):
    recogniser = untrained_recogniser(corpus.characters)
    progress = loop.Progress(step=7, losses=[2.0, 1.0], infeasible=3)
    line = loop.record(progress, corpus, recogniser, tmp_path)
    assert line.startswith("step     7  loss  1.500  dev CER ")
    assert line.endswith("%  3 utterances too short for their text")
    assert progress.history[0]["infeasible"] == 3
    assert (progress.infeasible, progress.losses) == (0, [])
    progress.losses = [1.0]
    assert "short" not in loop.record(progress, corpus, recogniser, tmp_path)


@pytest.mark.parametrize("dtype", [mx.float32, mx.bfloat16], ids=str)
def test_steps_learn_in_either_precision(corpus, dtype):
    recogniser = untrained_recogniser(corpus.characters)
    batches = data.TrainingBatches(corpus, recogniser.alphabet, 4, seed=0)
    metrics = updated(recogniser, [batches[0]] * 12, dtype)
    assert metrics[-1][0] < 0.8 * metrics[0][0]
    for _, array in tree_flatten(recogniser.model.parameters()):
        assert array.dtype == mx.float32


def test_the_file_to_copy_runs_as_it_is(corpus, monkeypatch, capsys):
    monkeypatch.setattr(train.synthetic, "load", lambda: corpus)
    train.main(steps=100)
    lines = capsys.readouterr().out.splitlines()
    first, last = (float(line.split()[-1]) for line in lines[:2])
    assert last < 0.8 * first
    assert lines[2] == f"said  {corpus.test[0].text}"
    assert lines[3].startswith("heard")
