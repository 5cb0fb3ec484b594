# The reference itself: the recursion is what the definition says.

import numpy as np
import pytest
import reference


@pytest.mark.parametrize("labels", [[], [1], [1, 1], [1, 2], [2, 1, 2], [1, 1, 1]])
@pytest.mark.parametrize("T", range(7))
def test_recursion_sums_every_path(rng, T, labels):
    log_probs = reference.log_softmax(rng.normal(size=(T, 3)))
    loss, gamma = reference.ctc(log_probs, labels)
    expected_loss, expected_gamma = reference.ctc_by_enumeration(log_probs, labels)
    np.testing.assert_allclose(loss, expected_loss, atol=1e-13)
    np.testing.assert_allclose(gamma, expected_gamma, atol=1e-13)


@pytest.mark.parametrize("S", [1, 2, 5])
@pytest.mark.parametrize("T", [5, 6, 9])
def test_recursion_counts_equally_likely_paths(T, S):
    log_probs = np.full((T, 6), -np.log(6))
    loss, gamma = reference.ctc(log_probs, list(range(1, S + 1)))
    paths = reference.log_paths(T, S)
    share = reference.share_of_paths(T, S, np.arange(T))
    np.testing.assert_allclose(loss, T * np.log(6) - paths, atol=1e-13)
    np.testing.assert_allclose(gamma[:, 1 : S + 1], share, atol=1e-13)


def test_blank_may_be_any_class(rng):
    log_probs = reference.log_softmax(rng.normal(size=(5, 4)))
    loss, gamma = reference.ctc(log_probs, [0, 3, 3], blank=2)
    expected_loss, expected_gamma = reference.ctc_by_enumeration(
        log_probs, [0, 3, 3], blank=2
    )
    np.testing.assert_allclose(loss, expected_loss)
    np.testing.assert_allclose(gamma, expected_gamma, atol=1e-13)
