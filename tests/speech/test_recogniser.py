# A recogniser is saved and loaded, evaluated and drawn.

import os
import re
from pathlib import Path

import matplotlib.image
import mlx.core as mx
import numpy as np
import paths
import pictures
import pytest
from corpora import Utterance
from evaluate import Result, evaluate
from recogniser import Recogniser
from tones import random_text, tones, write_text


def utterance(text, speaker, rng):
    samples = tones(text, rng)
    return Utterance("tones", speaker, text, len(samples), lambda: samples)


def image_size(path):
    height, width, _ = matplotlib.image.imread(path).shape
    return width, height


def test_saved_and_loaded_it_hears_the_same(recogniser, saved, rng):
    waveform = tones("ab c", rng)
    loaded = Recogniser.load(saved)
    assert mx.array_equal(loaded.listen(waveform), recogniser.listen(waveform))
    assert sorted(path.name for path in saved.iterdir()) == [
        "model.safetensors",
        "recogniser.json",
    ]


def test_listening_alone_and_in_a_batch_is_the_same(recogniser, rng):
    waveforms = [tones(text, rng) for text in ("a", "cab a")]
    batch = np.zeros((2, 8000), np.float32)
    for row, waveform in zip(batch, waveforms, strict=True):
        row[: len(waveform)] = waveform
    logits, lengths = recogniser(mx.array(batch), mx.array(list(map(len, waveforms))))
    for n, waveform in enumerate(waveforms):
        alone = recogniser.listen(waveform)
        assert len(alone) == lengths[n].item()
        np.testing.assert_allclose(logits[: len(alone), n], alone, atol=1e-4)


def test_code_in_the_readme_runs(saved, rng, tmp_path, monkeypatch):
    readme = Path(paths.__file__).with_name("README.md").read_text()
    [code] = re.findall(r"```python\n(.*?)```", readme, re.DOTALL)
    write_text(tmp_path / "recording.wav", "ab c", rng)
    monkeypatch.chdir(tmp_path)
    names = {"folder": saved}
    exec(code.replace("seven three nine", "ab c"), names)
    assert [word.text for word in names["alignment"].words] == ["ab", "c"]


@pytest.mark.parametrize("samples", [1, 199, 200, 201])
def test_less_than_a_frame_is_nothing_said(recogniser, samples):
    logits = recogniser.listen(np.zeros(samples, np.float32))
    assert logits.shape == (int(samples >= 200), 5)


def test_model_saved_last_is_the_default(recogniser, saved):
    newer = paths.models_folder() / "another"
    recogniser.save(newer)
    path = saved / "recogniser.json"
    for time, expected in ((0, newer), (2**33, saved)):
        os.utime(path, (time, time))
        assert paths.latest_model() == expected


def test_beam_search_finds_the_most_probable_text(recogniser):
    # Two frames of 0.6 blank, 0.4 "a": "" is the best path, "a" the best text.
    probabilities = [0.6, 0.0, 0.4, 0.0, 0.0]
    logits = mx.log(mx.array([[probabilities], [probabilities]]))
    lengths = mx.array([2])
    assert recogniser.transcripts(logits, lengths) == [""]
    assert recogniser.transcripts(logits, lengths, beam_width=5) == ["a"]


def test_error_rates_are_those_of_all_and_of_each_speaker():
    result = Result(
        speakers=["ann", "bob", "ann"],
        references=["one two", "three", "four"],
        transcripts=["one", "thre", "four"],
    )
    assert result.wer == pytest.approx(2 / 4)
    assert result.cer == pytest.approx((4 + 1) / (7 + 5 + 4))
    assert str(result) == "CER  31.2 %  WER  50.0 %"
    speakers = result.by_speaker()
    assert list(speakers) == ["bob", "ann"]
    assert speakers["ann"].wer == pytest.approx(1 / 3)
    rows = [line.split() for line in result.table().splitlines()[1:]]
    assert rows == [
        ["bob", "1", "20.0", "100.0"],
        ["ann", "2", "36.4", "33.3"],
        ["all", "3", "31.2", "50.0"],
    ]


def test_evaluation_is_of_every_utterance(recogniser, rng):
    texts = [random_text(rng) for _ in range(20)]
    utterances = [utterance(text, f"s{i % 3}", rng) for i, text in enumerate(texts)]
    recogniser.model.train()
    results = evaluate(recogniser, utterances, (None, 8))
    assert recogniser.model.training
    assert len(results) == 2
    for result in results:
        assert sorted(result.references) == sorted(texts)
        assert result.wer < 0.1
        assert {s: len(r.references) for s, r in result.by_speaker().items()} == {
            "s0": 7,
            "s1": 7,
            "s2": 6,
        }


def test_evaluation_listens_once_and_decodes_each_way(recogniser, rng, monkeypatch):
    logits = mx.log(mx.array([[[0.6, 0.0, 0.4, 0.0, 0.0]]] * 2))  # as above
    listened = []

    def listen(self, audio, lengths):
        listened.append(audio)
        return logits, mx.array([2])

    monkeypatch.setattr(Recogniser, "__call__", listen)
    results = evaluate(recogniser, [utterance("a", "ann", rng)], (None, 5))
    assert [result.transcripts for result in results] == [[""], ["a"]]
    assert len(listened) == 1


def test_curves_are_drawn(tmp_path):
    history = [
        {"step": 3, "losses": [3.0, 2.5, 2.0], "cer": 0.3, "wer": 0.6},
        {"step": 6, "losses": [1.5, 0.0, 0.5], "cer": 0.1, "wer": 0.3},
    ]
    pictures.save_curves(history, tmp_path / "curves.png")
    assert image_size(tmp_path / "curves.png") == (840, 600)
