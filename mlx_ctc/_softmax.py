"""Log-softmax, of float64 to its full precision."""

from __future__ import annotations

import mlx.core as mx

from mlx_ctc import _ext


def log_sum_exp(logits: mx.array) -> mx.array:
    """The logarithm of each row's sum of exponentials: (..., 1) of (..., C).

    MLX 0.32.4 takes exponentials of float64 in float32. The CPU's greedy decoding sums
    in double: its score of a frame is the greatest logit less this logarithm.
    """
    if logits.dtype != mx.float64 or logits.size == 0:
        return mx.logsumexp(logits, axis=-1, keepdims=True)
    frames = logits.reshape(1, -1, logits.shape[-1])
    lengths = mx.ones(frames.shape[1], mx.int32)
    results = _ext.greedy_decode(frames, lengths, 0, with_logits=True, stream=mx.cpu)
    scores = results[2].reshape(*logits.shape[:-1], 1)
    return mx.max(logits, axis=-1, keepdims=True) - scores


def log_softmax(logits: mx.array) -> mx.array:
    """Log-probabilities of logits (..., C)."""
    if logits.size == 0:
        return logits
    return logits - log_sum_exp(logits)
