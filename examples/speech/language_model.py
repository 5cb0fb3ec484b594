# Decoding with a lexicon and a language model of words, by flashlight-text: a beam
# search that spells words of the lexicon only, and asks KenLM how likely each is.
# Letters: T frames, C classes.

from pathlib import Path

import mlx.core as mx
import numpy as np
from data import Alphabet

BLANK = "<blank>"
SPACE = "|"  # in a lexicon, whose spellings are divided by spaces


class LanguageModelError(ValueError):
    """A lexicon or a model that cannot be used, in one line."""


def read_lexicon(path: Path, alphabet: Alphabet) -> dict[str, list[list[str]]]:
    """The spellings of each word, from lines of a word and its characters, or of a word
    alone, which is then spelled as it is written. Both end with the space, if the
    alphabet has one."""
    known = {SPACE if c == " " else c for c in alphabet.characters}
    end = [SPACE] if SPACE in known else []
    lexicon: dict[str, list[list[str]]] = {}
    for number, line in enumerate(path.read_text().splitlines(), 1):
        if not line.strip():
            continue
        word, *spelling = line.split()
        spelling = spelling or [*word, *end]
        if other := set(spelling) - known:
            raise LanguageModelError(
                f"{path}, line {number}: the recogniser does not write "
                f"{''.join(sorted(other))!r}"
            )
        lexicon.setdefault(word, []).append(spelling)
    if not lexicon:
        raise LanguageModelError(f"{path}: there are no words")
    return lexicon


class WordDecoder:
    """Text of words, from log-probabilities of characters."""

    def __init__(
        self,
        alphabet: Alphabet,
        model: Path,
        lexicon: Path,
        beam_width: int = 100,
        weight: float = 1.0,
        word_score: float = 0.0,
    ):
        """``weight`` is that of the model's log-probability, in which KenLM counts in
        tens; ``word_score`` is added for each word. Raises a ``LanguageModelError``."""
        try:
            from flashlight.lib.text import decoder, dictionary
            from flashlight.lib.text.decoder.kenlm import KenLM
        except ImportError as error:
            raise LanguageModelError(
                "a language model needs flashlight-text: pip install flashlight-text"
            ) from error
        if not model.is_file():
            raise LanguageModelError(f"{model}: no such file")
        words = read_lexicon(lexicon, alphabet)
        classes = [BLANK, *(SPACE if c == " " else c for c in alphabet.characters)]
        tokens = dictionary.Dictionary(classes)
        unknown = "<unk>"
        self.words = dictionary.Dictionary([*words, unknown])
        self.words.set_default_index(self.words.get_index(unknown))
        try:
            language_model = KenLM(str(model), self.words)
        except RuntimeError as error:
            raise LanguageModelError(f"{model}: {error}") from error

        silence = tokens.get_index(SPACE if SPACE in classes else BLANK)
        trie = decoder.Trie(tokens.index_size(), silence)
        start = language_model.start(False)
        for word, spellings in words.items():
            index = self.words.get_index(word)
            _, score = language_model.score(start, index)
            for spelling in spellings:
                trie.insert([tokens.get_index(c) for c in spelling], index, score)
        trie.smear(decoder.SmearingMode.MAX)
        options = decoder.LexiconDecoderOptions(
            beam_size=beam_width,
            beam_size_token=len(classes),
            beam_threshold=50.0,
            lm_weight=weight,
            word_score=word_score,
            unk_score=-np.inf,
            sil_score=0.0,
            log_add=True,
            criterion_type=decoder.CriterionType.CTC,
        )
        self.decoder = decoder.LexiconDecoder(
            options,
            trie,
            language_model,
            silence,
            tokens.get_index(BLANK),
            self.words.get_index(unknown),
            [],
            False,
        )

    def __call__(self, logits: mx.array) -> str:
        """What logits (T, C) say; nothing if no words fit."""
        log_probs = logits - mx.logsumexp(logits, axis=-1, keepdims=True)
        x = np.array(log_probs.astype(mx.float32), order="C")
        found = self.decoder.decode(x.ctypes.data, *x.shape)
        if not found:
            return ""
        return " ".join(self.words.get_entry(w) for w in found[0].words if w >= 0)
