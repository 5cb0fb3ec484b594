# examples/speech learns, in a few steps on a few utterances.

import subprocess
import sys
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest

for module in ("espeakng_loader", "jiwer", "soundfile", "soxr", "tqdm"):
    pytest.importorskip(module, reason=f"{module} comes with the extra 'examples'")

FOLDER = Path(__file__).parent.parent / "examples" / "speech"
sys.path.insert(0, str(FOLDER))

import corpora  # noqa: E402
import data  # noqa: E402
import features  # noqa: E402
import main  # noqa: E402
import model  # noqa: E402
import soundfile  # noqa: E402


def synthesised(folder):
    """The files of a small corpus made by a process of its own, by name."""
    code = (
        f"import synth, pathlib; synth.synthesise(pathlib.Path({str(folder)!r}), 12, 4)"
    )
    subprocess.run([sys.executable, "-c", code], cwd=FOLDER, check=True)
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


@pytest.fixture
def digits(tmp_path):
    """A folder in the layout of the Free Spoken Digit Dataset, of tones."""
    rng = np.random.default_rng(0)
    for digit in range(3):
        for speaker, pitch in (("anna", 400), ("bert", 300)):
            for index in range(8):
                time = np.arange(rng.integers(1500, 3000)) / 8000
                tone = np.sin(2 * np.pi * pitch * (1 + digit) * time)
                path = tmp_path / f"{digit}_{speaker}_{index}.wav"
                soundfile.write(path, tone * rng.uniform(0.1, 0.9), 8000)
    return tmp_path


def test_synthesis_is_repeatable(tmp_path):
    first, second = synthesised(tmp_path / "a"), synthesised(tmp_path / "b")
    assert len(first) == 18
    assert first == second


def test_training_on_synthesised_speech_learns(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    corpus = corpora.synthetic(train=16, test=4)
    assert {u.speaker for u in corpus.train}.isdisjoint(u.speaker for u in corpus.test)
    assert {u.text for u in corpus.train}.isdisjoint(u.text for u in corpus.test)
    argv = "--steps 24 --batch-size 4 --evaluate-every 8".split()
    main.train(corpus, main.parse_arguments(argv))
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    losses = [float(line[3]) for line in lines if line[0] == "step"]
    assert len(losses) == 3
    assert losses[2] < losses[0]


def test_command_trains_on_a_folder_of_digits(digits):
    argv = ["--data", str(digits), "--held-out-speaker", "anna", "--target", "digits"]
    command = [sys.executable, str(FOLDER / "main.py"), *argv, "--steps", "3"]
    run = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "tested on anna" in run.stdout
    assert "held-out CER" in run.stdout


def test_unknown_speaker_is_named_with_the_known_ones(digits):
    with pytest.raises(SystemExit, match=r"of carl and others .* anna, bert"):
        corpora.fsdd(digits, "carl")


def test_official_split_shares_speakers_but_no_recording(digits):
    corpus = corpora.fsdd(digits)
    assert {u.speaker for u in corpus.train} == {u.speaker for u in corpus.test}
    assert sum(len(u.text.split()) for u in corpus.test) == 5 * 2 * 3 * 5
    assert sum(len(u.text.split()) for u in corpus.train) == 15 * 2 * 3 * 3
    for utterance in corpus.test:
        assert len(utterance.audio()) == utterance.samples


def test_batches_depend_on_the_seed_and_the_step_alone(digits):
    corpus = corpora.digits_as_symbols(corpora.fsdd(digits))
    alphabet = data.Alphabet(corpus.characters)
    one, other = (data.TrainingBatches(corpus, alphabet, 4, seed=1) for _ in range(2))
    batches = [one[step] for step in range(30)]
    for step in (29, 3):
        for a, b in zip(batches[step], other[step], strict=True):
            assert mx.array_equal(a, b)


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
    log_mel, recogniser = (
        features.LogMel(8000),
        model.Encoder(40, 11, **model.SIZES["small"]),
    )
    padding = mx.array(rng.normal(size=(1, 4000)).astype(np.float32))
    alone, lengths = recogniser(*log_mel(audio, mx.array([9000])))
    longer = mx.concatenate([audio, padding], axis=1)
    padded, _ = recogniser(*log_mel(longer, mx.array([9000])))
    np.testing.assert_allclose(padded[: lengths.item()], alone, atol=1e-5)
