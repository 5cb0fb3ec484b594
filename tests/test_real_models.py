# Scores of trained models, which are surer than any random ones: a recogniser of text
# lines (rapidocr-onnxruntime, probabilities of 6625 classes) and two of captchas
# (ddddocr, logits of 8210 classes). CONTRIBUTING.md says how to install them. With
# MLX_CTC_MODEL_SCORES, a folder, their scores are written there, and read where they
# lie there already: on a GPU machine without these packages, for example.

import os
import warnings
from importlib.util import find_spec
from itertools import groupby
from pathlib import Path

import exact
import mlx.core as mx
import numpy as np
import pytest
import reference
from problems import (
    Problem,
    assert_alignment_is_best,
    assert_gradient_close,
    to_numpy,
)

from mlx_ctc import ctc_loss, forced_align, greedy_decode, merge_tokens

pytestmark = pytest.mark.usefixtures("device")

LINES = [
    "Connectionist temporal",
    "labelling of sequences",
    "aabbcc 11223344 mm xx",
    "Graves et al. ICML 2006",
]
CAPTCHAS = ["8a3kz", "mm7xx", "q0o9", "W2Wv"]
DTYPES = {"float32": mx.float32, "float16": mx.float16, "bfloat16": mx.bfloat16}


def picture(text, height, width):
    """Black on white, from -1 to 1."""
    from PIL import Image, ImageDraw, ImageFont

    image = Image.new("L", (width, height), 255)
    font = ImageFont.load_default(0.6 * height)
    ImageDraw.Draw(image).text((8, height // 8), text, fill=0, font=font)
    return np.asarray(image, np.float32) / 127.5 - 1


def session(package, path):
    for needed in package, "onnxruntime", "PIL":
        if find_spec(needed) is None:
            pytest.skip(f"{needed} is not installed")
    import onnxruntime

    folder = Path(find_spec(package).submodule_search_locations[0])
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # the captcha models' outputs have other shapes
    return onnxruntime.InferenceSession(str(folder / path), options)


def line_scores():
    """Log-probabilities (T, N, C)."""
    model = session("rapidocr_onnxruntime", "models/ch_PP-OCRv4_rec_infer.onnx")
    pictures = np.stack([picture(text, 48, 320) for text in LINES])
    (probabilities,) = model.run(None, {"x": np.repeat(pictures[:, None], 3, 1)})
    return np.log(probabilities).swapaxes(0, 1)


def captcha_scores(name):
    """Logits (T, N, C)."""
    model = session("ddddocr", f"{name}.onnx")
    pictures = [picture(text, 64, 160)[None, None] for text in CAPTCHAS]
    return np.concatenate(
        [model.run(None, {"input1": image})[0] for image in pictures], axis=1
    )


MODELS = {
    "lines": line_scores,
    "captchas": lambda: captcha_scores("common"),
    "old_captchas": lambda: captcha_scores("common_old"),
}


def scores_of(name):
    folder = os.environ.get("MLX_CTC_MODEL_SCORES")
    if folder is None:
        return MODELS[name]()
    file = Path(folder) / f"{name}.npy"
    if not file.exists():
        np.save(file, MODELS[name]())
    return np.load(file)


@pytest.fixture(scope="module", params=MODELS)
def scores(request):
    """(T, N, C) in float32, and whether they are logits."""
    return scores_of(request.param), request.param != "lines"


@pytest.fixture(params=[False, True], ids=["as_they_are", "small_ones_zero"])
def masked(request):
    return request.param


@pytest.fixture
def problem(scores, masked):
    """Its targets are what the model reads."""
    inputs, with_logits = scores
    T, N, _ = inputs.shape
    if masked:  # probabilities below 1e-6 are exactly 0
        below = reference.log_softmax(inputs.astype(float)) < np.log(1e-6)
        inputs = np.where(below, -np.inf, inputs)
    read = [reference.collapse(inputs[:, n].argmax(axis=1), 0) for n in range(N)]
    lengths = [len(labels) for labels in read]
    targets = np.zeros((N, max(lengths)), int)
    for row, labels in zip(targets, read, strict=True):
        row[: len(labels)] = labels
    return Problem(inputs, targets, [T] * N, lengths, with_logits=with_logits)


def test_models_read_most_of_the_text(scores):
    # Otherwise the tests below would be of a model that knows nothing.
    inputs, _ = scores
    best = reference.log_softmax(inputs.astype(float)).max(axis=2)
    assert np.median(best) > np.log(0.99)


@pytest.mark.parametrize("dtype", DTYPES.values(), ids=DTYPES)
def test_loss_of_what_the_model_reads(problem, dtype):
    losses = ctc_loss(*problem.arrays(dtype), reduction="none", **problem.options)
    expected = exact.exact_loss(problem, dtype)
    error = np.abs(to_numpy(losses) - expected)
    assert (error <= exact.allowed(expected)).all(), (losses, expected)


def test_loss_of_another_text(problem):
    problem.targets = np.roll(problem.targets, 1, axis=0)
    problem.target_lengths = np.roll(problem.target_lengths, 1)
    losses = ctc_loss(*problem.arrays(), reduction="none", **problem.options)
    expected, _ = problem.expected(mx.float32)
    np.testing.assert_allclose(losses, expected, exact.RELATIVE, 0)


@pytest.mark.parametrize("dtype", DTYPES.values(), ids=DTYPES)
def test_gradient(problem, dtype):
    _, gradient = problem.run(dtype)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # of -inf minus -inf
        _, expected = problem.expected(dtype)
    assert_gradient_close(gradient, expected, dtype)


@pytest.mark.parametrize("dtype", DTYPES.values(), ids=DTYPES)
def test_greedy_decoding(problem, dtype):
    inputs, _, input_lengths, _ = problem.arrays(dtype)
    labels, lengths, _ = greedy_decode(inputs, input_lengths, **problem.options)
    best = to_numpy(inputs).argmax(axis=2)
    for n, length in enumerate(lengths.tolist()):
        expected = reference.collapse(best[:, n], 0)
        assert labels[n, :length].tolist() == expected


@pytest.mark.parametrize("dtype", DTYPES.values(), ids=DTYPES)
def test_alignment(problem, dtype):
    paths, scores = forced_align(*problem.arrays(dtype), **problem.options)
    assert_alignment_is_best(problem, np.array(paths), to_numpy(scores), dtype)


def test_spans_are_the_runs_of_labels(problem):
    paths, scores = forced_align(*problem.arrays(), **problem.options)
    for n, length in enumerate(problem.target_lengths):
        spans = merge_tokens(paths[n], scores[n])
        assert [span.token for span in spans] == problem.targets[n][:length].tolist()
        runs = [
            [t for t, _ in run]
            for label, run in groupby(enumerate(paths[n].tolist()), lambda x: x[1])
            if label != 0
        ]
        assert [(s.start, s.end) for s in spans] == [(r[0], r[-1] + 1) for r in runs]


def test_alignment_and_spans_of_torchaudio(problem):
    torch = pytest.importorskip("torch")
    torchaudio = pytest.importorskip("torchaudio.functional")
    inputs, targets, *_ = problem.arrays()
    log_probs = (
        inputs
        if not problem.with_logits
        else inputs - mx.logsumexp(inputs, axis=2, keepdims=True)
    )
    for n, length in enumerate(problem.target_lengths):
        x = torch.tensor(np.array(log_probs[None, :, n]))
        theirs, their_scores = torchaudio.forced_align(
            x, torch.tensor(problem.targets[None, n, :length])
        )
        T = x.shape[1]
        path, scores = forced_align(log_probs[:, n], targets[n, :length], T, length)
        assert path.tolist() == theirs[0].tolist()
        np.testing.assert_array_equal(scores, their_scores[0])
        spans = merge_tokens(path, mx.exp(scores))
        expected = torchaudio.merge_tokens(theirs[0], their_scores[0].exp())
        for ours, other in zip(spans, expected, strict=True):
            assert (ours.token, ours.start, ours.end) == (
                other.token,
                other.start,
                other.end,
            )
            assert ours.score == pytest.approx(other.score, rel=1e-6)
