# The speech example's corpora: what is loaded, and what is left out by name.

import subprocess
import sys
from pathlib import Path

import audio
import corpora
import main
import numpy as np
import pytest
import soundfile
from corpora import CorpusError, folder, fsdd, librispeech, synthetic
from tones import tone, write_digits, write_tone


def texts(utterances):
    return [utterance.text for utterance in utterances]


# Synthesised by espeak-ng.


def synthesised(folder, say):
    """The files of a small corpus made by a process of its own, by name."""
    code = (
        "from corpora import synthetic; from pathlib import Path; "
        f"counts = {{'train': 8, 'dev': 4, 'test': 4}}; "
        f"synthetic.synthesise(Path({str(folder)!r}), {say!r}, counts)"
    )
    example = Path(main.__file__).parent
    subprocess.run([sys.executable, "-c", code], cwd=example, check=True)
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def test_synthesis_is_repeatable(tmp_path):
    first = synthesised(tmp_path / "a", "digits")
    second = synthesised(tmp_path / "b", "digits")
    assert len(first) == 19
    assert first == second


@pytest.mark.parametrize("say", ["digits", "phrases"])
def test_synthetic_parts_share_no_voice_and_tests_no_sentence(
    tmp_path, monkeypatch, say
):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    corpus = synthetic.load(say, train=40, dev=12, test=14)
    train, dev, test = (
        {utterance.speaker for utterance in part}
        for part in (corpus.train, corpus.dev, corpus.test)
    )
    assert not train & dev
    assert not train & test
    assert not dev & test
    assert not set(texts(corpus.train)) & set(texts(corpus.dev + corpus.test))
    assert (len(corpus.train), len(corpus.dev), len(corpus.test)) == (40, 12, 14)
    assert not corpus.left_out
    assert [path.name for path in tmp_path.iterdir()] == ["mlx-ctc"]


def test_synthetic_corpus_is_made_once(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    first = synthetic.load(train=4, dev=2, test=2)
    monkeypatch.setattr(synthetic, "synthesise", None)
    again = synthetic.load(train=4, dev=2, test=2)
    assert texts(again.train) == texts(first.train)
    np.testing.assert_array_equal(again.train[0].audio(), first.train[0].audio())


def test_household_phrases_have_about_a_hundred_words():
    rng = np.random.default_rng(0)
    said = {
        word for _ in range(3000) for word in synthetic.household_phrase(rng).split()
    }
    assert 80 <= len(said) <= 120
    assert set("".join(said)) < set(corpora.LETTERS)


# The Free Spoken Digit Dataset.


def test_official_split_shares_speakers_but_no_recording(tmp_path):
    corpus = fsdd.load(write_digits(tmp_path))
    for part in (corpus.train, corpus.dev, corpus.test):
        assert {utterance.speaker for utterance in part} == {"anna", "bert"}
    digits = 3 * 2  # of each speaker
    assert sum(len(text.split()) for text in texts(corpus.test)) == 5 * 5 * digits
    assert sum(len(text.split()) for text in texts(corpus.dev)) == 3 * 2 * digits
    assert sum(len(text.split()) for text in texts(corpus.train)) == 15 * 2 * digits
    for utterance in corpus.test:
        assert len(utterance.audio()) == utterance.samples


def test_held_out_speaker_is_never_heard(tmp_path):
    corpus = fsdd.load(write_digits(tmp_path), "anna")
    assert {utterance.speaker for utterance in corpus.test} == {"anna"}
    assert {utterance.speaker for utterance in corpus.train + corpus.dev} == {"bert"}
    assert sum(len(text.split()) for text in texts(corpus.test)) == 3 * 9


def test_digits_are_written_as_symbols(tmp_path):
    spelled = fsdd.load(write_digits(tmp_path))
    symbols = corpora.digits_as_symbols(spelled)
    assert symbols.characters == "0123456789"
    for words, digits in zip(texts(spelled.test), texts(symbols.test), strict=True):
        assert words == " ".join(corpora.DIGITS[int(digit)] for digit in digits)


def test_unknown_speaker_is_named_with_the_known_ones(tmp_path):
    with pytest.raises(CorpusError, match=r"of carl and others .* anna, bert"):
        fsdd.load(write_digits(tmp_path), "carl")


def test_fsdd_leaves_out_bad_recordings_by_name(tmp_path):
    write_digits(tmp_path)
    soundfile.write(tmp_path / "0_anna_7.wav", tone(0.3), 16000)
    soundfile.write(tmp_path / "1_anna_7.wav", np.zeros(2000), 8000)
    soundfile.write(tmp_path / "2_anna_7.wav", np.zeros(0), 8000)
    (tmp_path / "0_bert_7.wav").write_bytes(b"not audio")
    soundfile.write(tmp_path / "ten_bert_7.wav", tone(0.3), 8000)
    corpus = fsdd.load(tmp_path)
    assert [line.removeprefix(f"{tmp_path}/") for line in corpus.left_out] == [
        "0_anna_7.wav: 16000 Hz instead of 8000",
        "0_bert_7.wav: unreadable: Format not recognised.",
        "1_anna_7.wav: nothing but silence",
        "2_anna_7.wav: no samples",
        "ten_bert_7.wav: not named {digit}_{speaker}_{index}.wav",
    ]
    assert sum(len(text.split()) for text in texts(corpus.train)) == 15 * (2 * 6 - 4)


# LibriSpeech.


def write_librispeech(root):
    """Two speakers to train on, one each to choose and test by, as unpacked."""
    for part, speaker in (
        ("train-clean-100", 19),
        ("train-other-500", 20),
        ("dev-clean", 84),
        ("test-clean", 61),
        ("test-other", 62),
    ):
        chapter = root / "LibriSpeech" / part / str(speaker) / "198"
        for i in range(2):
            write_tone(chapter / f"{speaker}-198-{i:04}.flac", seconds=1 + i)
        (chapter / f"{speaker}-198.trans.txt").write_text(
            f"{speaker}-198-0000 NORTHANGER ABBEY\n"
            f"{speaker}-198-0001 IT'S OF {'ABCDE'[i]}\n"
        )
    return root


def test_librispeech_is_read_as_unpacked(tmp_path):
    for path in (write_librispeech(tmp_path), tmp_path / "LibriSpeech"):
        corpus = librispeech.load(path)
        assert [utterance.speaker for utterance in corpus.train] == [
            "19",
            "19",
            "20",
            "20",
        ]
        assert {utterance.speaker for utterance in corpus.dev} == {"84"}
        assert {utterance.speaker for utterance in corpus.test} == {"61"}
        assert texts(corpus.test) == ["northanger abbey", "it's of b"]
        assert corpus.train[1].samples == len(corpus.train[1].audio()) == 32000


def test_librispeech_names_files_that_are_missing(tmp_path):
    write_librispeech(tmp_path)
    [lost] = tmp_path.rglob("19-198-0001.flac")
    lost.unlink()
    corpus = librispeech.load(tmp_path)
    assert corpus.left_out == [f"{lost}: no such file"]
    assert len(corpus.train) == 3


def test_librispeech_names_transcripts_that_are_not_text(tmp_path):
    write_librispeech(tmp_path)
    [transcripts] = tmp_path.rglob("61-198.trans.txt")
    transcripts.write_bytes(b"61-198-0000 GR\xd6SSE\n")
    with pytest.raises(CorpusError, match=rf"{transcripts} is not text in UTF-8"):
        librispeech.load(tmp_path)


def test_folder_that_is_not_librispeech_is_refused(tmp_path):
    with pytest.raises(CorpusError, match=r"has no folder train-\*"):
        librispeech.load(tmp_path)


# Tables of paths and texts.


def write_common_voice(root, rows=(), clip=write_tone):
    """Common Voice's layout: tables beside a folder of clips."""
    header = "client_id\tpath\tsentence\tup_votes\n"
    for part in ("train", "dev", "test"):
        clip(root / "clips" / f"{part}.wav")
        own = f'{part}er\t{part}.wav\t"Well," said I: that’s  it!\t2\n'
        more = "".join("\t".join((*row, "2\n")) for row in rows)
        (root / f"{part}.tsv").write_text(header + own + more, encoding="utf-8")
    return root


def test_common_voice_is_read_as_unpacked(tmp_path):
    corpus = folder.load(write_common_voice(tmp_path))
    for part, name in ((corpus.train, "train"), (corpus.dev, "dev")):
        assert [utterance.speaker for utterance in part] == [f"{name}er"]
        assert texts(part) == ["well said i that's it"]
    assert not corpus.left_out


def test_recordings_of_other_rates_and_formats_are_resampled(tmp_path):
    def clip(path):
        path.parent.mkdir(exist_ok=True)
        stereo = np.stack([tone(1.5, 440, 44100)] * 2, axis=1)
        soundfile.write(path, stereo, 44100, format="MP3")

    corpus = folder.load(write_common_voice(tmp_path, clip=clip))
    samples = corpus.train[0].audio()
    assert samples.dtype == np.float32
    assert abs(len(samples) - 24000) < 1500  # an MP3 has a little silence at its ends
    strongest = np.argmax(np.abs(np.fft.rfft(samples[4000:20000])))
    assert strongest == 440  # one bin is 1 Hz


def test_folder_leaves_out_bad_files_by_name(tmp_path):
    (tmp_path / "clips").mkdir()
    (tmp_path / "clips" / "broken.mp3").write_bytes(b"\x00" * 3000)
    soundfile.write(tmp_path / "clips" / "empty.wav", np.zeros(0), 16000)
    write_tone(tmp_path / "clips" / "other.wav")
    rows = [
        ("a", "lost.wav", "lost"),
        ("a", "broken.mp3", "broken"),
        ("a", "empty.wav", "empty"),
        ("a", "other.wav", "42 Çedillas"),
        ("a", "other.wav", "?!"),
    ]
    corpus = folder.load(write_common_voice(tmp_path, rows))
    assert len(corpus.train) == len(corpus.dev) == len(corpus.test) == 1
    clips = tmp_path / "clips"
    assert corpus.left_out[0] in (
        f"{clips}/lost.wav: no such file",
        f"{tmp_path}/lost.wav: no such file",
    )
    assert corpus.left_out[1].startswith(f"{clips}/broken.mp3: unreadable: ")
    assert corpus.left_out[2:5] == [
        f"{clips}/empty.wav: no samples",
        f"{clips}/other.wav: its text has '24ç'",
        f"{clips}/other.wav: it has no text",
    ]


def test_alphabet_of_a_folder_can_be_another(tmp_path):
    write_common_voice(tmp_path, [("a", "train.wav", "Größe 42")])
    corpus = folder.load(tmp_path, corpora.LETTERS + "öß24")
    assert texts(corpus.train)[1] == "größe 42"


@pytest.mark.parametrize(("files", "held_out"), [(3, 1), (100, 5)])
def test_one_table_is_divided(tmp_path, files, held_out):
    lines = ["path,text"]
    for i in range(files):
        write_tone(tmp_path / f"{i}.wav", seconds=0.1)
        lines.append(f'{i}.wav,"one, two"')
    table = tmp_path / "all.csv"
    table.write_text("\n".join(lines))
    corpus = folder.load(table)
    names = [u.name for part in (corpus.train, corpus.dev, corpus.test) for u in part]
    assert len(set(names)) == len(names) == files
    assert len(corpus.dev) == len(corpus.test) == held_out
    assert set(texts(corpus.train)) == {"one two"}


def test_table_without_texts_is_refused_with_its_columns(tmp_path):
    (tmp_path / "train.csv").write_text("path,words\n1.wav,one\n")
    with pytest.raises(CorpusError, match=r"path and sentence or .* got path, words"):
        folder.load(tmp_path)


def test_table_that_is_not_text_is_refused(tmp_path):
    (tmp_path / "train.tsv").write_bytes(b"path\tsentence\na.wav\tGr\xf6\xdfe\n")
    with pytest.raises(CorpusError, match=r"train\.tsv is no table in UTF-8"):
        folder.load(tmp_path)


def test_folder_without_a_table_or_usable_files_is_refused(tmp_path):
    with pytest.raises(CorpusError, match="has neither train"):
        folder.load(tmp_path)
    (tmp_path / "train.tsv").write_text("path\tsentence\na.wav\tlost\n")
    with pytest.raises(CorpusError, match=r"for train: .*a\.wav: no such file"):
        folder.load(tmp_path)


def test_file_that_ends_early_is_named_when_it_is_read(tmp_path):
    write_tone(tmp_path / "clips" / "long.flac", seconds=3)
    whole = (tmp_path / "clips" / "long.flac").read_bytes()
    corpus = folder.load(write_common_voice(tmp_path, [("a", "long.flac", "long")]))
    (tmp_path / "clips" / "long.flac").write_bytes(whole[:100])
    with pytest.raises(audio.AudioError, match=r"long.flac: "):
        corpus.train[1].audio()


# From the command line.


@pytest.mark.parametrize("kind", ["librispeech", "folder"])
def test_command_trains_on_it_and_says_what_was_left_out(tmp_path, capsys, kind):
    data, out = tmp_path / "data", tmp_path / "out"
    if kind == "librispeech":
        lost = 1
        write_librispeech(data)
        next(data.rglob("19-198-0001.flac")).unlink()
    else:
        lost = 3  # one of each table
        write_common_voice(data, [("a", "lost.wav", "lost")])
    line = f"--corpus {kind} --data {data} --out {out} --cpu --channels 16 --blocks 2 "
    line += "--steps 2 --batch-size 2"
    main.main(main.parse_arguments(line.split()))
    printed = capsys.readouterr().out
    assert f"left out: {lost}, listed in {out / 'left-out.txt'}" in printed
    assert "no such file" in (out / "left-out.txt").read_text()
    assert "test of the best model" in printed
