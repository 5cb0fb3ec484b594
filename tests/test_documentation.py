# The code in README.md and in docs/alignment-and-decoding.md runs as it stands, and
# the links of every page lead somewhere.

import re
from collections import defaultdict
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest
import reference

from mlx_ctc import ctc_loss

ROOT = Path(__file__).parent.parent
README = ROOT / "README.md"
PAGE = ROOT / "docs" / "alignment-and-decoding.md"
SCORES_PAGE = ROOT / "docs" / "scores.md"

TEXTS = ["ab ba", "b a"]
ALPHABET = ["", " ", "a", "b"]


def pages():
    """Every Markdown file of the repository."""
    folders = [
        ROOT,
        *(ROOT / name for name in "docs benchmarks examples tests".split()),
    ]
    return sorted(
        {page for folder in folders for page in folder.glob("*.md")}
        | {page for folder in folders[1:] for page in folder.rglob("*.md")}
    )


def anchors(page):
    """What GitHub makes of a page's headings."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(), re.MULTILINE)
    words = (re.sub(r"[^\w\- ]", "", heading.lower()) for heading in headings)
    return {heading.replace(" ", "-") for heading in words}


@pytest.mark.parametrize("page", pages(), ids=lambda page: str(page.relative_to(ROOT)))
def test_links(page):
    text = re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)
    for link in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"https?:", link):
            continue
        path, _, anchor = link.partition("#")
        target = page.parent / path if path else page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


def blocks(page):
    return re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL)


def execute(code, namespace):
    exec(compile("\n".join(code), "documentation", "exec"), namespace)
    return namespace


@pytest.fixture
def given(rng):
    """What the pages take as given: a model's scores for two texts, and the sound."""
    targets = [[ALPHABET.index(letter) for letter in text] for text in TEXTS]
    logits = rng.normal(size=(24, 2, 4))
    for n, labels in enumerate(targets):
        for s, label in enumerate(labels):
            logits[4 * s : 4 * s + 3, n, label] += 9
            logits[4 * s + 3, n, 0] += 9
    return {
        "mx": mx,
        "np": np,
        "alphabet": ALPHABET,
        "logits": mx.array(logits, mx.float32),
        "log_probs": mx.array(reference.log_softmax(logits), mx.float32),
        "targets": [labels + [0] * (5 - len(labels)) for labels in targets],
        "input_lengths": [20, 12],
        "target_lengths": [5, 3],
        "waveform": rng.normal(size=8000),
        "sample_rate": 8000,
        "bigram": defaultdict(float),
        "bigram_rows": np.zeros((4, 4)),
    }


def letters(labels):
    return "".join(ALPHABET[c] for c in labels)


@pytest.mark.usefixtures("device")
def test_readme(given):
    page = execute(blocks(README), given)
    batch = [page[name] for name in "targets input_lengths target_lengths".split()]
    assert page["value"].item() == ctc_loss(page["log_probs"], *batch).item()
    assert letters(span.token for span in page["spans"]) == TEXTS[0]
    assert page["gamma"].shape == (2, 24, 6)
    assert page["lengths"].tolist() == [5, 3]
    assert [letters(found[0].labels) for found in page["results"]] == TEXTS


@pytest.mark.usefixtures("device")
def test_page_on_scores(rng, given):
    given["logits"] = mx.array(rng.normal(size=(24, 2, 4)), mx.float32)
    page = execute(blocks(SCORES_PAGE), given)
    logits = np.array(page["logits"], np.float64)
    log_prior = np.log(np.exp(reference.log_softmax(logits)).mean(axis=(0, 1)))
    lengths = page["target_lengths"]

    def loss(logits):
        scores = reference.log_softmax(logits) - 0.3 * log_prior
        batch = page["targets"], page["input_lengths"], lengths
        return reference.reduce(reference.ctc_loss(scores, *batch)[0], lengths, "mean")

    assert page["value"].item() == pytest.approx(loss(logits), rel=1e-6)
    for _ in range(5):
        move = 1e-4 * rng.normal(size=logits.shape)
        slope = (loss(logits + move) - loss(logits - move)) / 2
        product = (np.array(page["gradient"]) * move).sum()
        assert product == pytest.approx(slope, rel=1e-4, abs=1e-9)


@pytest.mark.usefixtures("device")
def test_page_on_alignment_and_decoding(given):
    plt = pytest.importorskip("matplotlib.pyplot")
    _, (given["above"], given["below"]) = plt.subplots(2)
    ours = [code for code in blocks(PAGE) if "mlx_ctc" in code or "import" not in code]
    page = execute(ours, given)
    plt.close("all")
    assert letters(span.token for span in page["spans"]) == TEXTS[0]
    assert letters(span.token for span in page["parts"]) == TEXTS[0][2:]
    assert np.isfinite(page["loss"].item())
    assert page["start"] == 0
    assert page["end"] == pytest.approx(3 / 20)  # of a second
    assert [word.text for word in page["words"]] == TEXTS[0].split()
    assert [line.text for line in page["lines"]] == [TEXTS[0]]
    assert page["gamma"].shape == (2, 24, 6)
    assert [text.get_text() for text in page["below"].texts] == list(TEXTS[0])
    assert page["texts"] == TEXTS
    assert page["confidence"].shape == (5,)
    assert 0.9 < page["confidence"].min().item() <= 1
    assert [letters(found[0].labels) for found in page["results"]] == TEXTS


@pytest.fixture
def language_model(tmp_path, monkeypatch):
    """A folder with a bigram of two words and their spelling."""
    monkeypatch.chdir(tmp_path)
    Path("words.arpa").write_text(
        "\\data\\\nngram 1=5\nngram 2=3\n\n"
        "\\1-grams:\n-1\t<unk>\n0\t<s>\t0\n-1\t</s>\n-1\tab\t0\n-1\tba\t0\n\n"
        "\\2-grams:\n-1\t<s> ab\n-1\tab ba\n-1\tba </s>\n\n\\end\\\n"
    )
    Path("lexicon.txt").write_text("ab a b |\nba b a |\n")


@pytest.mark.usefixtures("device", "language_model")
class TestOtherDecoders:
    """What the page shows of other libraries, where they are installed."""

    @staticmethod
    def block(library):
        return [code for code in blocks(PAGE) if f"from {library}" in code]

    def test_pyctcdecode(self, given):
        pytest.importorskip("pyctcdecode")
        pytest.importorskip("kenlm")
        assert execute(self.block("pyctcdecode"), given)["text"] == TEXTS[0]

    def test_flashlight(self, given):
        pytest.importorskip("flashlight.lib.text.decoder.kenlm")
        pytest.importorskip("torchaudio.models.decoder")
        given["torch"] = pytest.importorskip("torch")
        results = execute(self.block("torchaudio"), given)["results"]
        assert results[0][0].words == TEXTS[0].split()
