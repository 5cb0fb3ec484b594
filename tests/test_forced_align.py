# The best alignment: which path, with which scores, and its spans.

import mlx.core as mx
import numpy as np
import pytest
import reference
from problems import (
    LONG,
    REPEATING,
    assert_alignment_is_best,
    random_problem,
    to_numpy,
)

from mlx_ctc import TokenSpan, _ext, forced_align, merge_tokens

pytestmark = pytest.mark.usefixtures("device")


def align(problem, dtype=mx.float32):
    path, scores = forced_align(*problem.arrays(dtype), **problem.options)
    return np.array(path), to_numpy(scores)


class TestTorchaudiosExamples:
    """What torchaudio's tests align."""

    @pytest.mark.parametrize(
        ("probs", "target", "path"),
        [
            (LONG, [0, 1, 2, 1, 0], [0, 1, 2, 1, 0]),
            (LONG, [0, 1, 1, 0], [0, 1, 5, 1, 0]),
            (REPEATING, [0, 1, 2, 1, 0], [0, 1, 2, 1, 0]),
            (REPEATING, [0, 1, 1, 0], [0, 1, 5, 1, 0]),
        ],
    )
    def test_path_and_scores(self, probs, target, path):
        log_probs = np.log(np.array(probs, np.float32))
        aligned, scores = forced_align(
            mx.array(log_probs), target, 5, len(target), blank=5
        )
        assert aligned.tolist() == path
        np.testing.assert_array_equal(scores, log_probs[np.arange(5), path])

    def test_of_both_in_one_batch(self):
        log_probs = np.log(np.array([LONG, REPEATING], np.float32))
        aligned, _ = forced_align(
            mx.array(log_probs.swapaxes(0, 1)),
            [[0, 1, 2, 1, 0], [0, 1, 1, 0, 0]],
            [5, 5],
            [5, 4],
            blank=5,
        )
        assert aligned.tolist() == [[0, 1, 2, 1, 0], [0, 1, 5, 1, 0]]

    def test_random_sequences_as_torchaudio_itself_aligns_them(self, rng):
        torchaudio = pytest.importorskip("torchaudio.functional")
        torch = pytest.importorskip("torch")
        problem = random_problem(rng, T=60, S=20, with_logits=False, ragged=False)
        path, scores = forced_align(*problem.arrays())
        for n in range(6):
            log_probs = torch.tensor(problem.inputs[None, :, n], dtype=torch.float32)
            targets = torch.tensor(problem.targets[None, n])
            theirs, their_scores = torchaudio.forced_align(log_probs, targets)
            np.testing.assert_array_equal(path[n], theirs[0])
            np.testing.assert_array_equal(scores[n], their_scores[0])
            for span, expected in zip(
                merge_tokens(path[n], scores[n]),
                torchaudio.merge_tokens(theirs[0], their_scores[0]),
                strict=True,
            ):
                assert (span.token, span.start, span.end, len(span)) == (
                    expected.token,
                    expected.start,
                    expected.end,
                    len(expected),
                )
                assert span.score == pytest.approx(expected.score, rel=1e-5)


class TestAllPaths:
    """Tiny cases, where every path can be looked at."""

    @pytest.mark.parametrize("labels", [[], [1], [1, 2], [1, 1], [2, 1, 2], [1, 1, 1]])
    @pytest.mark.parametrize("blank", [0, 3])
    def test_best_of_them(self, rng, labels, blank):
        labels = [label if blank == 0 else label - 1 for label in labels]
        for _ in range(5):
            log_probs = reference.log_softmax(2 * rng.normal(size=(6, 4)))
            path, score = reference.best_alignment_by_enumeration(
                log_probs, labels, blank
            )
            aligned, scores = forced_align(
                mx.array(log_probs, mx.float32), labels, 6, len(labels), blank
            )
            assert aligned.tolist() == list(path)
            assert scores.sum().item() == pytest.approx(score, rel=1e-5)

    @pytest.mark.parametrize("labels", [[], [1], [1, 2], [1, 1], [2, 1, 2], [1, 1, 1]])
    def test_ties_stay_rather_than_step_and_step_rather_than_jump(self, rng, labels):
        for levels in (1, 2, 3):
            for _ in range(10):
                log_probs = -rng.integers(0, levels, size=(6, 4)).astype(float)
                path, _ = reference.best_alignment_by_enumeration(log_probs, labels)
                aligned, _ = forced_align(
                    mx.array(log_probs, mx.float32), labels, 6, len(labels)
                )
                assert aligned.tolist() == list(path)


def test_all_paths_equal():
    path, scores = forced_align(mx.zeros((6, 3)), [1, 2], 6, 2)
    assert path.tolist() == [1, 2, 2, 2, 2, 2]
    assert scores.tolist() == [0] * 6


def test_ties_hold_over_ten_thousand_frames():
    # In float32, tenths added up ten thousand times are equal no longer.
    log_probs = mx.full((10_000, 1, 3), -0.1)
    path, _ = forced_align(log_probs, [[1, 2]], 10_000, 2)
    assert path[0, :2].tolist() == [1, 2]
    assert (path[0, 2:] == 2).all().item()


@pytest.mark.parametrize("blank", [0, 4, 8])
def test_random_batch(rng, dtype, with_logits, blank):
    problem = random_problem(rng, N=9, blank=blank, with_logits=with_logits)
    assert_alignment_is_best(problem, *align(problem, dtype), dtype)


@pytest.mark.parametrize("S", [1, 15, 16, 17, 31, 33, 100, 600])
def test_targets_of_any_length(rng, S):
    T = 2 * S + 30
    problem = random_problem(rng, T=T, N=3, C=30, S=S, with_logits=False)
    assert_alignment_is_best(problem, *align(problem))


@pytest.mark.parametrize("C", [2, 31, 1000])
def test_any_number_of_classes(rng, C, with_logits):
    problem = random_problem(rng, C=C, with_logits=with_logits)
    assert_alignment_is_best(problem, *align(problem))


@pytest.mark.parametrize("T", range(1, 10))
def test_any_number_of_frames(rng, T):
    for S in range(T + 1):
        labels = rng.permutation(np.arange(1, 11))[:S]
        log_probs = -rng.integers(0, 3, size=(T, 11)).astype(float)  # with ties
        expected, _ = reference.best_alignment(log_probs, labels)
        path, _ = forced_align(mx.array(log_probs, mx.float32), labels, T, S)
        assert path.tolist() == list(expected)


def test_as_many_frames_as_labels(rng):
    labels = rng.permutation(np.arange(1, 41))
    log_probs = reference.log_softmax(rng.normal(size=(40, 41)))
    path, _ = forced_align(mx.array(log_probs, mx.float32), labels, 40, 40)
    assert path.tolist() == labels.tolist()


def test_ten_thousand_frames(rng):
    problem = random_problem(rng, T=10_000, N=2, C=20, S=900, spread=4.0)
    problem.target_lengths[:] = 900, 300
    assert_alignment_is_best(problem, *align(problem))


def test_empty_target_is_all_blank(rng):
    log_probs = mx.array(reference.log_softmax(rng.normal(size=(7, 4))), mx.float32)
    path, scores = forced_align(log_probs, mx.zeros((0,), mx.int32), 7, 0, blank=2)
    assert path.tolist() == [2] * 7
    np.testing.assert_array_equal(scores, log_probs[:, 2])


@pytest.mark.parametrize("lengths", [[0, 0], mx.array([0, 0])], ids=["list", "array"])
def test_no_frames(lengths):
    path, scores = forced_align(
        mx.zeros((3, 2, 4)), mx.zeros((2, 0), mx.int32), lengths, lengths, blank=1
    )
    assert path.tolist() == [[1] * 3] * 2
    assert scores.tolist() == [[0.0] * 3] * 2


def test_batch_of_none():
    path, scores = forced_align(mx.zeros((5, 0, 3)), mx.zeros((0, 2), mx.int32), [], [])
    assert path.shape == scores.shape == (0, 5)
    assert path.dtype == mx.int32


def test_frames_past_the_length_do_no_harm(rng):
    problem = random_problem(rng)
    expected = align(problem)
    for n, T in enumerate(problem.input_lengths):
        problem.inputs[T:, n] = np.nan
    for result, as_before in zip(align(problem), expected, strict=True):
        np.testing.assert_array_equal(result, as_before)


def test_logits_with_an_offset_have_the_same_path(rng):
    problem = random_problem(rng)
    path, _ = align(problem)
    problem.inputs = np.float32(problem.inputs).astype(float)
    problem.inputs += 2.0 ** rng.integers(0, 4, size=(30, 6, 1))
    shifted, scores = align(problem)
    assert_alignment_is_best(problem, shifted, scores)
    np.testing.assert_array_equal(shifted, path)


class TestNoAlignment:
    def test_known_lengths_are_refused(self):
        said = r"^\[forced_align\] Expected input_lengths\[1\] of 4 or more .* got 3\.$"
        for lengths in ([3, 3], (3, 3), np.array([3, 3])):
            with pytest.raises(ValueError, match=said):
                forced_align(
                    mx.zeros((9, 2, 5)), mx.ones((2, 4), mx.int32), lengths, [1, 4]
                )

    def test_known_labels_that_repeat_are_refused(self):
        with pytest.raises(ValueError, match=r"input_lengths\[0\] of 6 or more .* 4\."):
            forced_align(mx.zeros((4, 3)), [1, 1, 2, 2], 4, 4)
        with pytest.raises(ValueError, match=r"input_lengths\[0\] of 3 or more .* 2\."):
            forced_align(mx.zeros((4, 3)), [1, 1, 2, 2], 2, 2)

    def test_known_arrays_are_refused(self):
        with pytest.raises(ValueError, match=r"input_lengths\[0\] of 4 or more .* 3\."):
            forced_align(
                mx.zeros((5, 2, 3)),
                np.array([[1, 1, 2], [1, 1, 2]]),
                np.array([3, 4]),
                np.array([3, 3]),
            )

    def test_in_unevaluated_arrays_score_minus_infinity(self):
        path, scores = forced_align(
            mx.zeros((5, 2, 3)),
            mx.array([[1, 1, 2], [1, 1, 2]]),
            mx.array([3, 4]) + 0,
            mx.array([3, 3]) + 0,
            blank=0,
        )
        assert path.tolist() == [[0] * 5, [1, 0, 1, 2, 0]]
        assert scores.tolist() == [[-np.inf] * 3 + [0, 0], [0] * 5]

    @pytest.mark.parametrize("value", [-np.inf, -1e9, np.finfo(np.float32).min])
    def test_past_an_excluded_class(self, value, with_logits):
        log_probs = np.zeros((6, 2, 3), np.float32)
        log_probs[:, 0, 2] = value
        path, scores = forced_align(
            mx.array(log_probs), [[1, 2]] * 2, 6, 2, with_logits=with_logits
        )
        assert path[0].tolist() == [0] * 6
        assert scores[0].tolist() == [-np.inf] * 6
        assert path[1].tolist() == [1, 2, 2, 2, 2, 2]

    def test_around_an_excluded_class(self):
        log_probs = np.zeros((6, 3), np.float32)
        log_probs[:3, 2] = -np.inf
        log_probs[5, 1:] = -np.inf
        path, _ = forced_align(mx.array(log_probs), [1, 2], 6, 2)
        assert path.tolist() == [1, 0, 0, 2, 0, 0]


def align_in_segments(problem, segment_frames):
    """Of so many frames, between checkpoints; the GPU has none."""
    arrays = [array.astype(mx.int32) for array in problem.arrays()[1:]]
    path, scores = _ext.forced_align(
        mx.array(problem.inputs, mx.float32),
        *arrays,
        problem.blank,
        with_logits=problem.with_logits,
        segment_frames=segment_frames,
        stream=mx.cpu,
    )
    return np.array(path), np.array(scores)


class TestSegments:
    """The path does not depend on the frames from one checkpoint to the next."""

    @pytest.mark.parametrize("segment_frames", [1, 2, 3, 4, 5, 8, 13, 64, 199, 300])
    def test_of_any_length(self, rng, with_logits, segment_frames):
        for T, S in [(200, 20), (200, 99), (61, 60), (9, 1), (1, 1), (130, 3)]:
            problem = random_problem(rng, T=T, C=70, S=S, with_logits=with_logits)
            expected = align_in_segments(problem, T)
            assert_alignment_is_best(problem, *expected)
            result = align_in_segments(problem, segment_frames)
            np.testing.assert_array_equal(result, expected)

    @pytest.mark.parametrize("segment_frames", [1, 3, 4, 10])
    @pytest.mark.parametrize("levels", [1, 2, 3])
    def test_among_ties(self, rng, levels, segment_frames):
        problem = random_problem(rng, T=90, S=30, C=4, with_logits=False)
        problem.inputs = -rng.integers(0, levels, problem.inputs.shape).astype(float)
        expected = align_in_segments(problem, 90)
        assert_alignment_is_best(problem, *expected)
        result = align_in_segments(problem, segment_frames)
        np.testing.assert_array_equal(result, expected)

    @pytest.mark.parametrize("frame", [0, 5, 28])
    @pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
    def test_without_a_path(self, rng, with_logits, value, frame):
        problem = random_problem(rng, with_logits=with_logits, ragged=False)
        problem.inputs[frame, 2] = value
        path, scores = align_in_segments(problem, 7)
        none = np.isneginf if value == -np.inf and not with_logits else np.isnan
        assert none(scores[2]).all()
        np.testing.assert_array_equal(path[2], problem.blank)
        np.testing.assert_array_equal((path, scores), align_in_segments(problem, 30))

    def test_are_chosen_for_a_long_recording(self, rng):
        # Moves of all its frames would take 40 MB.
        problem = random_problem(rng, T=40_000, N=1, C=20, S=2000, spread=4.0)
        expected = align_in_segments(problem, 40_000)
        np.testing.assert_array_equal(align_in_segments(problem, 0), expected)


def test_a_gpu_without_memory_for_the_moves_is_refused():
    # T / 8 words of 4 bytes for each of S + 1 pairs, and two edges of 8 bytes.
    arrays = [mx.zeros((1600, 3, 5)), mx.ones((3, 99), mx.int32)]
    arrays += [mx.full((3,), 1600), mx.full((3,), 99)]
    needed = 3 * (1600 // 8 * 100 * 4 + 2 * 8)
    _ext.check_gpu_memory(*arrays, 0, with_logits=False, limit=needed)
    said = (
        rf"^\[forced_align\] Expected .* at most {needed - 1} bytes .* T = 1600 frames "
        rf"of N = 3 sequences and S = 99 labels need {needed}\."
    )
    with pytest.raises(ValueError, match=said):
        _ext.check_gpu_memory(*arrays, 0, with_logits=False, limit=needed - 1)


def test_the_memory_limit_is_that_of_mlx(device):
    if device != mx.gpu:
        pytest.skip("the CPU has checkpoints instead of a table")
    limit = mx.set_memory_limit(100_000)  # 4 bits for each frame and pair: 240 000
    try:
        with pytest.raises(ValueError, match=r"at most 100000 bytes on the GPU"):
            forced_align(mx.zeros((1600, 3, 5)), mx.ones((3, 99), mx.int32), 1600, 99)
    finally:
        mx.set_memory_limit(limit)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_bad_number_makes_its_item_nan(rng, value, with_logits):
    problem = random_problem(rng, with_logits=with_logits, ragged=False)
    expected = align(problem)
    problem.inputs[4, 2, problem.targets[2, 3]] = value
    path, scores = align(problem)
    assert np.isnan(scores[2]).all()
    np.testing.assert_array_equal(path[2], problem.blank)
    others = np.arange(6) != 2
    np.testing.assert_array_equal(path[others], expected[0][others])
    np.testing.assert_array_equal(scores[others], expected[1][others])


def test_bad_log_prob_of_a_class_not_used_does_no_harm(rng):
    problem = random_problem(rng, C=12, with_logits=False)
    problem.targets %= 9
    expected = align(problem)
    problem.inputs[:, :, 10] = np.nan
    np.testing.assert_array_equal(align(problem), expected)


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("log_probs", mx.zeros((3,)), "log_probs of shape"),
        ("log_probs", mx.zeros((6, 3, 5), mx.int32), "floating type"),
        ("targets", mx.zeros((2, 2), mx.int32), "targets of shape"),
        ("targets", [[1, 1], [1, 5], [1, 1]], r"targets\[1, 1\] in \[0, 5\) but got 5"),
        ("input_lengths", [6, 7, 6], r"input_lengths\[1\] in \[0, 6\] but got 7"),
        ("target_lengths", [2, 2, 3], r"target_lengths\[2\] in \[0, 2\] but got 3"),
        ("blank", 5, r"blank in \[-5, 5\) but got 5"),
    ],
)
def test_refusals_are_those_of_the_loss(name, value, words):
    arguments = {
        "log_probs": mx.zeros((6, 3, 5)),
        "targets": mx.ones((3, 2), mx.int32),
        "input_lengths": [6, 6, 6],
        "target_lengths": [2, 2, 2],
        "blank": 0,
    }
    with pytest.raises(ValueError, match=rf"^\[forced_align\] Expected .*{words}"):
        forced_align(**{**arguments, name: value})


@pytest.mark.parametrize("spoiled", ["targets", "input_lengths", "target_lengths"])
def test_values_out_of_range_in_unevaluated_arrays(spoiled):
    arguments = {
        "targets": mx.ones((3, 2), mx.int32),
        "input_lengths": mx.array([6, 6, 6]),
        "target_lengths": mx.array([2, 2, 2]),
    }
    arguments[spoiled][1] = 7
    assert not _ext.is_known(arguments[spoiled])  # the assignment is lazy
    path, scores = forced_align(mx.zeros((6, 3, 5)), **arguments)
    np.testing.assert_array_equal(np.isnan(scores).all(axis=1), [False, True, False])
    np.testing.assert_array_equal(path[1], 0)


@pytest.mark.parametrize("blank", [0, 2, -1])
def test_blank_is_no_label(blank):
    x = mx.zeros((6, 2, 4))
    targets = [[1, 1, 1], [1, blank % 4, 1]]
    match = rf"targets\[1, 1\] other than the blank, which is {blank % 4}"
    with pytest.raises(ValueError, match=match):
        forced_align(x, targets, 6, 3, blank)
    path, scores = forced_align(x, mx.array(targets) + 0, 6, 3, blank)
    np.testing.assert_array_equal(np.isnan(scores), [[False] * 6, [True] * 6])
    np.testing.assert_array_equal(path[1], blank % 4)


def test_blank_past_the_target_does_no_harm():
    path, _ = forced_align(mx.zeros((2, 2, 4)), [[1, 0], [1, 2]], 2, [1, 2])
    assert path.tolist() == [[1, 1], [1, 2]]


def test_every_form_of_the_batch(rng):
    problem = random_problem(rng)
    x, targets, input_lengths, target_lengths = problem.arrays()
    expected = align(problem)
    rows = zip(problem.targets, problem.target_lengths, strict=True)
    concatenated = np.concatenate([row[:length] for row, length in rows])
    for form in (
        (problem.targets, problem.input_lengths, problem.target_lengths),
        (targets, input_lengths.tolist(), target_lengths.tolist()),
        (concatenated, input_lengths, target_lengths),
        (mx.array(concatenated), input_lengths.tolist(), target_lengths.tolist()),
    ):
        np.testing.assert_array_equal(
            forced_align(x, *form, with_logits=True), expected
        )


def test_one_sequence_has_no_batch_axis(rng):
    problem = random_problem(rng, N=1, ragged=False)
    x, targets, *_ = problem.arrays()
    path, scores = forced_align(x[:, 0], targets[0], 30, 8, with_logits=True)
    assert path.shape == scores.shape == (30,)
    assert_alignment_is_best(problem, np.array(path)[None], np.array(scores)[None])


def test_any_strides(rng):
    problem = random_problem(rng)
    x, *rest = problem.arrays()
    expected = align(problem)
    for order in ((1, 0, 2), (2, 1, 0), (1, 2, 0)):
        laid_out = mx.contiguous(x.transpose(order)).transpose(np.argsort(order))
        result = forced_align(laid_out, *rest, with_logits=True)
        np.testing.assert_array_equal(result, expected)
    doubled = mx.repeat(x, 2, axis=0)[::2]
    np.testing.assert_array_equal(
        forced_align(doubled, *rest, with_logits=True), expected
    )


def test_same_bits_every_run(rng, with_logits):
    problem = random_problem(rng, T=300, N=16, S=60, with_logits=with_logits)
    expected = align(problem)
    for _ in range(5):
        np.testing.assert_array_equal(align(problem), expected)


def test_same_path_on_every_device(device, rng, with_logits):
    problem = random_problem(rng, T=400, N=9, S=70, with_logits=with_logits)
    arrays = problem.arrays()
    path, scores = forced_align(*arrays, **problem.options)
    on_cpu, cpu_scores = forced_align(*arrays, **problem.options, stream=mx.cpu)
    np.testing.assert_array_equal(path, on_cpu)
    np.testing.assert_allclose(scores, cpu_scores, 1e-6, 1e-6)


class TestTransforms:
    @pytest.fixture
    def problem(self, rng):
        return random_problem(rng)

    @pytest.fixture
    def call(self, problem):
        return lambda *arrays: forced_align(*arrays, **problem.options)

    def test_compile(self, problem, call):
        compiled = mx.compile(call)
        for _ in range(2):
            np.testing.assert_array_equal(compiled(*problem.arrays()), align(problem))

    def test_vmap_of_a_batch(self, rng, call):
        problems = [random_problem(rng) for _ in range(3)]
        arrays = zip(*(p.arrays() for p in problems), strict=True)
        path, scores = mx.vmap(call)(*(mx.stack(a) for a in arrays))
        for p, *result in zip(problems, path, scores, strict=True):
            np.testing.assert_array_equal(result, align(p))

    def test_vmap_of_one_sequence_is_the_batch(self, problem, call):
        result = mx.vmap(call, in_axes=(1, 0, 0, 0))(*problem.arrays())
        np.testing.assert_array_equal(result, align(problem))

    def test_gradient_is_refused(self, problem, call):
        x, *rest = problem.arrays()
        for transform in (
            lambda: mx.grad(lambda x: call(x, *rest)[1].sum())(x),
            lambda: mx.jvp(lambda x: call(x, *rest)[1], [x], [x]),
        ):
            with pytest.raises(ValueError, match=r"\[forced_align\].*differentiated"):
                mx.eval(transform())

    def test_gradient_passes_an_alignment_by(self, problem, call):
        x, *rest = problem.arrays()

        def chosen(x):
            path, _ = call(mx.stop_gradient(x), *rest)
            return mx.take_along_axis(x, path.T[..., None], axis=2).sum()

        assert mx.grad(chosen)(x).sum().item() == 30 * 6

    def test_stream_may_be_named(self, device, problem):
        result = forced_align(*problem.arrays(), **problem.options, stream=device)
        np.testing.assert_array_equal(result, align(problem))


class TestMergeTokens:
    def test_spans_of_equal_tokens(self):
        tokens = [0, 1, 1, 0, 1, 2, 2, 2, 0, 0]
        scores = [0.1, 0.2, 0.4, 0.9, 0.5, 0.3, 0.6, 0.9, 0.1, 0.1]
        for form in (list, tuple, np.array, mx.array):
            spans = merge_tokens(form(tokens), form(scores))
            assert [(s.token, s.start, s.end) for s in spans] == [
                (1, 1, 3),
                (1, 4, 5),
                (2, 5, 8),
            ]
            np.testing.assert_allclose([s.score for s in spans], [0.3, 0.5, 0.6])
            assert [len(span) for span in spans] == [2, 1, 3]

    def test_blank_is_any_class(self):
        assert merge_tokens([0, 0, 3], [1.0, 2.0, 4.0], blank=3) == [
            TokenSpan(0, 0, 2, 1.5)
        ]

    def test_nothing_but_blanks_has_no_spans(self):
        assert merge_tokens([0, 0], [1.0, 1.0]) == []
        assert merge_tokens(mx.array([], mx.int32), mx.array([])) == []

    def test_spans_in_seconds(self):
        # 16000 samples a second, 20 000 samples, 50 frames.
        start, end = TokenSpan(7, 10, 14, 0.5).seconds(20_000 / 16_000 / 50)
        assert (start, end) == pytest.approx((0.25, 0.35))

    def test_spell_the_target(self, rng):
        problem = random_problem(rng)
        path, scores = align(problem)
        for n, S in enumerate(problem.target_lengths):
            spans = merge_tokens(path[n], scores[n])
            assert [s.token for s in spans] == problem.targets[n][:S].tolist()

    @pytest.mark.parametrize(
        ("tokens", "scores"),
        [
            ([1, 2], [0.5]),
            (mx.zeros((2, 3)), mx.zeros((2, 3))),
            ([1], mx.zeros((1, 1))),
        ],
    )
    def test_other_shapes_are_refused(self, tokens, scores):
        with pytest.raises(ValueError, match=r"^\[merge_tokens\] Expected .* but got"):
            merge_tokens(tokens, scores)

    def test_negative_blank_is_refused(self):
        # A path does not tell how many classes there are to count back from.
        with pytest.raises(ValueError, match=r"^\[merge_tokens\] .*blank.*C - 1.* -1"):
            merge_tokens([0, 1], [1.0, 1.0], blank=-1)
