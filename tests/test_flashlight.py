# Beam search and alignment against flashlight's decoder, which torchaudio's is too.
#
# The one test of its own with numbers decodes with the ASG criterion, which has no
# blank, over a lexicon and a language model of 3.7 MB. So it decodes CTC here, without
# a lexicon: with a beam wide enough both keep every labelling.

import mlx.core as mx
import numpy as np
import pytest
import reference

from mlx_ctc import beam_search_decode, forced_align

decoder = pytest.importorskip("flashlight.lib.text.decoder")

WIDE = 100_000


def log_probs(rng, T, C):
    return reference.log_softmax(2 * rng.normal(size=(T, C))).astype(np.float32)


def flashlight_decode(x, blank, model=None, weight=0.0, log_add=True):
    """Flashlight's (path, score) of each labelling, the best first."""
    T, C = x.shape
    options = decoder.LexiconFreeDecoderOptions(
        beam_size=WIDE,
        beam_size_token=C,
        beam_threshold=np.inf,
        lm_weight=weight,
        sil_score=0,
        log_add=log_add,
        criterion_type=decoder.CriterionType.CTC,
    )
    silence = C  # no class
    search = decoder.LexiconFreeDecoder(
        options, model or decoder.ZeroLM(), silence, blank, []
    )
    # Each path stands between two silences.
    return [
        (result.tokens[1:-1], result.score)
        for result in search.decode(x.ctypes.data, T, C)
    ]


def assert_same_labellings(ours, theirs, blank, rel=1e-12):
    assert len(ours) == len(theirs)
    for (labels, score), (path, expected) in zip(ours, theirs, strict=True):
        assert labels == reference.collapse(path, blank)
        assert score == pytest.approx(expected, rel)


@pytest.mark.parametrize("blank", [0, 2])
@pytest.mark.parametrize(("T", "C"), [(1, 3), (8, 4), (5, 7)])
def test_all_labellings_and_their_scores(rng, T, C, blank):
    x = log_probs(rng, T, C)
    found = beam_search_decode(mx.array(x), T, WIDE, blank, nbest=WIDE)
    assert_same_labellings(found, flashlight_decode(x, blank), blank)


def test_language_model(rng):
    T, C, weight = 6, 4, 0.7
    x = log_probs(rng, T, C)
    # bigram[a, b]: log-probability of b after a, with the blank for both ends.
    bigram = reference.log_softmax(rng.normal(size=(C, C)))

    class Bigram(decoder.LM):
        def __init__(self):
            super().__init__()
            self.last = {}

        def follow(self, state, label):
            following = state.child(label)
            self.last[following] = label
            return following, bigram[self.last[state], label]

        def start(self, _):
            state = decoder.LMState()
            self.last[state] = 0
            return state

        def score(self, state, label):
            return self.follow(state, label)

        def finish(self, state):
            return self.follow(state, 0)

    def scorer(prefix, label):
        return weight * bigram[prefix[-1] if prefix else 0, label or 0]

    found = beam_search_decode(mx.array(x), T, WIDE, nbest=WIDE, scorer=scorer)
    theirs = flashlight_decode(x, 0, Bigram(), weight)
    # Its language model's scores are in float32.
    assert_same_labellings(found, theirs, 0, rel=1e-6)


def test_best_path_of_each_labelling(rng):
    T = 8
    x = log_probs(rng, T, 4)
    for path, score in flashlight_decode(x, 0, log_add=False)[:200]:
        labels = reference.collapse(path, 0)
        aligned, scores = forced_align(mx.array(x), labels, T, len(labels))
        assert aligned.tolist() == path
        assert scores.sum().item() == pytest.approx(score, rel=1e-6)
