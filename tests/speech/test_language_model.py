# transcribe.py --lm --lexicon: only words of the lexicon, the likelier one where the
# sound leaves it open.

import re

import mlx.core as mx
import numpy as np
import pytest
import transcribe
from data import Alphabet
from language_model import LanguageModelError, WordDecoder, read_lexicon
from tones import write_text

pytest.importorskip("flashlight.lib.text.decoder.kenlm")

ALPHABET = Alphabet(" abc")

# ab is followed by ca, and ac by cb.
ARPA = r"""\data\
ngram 1=7
ngram 2=6

\1-grams:
-2	<unk>
-99	<s>	0
-1	</s>
-1	ab	0
-1	ac	0
-1	ca	0
-1	cb	0

\2-grams:
-0.3	<s> ab
-0.3	<s> ac
-0.1	ab ca
-0.1	ac cb
-0.1	ca </s>
-0.1	cb </s>

\end\
"""


@pytest.fixture
def model(tmp_path):
    path = tmp_path / "words.arpa"
    path.write_text(ARPA)
    return path


@pytest.fixture
def lexicon(tmp_path):
    path = tmp_path / "lexicon.txt"
    path.write_text("ab\nac\nca c a |\n\ncb\n")
    return path


def logits_of(text, second, share):
    """Frames that say ``text``, and with this probability ``second``."""
    rows = []
    for pair in zip(text, second, strict=True):
        first, other = (ALPHABET.labels[c] for c in pair)
        row = np.full(5, 1e-4)
        row[other] += share
        row[first] += 1 - share
        rows += [row, [0.9996, 1e-4, 1e-4, 1e-4, 1e-4]]
    return mx.log(mx.array(np.array(rows), mx.float32))


def test_model_decides_what_the_sound_leaves_open(model, lexicon):
    for said, heard, likelier in (
        ("ab ca ", "ab cb ", "ab ca"),
        ("ac cb ", "ac ca ", "ac cb"),
    ):
        logits = logits_of(heard, said, 0.45)
        assert WordDecoder(ALPHABET, model, lexicon)(logits) == likelier
        without = WordDecoder(ALPHABET, model, lexicon, weight=0.0)
        assert without(logits) == heard.strip()


def test_only_words_of_the_lexicon_are_written(model, lexicon):
    logits = logits_of("ab cc ", "ab ca ", 0.01)
    assert WordDecoder(ALPHABET, model, lexicon)(logits) == "ab ca"


def test_many_words_cost_their_score(model, lexicon):
    logits = logits_of("ab ca ", "ab cb ", 0.3)
    few = WordDecoder(ALPHABET, model, lexicon, word_score=-50.0)(logits)
    assert len(few.split()) <= 1


def test_spelling_is_that_of_the_word_or_of_its_line(lexicon):
    expected = {word: [[*word, "|"]] for word in ("ab", "ac", "ca", "cb")}
    assert read_lexicon(lexicon, ALPHABET) == expected
    assert read_lexicon(lexicon, Alphabet("abc|"))["ab"] == [["a", "b", "|"]]


def test_tool_uses_it(saved, model, lexicon, rng, tmp_path, capsys):
    files = [
        write_text(tmp_path / f"{text}.wav", text, rng)
        for text in ("ab ca", "ac cb", "cb")
    ]
    options = ["--lm", str(model), "--lexicon", str(lexicon)]
    args = transcribe.parse_arguments([*map(str, files), *options])
    assert transcribe.main(args) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split("\t")[1] for line in lines] == ["ab ca", "ac cb", "cb"]


@pytest.mark.parametrize(
    ("content", "reason"),
    [("ab\nabx\n", "line 2: the recogniser does not write 'x'"), ("\n", "no words")],
)
def test_lexicon_that_cannot_be_used_is_named(lexicon, content, reason):
    lexicon.write_text(content)
    with pytest.raises(LanguageModelError, match=rf"lexicon\.txt.* {reason}"):
        read_lexicon(lexicon, ALPHABET)


def test_model_that_cannot_be_used_is_named(lexicon, tmp_path):
    with pytest.raises(LanguageModelError, match=r"none\.arpa: no such file"):
        WordDecoder(ALPHABET, tmp_path / "none.arpa", lexicon)
    bad = tmp_path / "bad.arpa"
    bad.write_text("no model")
    with pytest.raises(LanguageModelError, match=r"bad\.arpa: "):
        WordDecoder(ALPHABET, bad, lexicon)


def test_model_and_lexicon_go_together(capsys):
    with pytest.raises(SystemExit):
        transcribe.parse_arguments(["x.wav", "--lm", "words.arpa"])
    assert re.search("--lm and --lexicon go together", capsys.readouterr().err)


def test_missing_files_end_the_tool_in_one_line(saved, model, tmp_path):
    for lm, lexicon in ((tmp_path / "no", model), (model, tmp_path / "no")):
        args = transcribe.parse_arguments(
            ["x.wav", "--lm", str(lm), "--lexicon", str(lexicon)]
        )
        with pytest.raises(SystemExit, match="no"):
            transcribe.main(args)
