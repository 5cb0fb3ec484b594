# transcribe.py and align.py do what they say, and name what they cannot use.

import json
import shutil
import subprocess
import sys

import align
import captions
import matplotlib.image
import numpy as np
import pytest
import soundfile
import transcribe
from data import Alphabet
from praatio import textgrid
from recogniser import Alignment, Recogniser
from tones import RATE, place, tones, write_text

from mlx_ctc import TokenSpan, merge_words


@pytest.fixture
def recording(rng, tmp_path):
    """A function that writes a text as tones to a file of some rate and format."""

    def record(text, name="tones.wav", **options):
        return write_text(tmp_path / name, text, rng, **options)

    return record


def run(tool, *argv):
    return tool.main(tool.parse_arguments([str(argument) for argument in argv]))


def remove(folder):
    shutil.rmtree(folder)


def spoil_weights(folder):
    (folder / "model.safetensors").write_bytes(b"not safetensors")


def spoil_settings(folder):
    (folder / "recogniser.json").write_text("[1]")


def spoil_shape(folder):
    settings = json.loads((folder / "recogniser.json").read_text())
    settings["model"]["channels"] = 17
    (folder / "recogniser.json").write_text(json.dumps(settings))


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (remove, "no recogniser is saved there"),
        (spoil_weights, "damaged or another version's"),
        (spoil_settings, "damaged or another version's"),
        (spoil_shape, "damaged or another version's"),
    ],
)
def test_folder_without_a_model_is_named(saved, recording, spoil, reason):
    file = recording("a")
    spoil(saved)
    for arguments in ((transcribe, file), (align, file, "a")):
        with pytest.raises(SystemExit, match=f"tones: .*{reason}$"):
            run(*arguments, "--model", saved)


def test_no_model_yet_says_what_makes_one(recording, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "empty"))
    for arguments in ((transcribe, recording("a")), (align, recording("a"), "a")):
        with pytest.raises(SystemExit, match=r"no model in .* yet: main\.py trains"):
            run(*arguments)


@pytest.mark.parametrize("beam", [[], ["--beam", "10"]])
def test_transcribes_any_format_rate_and_number_of_channels(
    saved, recording, capsys, beam
):
    files = [
        recording("ab c", "x.wav"),
        recording("ca", "x.flac", rate=44100, channels=2),
        recording("bab aa", "x.mp3", rate=24000),
        recording("c cab", "x.ogg", rate=48000, channels=3),
    ]
    assert run(transcribe, *files, *beam) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines == [
        f"{file}\t{text}"
        for file, text in zip(files, ["ab c", "ca", "bab aa", "c cab"], strict=True)
    ]


def test_files_that_are_no_recordings_are_named_and_passed_over(
    saved, recording, tmp_path, capsys
):
    text, empty, nan = (tmp_path / name for name in ("a.wav", "b.wav", "c.wav"))
    text.write_text("Nothing is to be heard here.")
    soundfile.write(empty, np.zeros(0), RATE)
    soundfile.write(nan, np.full(4000, np.nan), RATE, subtype="FLOAT")
    good = recording("abc")
    assert run(transcribe, text, tmp_path / "none.wav", empty, nan, good) == 1
    output = capsys.readouterr()
    assert output.out == f"{good}\tabc\n"
    reasons = ["unreadable", "no such file", "no samples", "not numbers"]
    lines = output.err.splitlines()
    assert len(lines) == len(reasons)
    files = [text, "none.wav", empty, nan]
    for file, reason, line in zip(files, reasons, lines, strict=True):
        assert str(file) in line
        assert reason in line


def test_beam_width_must_be_positive(capsys):
    with pytest.raises(SystemExit):
        run(transcribe, "x.wav", "--beam", "0")
    assert "argument --beam: 0 is less than 1" in capsys.readouterr().err


def test_words_are_aligned_where_they_are_said(saved, recording, capsys):
    run(align, recording("ab c bca"), "Ab  C, bca!")
    header, *rows = capsys.readouterr().out.splitlines()
    assert header.split() == ["start", "s", "end", "s", "score", "word"]
    assert [row.split()[3] for row in rows] == ["ab", "c", "bca"]
    for row, (first, last) in zip(rows, [(0, 1), (3, 3), (5, 7)], strict=True):
        start, end, score = map(float, row.split()[:3])
        assert place(first)[0] <= start + 0.02 < place(first)[1]
        assert place(last)[0] < end - 0.02 <= place(last)[1]
        assert 0.5 < score <= 1


def test_without_spaces_each_character_is_a_word(recogniser, rng):
    digits = Recogniser(recogniser.model, Alphabet("_abc"), recogniser.features)
    alignment = digits.align(recogniser.listen(tones("cab", rng)), "c ab")
    assert [word.text for word in alignment.words] == ["c", "a", "b"]
    assert [word.parts[0] for word in alignment.words] == alignment.characters


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("abx, cy", r"the recogniser writes ' abc', not 'xy'"),
        ("  ", r"there is no text"),
        ("ab cc " * 20, r"a text of 119 characters takes 2\.78 s or more, .* 0\.34 s"),
    ],
)
def test_text_that_cannot_be_aligned_is_refused_by_name(
    saved, recording, text, message
):
    with pytest.raises(SystemExit, match=rf"tones\.wav: {message}$"):
        run(align, recording("ab"), text)


def test_alignment_of_no_recording_is_refused_by_name(saved, tmp_path):
    with pytest.raises(SystemExit, match=r"none\.wav: no such file$"):
        run(align, tmp_path / "none.wav", "a")


def test_tools_end_without_a_traceback(saved, tmp_path):
    for tool in (transcribe, align):
        command = [sys.executable, tool.__file__, str(tmp_path / "none.wav"), "a"]
        run = subprocess.run(command, capture_output=True, text=True, check=False)
        assert run.returncode == 1
        assert "none.wav: no such file" in run.stderr
        assert "Traceback" not in run.stderr


def test_alignment_is_drawn(saved, recording, tmp_path, capsys):
    picture = tmp_path / "alignment.png"
    run(align, recording("ab c bca"), "ab c bca", "--plot", picture)
    assert matplotlib.image.imread(picture).shape[:2] == (700, 800)


@pytest.fixture
def alignment():
    """Of two words 0.04 to 0.16 s, and after a pause one from 1.6 s."""
    characters = [
        TokenSpan(2, 2, 3, 0.5, 0.5),
        TokenSpan(3, 4, 5, 0.75, 0.75),
        TokenSpan(1, 5, 6, 1.0, 1.0),
        TokenSpan(4, 6, 8, 1.0, 1.0),
        TokenSpan(1, 70, 72, 1.0, 1.0),
        TokenSpan(2, 80, 90, 0.25, 0.125),
    ]
    names = dict(enumerate("_ <&{"))
    words = merge_words(characters, names, separator=" ")
    return Alignment("<& { <", characters, words, 100, 0.02)


def test_textgrid_has_words_and_characters(alignment, tmp_path):
    path = tmp_path / "x.TextGrid"
    captions.save(alignment, path)
    grid = textgrid.openTextgrid(str(path), includeEmptyIntervals=False)
    assert grid.tierNames == ("words", "characters")
    assert grid.maxTimestamp == 2
    times = [[0.04, 0.1, "<&"], [0.12, 0.16, "{"], [1.6, 1.8, "<"]]
    found = [list(entry) for entry in grid.getTier("words").entries]
    assert found == times
    letters = [entry.label for entry in grid.getTier("characters").entries]
    assert letters == ["<", "&", "{", "<"]


def test_subtitles_are_divided_at_pauses(alignment, tmp_path):
    captions.save(alignment, tmp_path / "x.srt")
    assert (tmp_path / "x.srt").read_text().strip().split("\n\n") == [
        "1\n00:00:00,040 --> 00:00:00,160\n<& {",
        "2\n00:00:01,600 --> 00:00:01,800\n<",
    ]
    captions.save(alignment, tmp_path / "x.vtt")
    assert (tmp_path / "x.vtt").read_text().strip().split("\n\n") == [
        "WEBVTT",
        "1\n00:00:00.040 --> 00:00:00.160\n&lt;&amp; {",
        "2\n00:00:01.600 --> 00:00:01.800\n&lt;",
    ]


def test_json_has_segments_words_and_scores(alignment, tmp_path):
    captions.save(alignment, tmp_path / "x.json")
    content = json.loads((tmp_path / "x.json").read_text())
    assert (content["text"], content["duration"]) == ("<& { <", 2.0)
    assert [part["text"] for part in content["segments"]] == ["<& {", "<"]
    [first, second] = content["segments"][0]["words"]
    expected = {"start": 0.04, "end": 0.1, "score": 0.625, "least": 0.5}
    assert first == {"text": "<&", **expected}
    assert second["score"] == 1.0
    assert content["segments"][1]["least"] == 0.125


def test_alignment_is_written_in_every_format(saved, recording, tmp_path, capsys):
    files = [tmp_path / f"x{suffix}" for suffix in captions.WRITERS]
    run(align, recording("ab c bca"), "ab c bca", "--out", *files)
    for file in files:
        assert "bca" in file.read_text()


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("x.doc", r"expected a name that ends in \.textgrid, \.srt, \.vtt, \.json"),
        ("no/x.srt", "No such file or directory"),
        ("no/x.TextGrid", "No such file or directory"),
    ],
)
def test_file_that_cannot_be_written_is_named(
    saved, recording, tmp_path, capsys, name, reason
):
    with pytest.raises(SystemExit, match=f"{name}: .*{reason}"):
        run(align, recording("a"), "a", "--out", tmp_path / name)


def test_picture_that_cannot_be_written_is_named(saved, recording, tmp_path, capsys):
    for name in ("no/folder.png", "picture.unknown"):
        with pytest.raises(SystemExit, match=name):
            run(align, recording("a"), "a", "--plot", tmp_path / name)
