# The Python code of every page runs as it stands, the page says of any other code what
# runs it or why nothing does, and its links lead somewhere.

import doctest
import inspect
import re
from collections import defaultdict
from pathlib import Path
from typing import NamedTuple

import mlx.core as mx
import numpy as np
import pytest
import reference

import mlx_ctc
from mlx_ctc import ctc_loss, greedy_decode
from mlx_ctc.functional import REDUCTIONS

ROOT = Path(__file__).parent.parent
ALIGNMENT_PAGE = ROOT / "docs" / "alignment-and-decoding.md"

# Pages whose Python is run by a test of its own.
RUN_BY = {
    "docs/fine-tuning.md": "tests/test_fine_tuning.py",
    "docs/from-pytorch.md": "tests/test_from_pytorch.py",
    "examples/speech/README.md": "tests/speech/test_recogniser.py",
}

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


def name_of(page):
    return page.relative_to(ROOT).as_posix()


def anchors(page):
    """What GitHub makes of a page's headings."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(), re.MULTILINE)
    words = (re.sub(r"[^\w\- ]", "", heading.lower()) for heading in headings)
    return {heading.replace(" ", "-") for heading in words}


@pytest.mark.parametrize("page", pages(), ids=name_of)
def test_links(page):
    text = re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)
    for link in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"https?:", link):
            continue
        path, _, anchor = link.partition("#")
        target = page.parent / path if path else page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


class Block(NamedTuple):
    """Code of a page in a language, and the comment in the line before it."""

    mark: str
    language: str
    code: str


def blocks(page):
    """The blocks of a page that name a language; others are output or drawings."""
    block = r"^(?:<!-- ([^\n]*) -->\n)?```(\w+)\n(.*?)^```$"
    found = re.findall(block, page.read_text(), re.DOTALL | re.MULTILINE)
    return [Block(*groups) for groups in found]


HERE = "run by tests/test_documentation.py"


def mark_of(page, block):
    """What runs a block, or why nothing does."""
    if block.mark or block.language not in ("python", "pycon"):
        return block.mark
    return f"run by {RUN_BY[name_of(page)]}" if name_of(page) in RUN_BY else HERE


def runs_here(page):
    """The blocks that test_code executes."""
    return [block for block in blocks(page) if mark_of(page, block) == HERE]


@pytest.mark.parametrize("page", pages(), ids=name_of)
def test_blocks_are_written_so_that_they_are_found(page):
    for fence in re.findall(r"^\s*(?:```|~~~).*", page.read_text(), re.MULTILINE):
        assert re.fullmatch(r"\n*```(\w+|\{[\w-]+\})?", fence), fence


@pytest.mark.parametrize("page", list(filter(blocks, pages())), ids=name_of)
def test_every_block_is_run_or_says_why_not(page):
    for block in blocks(page):
        mark = mark_of(page, block)
        by = re.match(r"run by ([\w./-]+)", mark)
        assert (by and (ROOT / by[1]).is_file()) or re.match(r"not run: \w+", mark), (
            f"{name_of(page)} has code that nothing runs, without the line "
            f"<!-- not run: why --> before it:\n{block.code}"
        )


@pytest.mark.parametrize("page", RUN_BY)
def test_the_test_of_a_page_reads_it(page):
    assert Path(page).name in (ROOT / RUN_BY[page]).read_text()


@pytest.mark.parametrize("page", list(filter(blocks, pages())), ids=name_of)
def test_commands_name_files_that_exist(page):
    for block in blocks(page):
        if block.language == "sh":
            for path in re.findall(
                r"(?<![\w/.-])(?:\.ci|benchmarks|examples|packaging|tests)/[\w/.-]+",
                block.code,
            ):
                assert (ROOT / path).exists(), path


def test_every_public_name_is_in_the_reference():
    page = (ROOT / "docs" / "api.md").read_text()
    documented = re.findall(
        r"^\.\. auto(?:function|class):: (\w+)$", page, re.MULTILINE
    )
    assert set(mlx_ctc.__all__) - {"nn"} <= set(documented)


def test_pages_name_every_function():
    functions = {
        name: inspect.signature(function).parameters
        for name in mlx_ctc.__all__
        if inspect.isfunction(function := getattr(mlx_ctc, name))
    }
    of_batches = {name for name in functions if "input_lengths" in functions[name]}
    for page, names in (
        ("batches.md", of_batches),
        ("alignment-and-decoding.md", functions.keys() - {"ctc_loss"}),
    ):
        text = (ROOT / "docs" / page).read_text()
        assert [name for name in names if f"`{name}`" not in text] == []


@pytest.mark.parametrize(
    "text",
    [
        (ROOT / "docs" / "batches.md").read_text().replace('"', "'"),
        mlx_ctc.ctc_loss.__doc__,
        mlx_ctc.nn.CTCLoss.__doc__,
    ],
    ids=["batches.md", "ctc_loss", "CTCLoss"],
)
def test_every_reduction_is_described(text):
    assert [name for name in REDUCTIONS if f"`'{name}'" not in text] == []


def execute(code, namespace):
    """Run blocks one after the other; those with >>> print what the page shows."""
    for block in code:
        if block.language == "pycon":
            examples = doctest.DocTestParser().get_doctest(block.code, {}, "", None, 0)
            examples.globs = namespace
            result = doctest.DocTestRunner().run(examples, clear_globs=False)
            assert result.failed == 0
            assert result.attempted > 0
        else:
            exec(compile(block.code, "documentation", "exec"), namespace)
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


@pytest.fixture
def of_other_libraries(given):
    """What the page on batches takes as given: scores with the batch first."""
    targets = np.array(given["targets"])
    logits = np.array(given["logits"]).swapaxes(0, 1)
    padding = np.arange(5) >= np.reshape(given["target_lengths"], (2, 1))
    past = np.arange(24) >= np.reshape(given["input_lengths"], (2, 1))
    return {
        **given,
        "logits": mx.array(logits),
        # NeMo's blank is the last class.
        "log_probs": mx.roll(mx.array(reference.log_softmax(logits)), -1, axis=2),
        # mlx-tune has the frames first.
        "log_probs_tbv": given["log_probs"],
        "targets": mx.array(targets),
        "enc_lengths_i32": mx.array(given["input_lengths"]),
        "blank": 0,
        "transcript": mx.array(targets - 1),
        "encoded_len": given["input_lengths"],
        "transcript_len": given["target_lengths"],
        "labels": mx.array(np.where(padding, -100, targets)),
        "pad_token_id": 0,
        "y_pred": mx.array(logits),
        "y_true": mx.array(np.where(padding, 0, targets)),
        "logit_paddings": mx.array(past, mx.float32),
        "label_paddings": mx.array(padding, mx.float32),
    }


def letters(labels):
    return "".join(ALPHABET[c] for c in labels)


def check_readme(page):
    batch = [page[name] for name in "targets input_lengths target_lengths".split()]
    assert page["value"].item() == ctc_loss(page["log_probs"], *batch).item()
    assert letters(span.token for span in page["spans"]) == TEXTS[0]
    assert page["gamma"].shape == (2, 24, 6)
    assert page["lengths"].tolist() == [5, 3]
    assert [letters(found[0].labels) for found in page["results"]] == TEXTS


def check_ocr(page):
    model, ink, widths = page["model"], page["ink"], page["widths"]
    logits, lengths = page["logits"], page["lengths"]
    assert logits.shape == (2, 26, 28)
    assert lengths.tolist() == [26, 15]
    assert np.isfinite(page["loss"].item())
    # What is in the padding would be seen.
    ink = mx.where(mx.arange(104) < widths[:, None, None], ink, 0)
    together = np.array(model(ink, widths)[0])
    alone = np.array(model(ink[1:, :, :60], widths[1:])[0])
    tolerance = 1e-5 if mx.default_device() == mx.cpu else 1e-2  # may be TF32
    np.testing.assert_allclose(together[1:, :15], alone, rtol=0, atol=tolerance)
    frames = mx.arange(12).reshape(2, 6, 1)
    backwards = page["reverse"](frames, mx.array([6, 4]))[..., 0]
    assert backwards.tolist() == [[5, 4, 3, 2, 1, 0], [9, 8, 7, 6, 10, 11]]
    assert page["frames_needed"](page["targets"][1]) == len("balloon") + 2
    assert len(page["read"]) == len(page["searched"]) == 2
    assert [span.token for span in page["spans"]] == page["targets"][0]
    assert page["columns"][-1][1] <= 104


def check_scores(page):
    logits = np.array(page["logits"], np.float64)
    log_prior = np.log(np.exp(reference.log_softmax(logits)).mean(axis=(0, 1)))
    lengths = page["target_lengths"]

    def loss(logits):
        scores = reference.log_softmax(logits) - 0.3 * log_prior
        batch = page["targets"], page["input_lengths"], lengths
        return reference.reduce(reference.ctc_loss(scores, *batch)[0], lengths, "mean")

    assert page["value"].item() == pytest.approx(loss(logits), rel=1e-6)
    rng = np.random.default_rng(0)
    for _ in range(5):
        move = 1e-4 * rng.normal(size=logits.shape)
        slope = (loss(logits + move) - loss(logits - move)) / 2
        product = (np.array(page["gradient"]) * move).sum()
        assert product == pytest.approx(slope, rel=1e-4, abs=1e-9)


def check_batches(page):
    logits = np.array(page["logits"], np.float64).swapaxes(0, 1)
    targets, S = np.array(page["targets"]), np.array(page["target_lengths"])

    def losses(frames):
        return reference.ctc_loss(reference.log_softmax(logits), targets, frames, S)[0]

    expected = losses(page["input_lengths"])
    for name in "value masked padded ragged".split():
        assert page[name].item() == pytest.approx(np.mean(expected / S), rel=1e-6)
    assert page["lengths"].tolist() == [5, 3]
    assert page["wav2vec2"].item() == pytest.approx(expected.sum(), rel=1e-6)
    # The log-probabilities are rounded, of a loss below 0.01.
    assert page["nemo"].item() == pytest.approx(expected.mean(), rel=1e-4)
    assert page["mlx_tune"].item() == pytest.approx(expected.mean(), rel=1e-4)
    assert page["keras"].item() == pytest.approx(losses([24, 24]).mean(), rel=1e-6)
    np.testing.assert_allclose(page["optax"], expected, rtol=1e-6)


def check_alignment(page):
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


def check_troubleshooting(page):
    too_low, good, too_high = (page["results"][rate] for rate in (0.001, 0.01, 0.1))
    loss, blank, right = range(3)
    assert too_low[right] == too_high[right] == 0
    assert too_low[loss] > 0.3
    assert too_high[loss] > 1
    assert too_high[blank] > 0.8
    assert good[loss] < 0.1
    assert good[right] > 0.8
    check_compiled_functions(page)


def check_compiled_functions(page):
    rng = np.random.default_rng(0)
    inputs, weights = rng.normal(size=(6, 2, 3)), rng.normal(size=(3, 3))
    states = np.zeros((2, 3))
    for t, n in [(0, 0), (1, 0), (2, 0), (3, 0), (0, 1)]:
        states[n] = np.tanh(states[n] @ weights + inputs[t, n])
    arrays = [mx.array(array, mx.float32) for array in (inputs, weights)]
    found = page["last_states"](arrays[0], mx.array([4, 1]), arrays[1])
    np.testing.assert_allclose(found, states, atol=1e-2)  # may be TF32
    product = page["scaled"](arrays[0][0], arrays[1][0])
    np.testing.assert_allclose(product, inputs[0] * np.exp(weights[0]), rtol=1e-5)


def in_chunks(page, recording, context, rng):
    """Scores and labels by the classes of the page, for chunks of random sizes."""
    listen, decode = (
        page["ChunkedModel"](page["model"], context, 2),
        page["GreedyStream"](),
    )
    scores, heard, start = [], [], 0
    while start < len(recording):
        end = start + int(rng.integers(0, 40))
        scores.append(listen(recording[start:end], last=end >= len(recording)))
        heard += decode(scores[-1])
        start = end
    return np.array(mx.concatenate(scores)), heard


def check_streaming(page):
    rng = np.random.default_rng(0)
    tolerance = 1e-5 if mx.default_device() == mx.cpu else 1e-2  # may be TF32
    for frames in [1, 2, 7, *rng.integers(20, 200, 30).tolist()]:
        recording = mx.array(rng.normal(size=(frames, page["F"])), mx.float32)
        whole = np.array(page["model"](recording[None])[0])
        scores, heard = in_chunks(page, recording, 5, rng)
        np.testing.assert_allclose(scores, whole, rtol=0, atol=tolerance)
        labels, count, _, begins, _ = greedy_decode(
            scores, len(scores), with_logits=True, with_frames=True
        )
        pairs = zip(labels.tolist(), begins.tolist(), strict=True)
        assert heard == list(pairs)[: count.item()]
    # With a context that is one frame too short, the scores are others.
    scores, _ = in_chunks(page, recording, 4, rng)
    assert abs(scores - whole).max() > 2 * tolerance
    pause = mx.array([[0.0, 1.0]] + 3 * [[1.0, 0.0]])
    assert [page["ends_with_pause"](pause, n) for n in (3, 4, 5)] == [
        True,
        False,
        False,
    ]


# What the code of a page leaves behind.
CHECKS = {
    "README.md": check_readme,
    "docs/alignment-and-decoding.md": check_alignment,
    "docs/batches.md": check_batches,
    "docs/ocr.md": check_ocr,
    "docs/scores.md": check_scores,
    "docs/streaming.md": check_streaming,
    "docs/troubleshooting.md": check_troubleshooting,
}

# The fixtures with a batch of a model's scores, of pages whose code begins with one.
BATCHES = {
    "README.md": "given",
    "docs/alignment-and-decoding.md": "given",
    "docs/batches.md": "of_other_libraries",
    "docs/scores.md": "given",
}


@pytest.mark.usefixtures("device")
@pytest.mark.parametrize("page", list(filter(runs_here, pages())), ids=name_of)
def test_code(page, request):
    code, check = runs_here(page), CHECKS.get(name_of(page))
    batch = BATCHES.get(name_of(page))
    namespace = request.getfixturevalue(batch) if batch else {}
    if any("mlx_ctc.plot" in block.code for block in code):
        plt = pytest.importorskip("matplotlib.pyplot")
        request.addfinalizer(lambda: plt.close("all"))
        _, (namespace["above"], namespace["below"]) = plt.subplots(2)
    execute(code, namespace)
    if check:
        check(namespace)


@pytest.mark.usefixtures("device")
def test_the_loop_from_pytorch_learns_without_torch(rng, tmp_path, monkeypatch):
    """The half of MLX and the errors, from random weights in place of torch's."""
    monkeypatch.chdir(tmp_path)
    shapes = {
        "conv.weight": (32, 8, 5),
        "conv.bias": 32,
        "out.weight": (6, 32),
        "out.bias": 6,
    }
    weights = {
        name: rng.normal(0, 0.1, shape).astype(np.float32)
        for name, shape in shapes.items()
    }
    np.savez("net.npz", **weights)
    page = blocks(ROOT / "docs" / "from-pytorch.md")
    namespace = execute([block for block in page if "# torch" not in block.code], {})
    losses = namespace["losses"]
    assert losses[-1] < 0.25 * losses[0]


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
        return [
            block for block in blocks(ALIGNMENT_PAGE) if f"from {library}" in block.code
        ]

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
