# Written by tests/stubs.py from the bindings.

"""The ops behind mlx_ctc."""

from collections.abc import Sequence

import mlx.core


def ctc_loss(log_probs: mlx.core.array, targets: mlx.core.array, input_lengths: mlx.core.array, target_lengths: mlx.core.array, blank: int, *, with_logits: bool, zero_infinity: bool, normalized: bool, stream: mlx.core.Stream | mlx.core.ThreadLocalStream | mlx.core.Device | mlx.core.DeviceType | None = None) -> mlx.core.array:
    """
    The loss (N,) of log_probs (T, N, C), targets (N, S) and lengths (N,), the last three int32.
    """

def forced_align(log_probs: mlx.core.array, targets: mlx.core.array, input_lengths: mlx.core.array, target_lengths: mlx.core.array, blank: int, *, with_logits: bool, segment_frames: int = 0, stream: mlx.core.Stream | mlx.core.ThreadLocalStream | mlx.core.Device | mlx.core.DeviceType | None = None) -> list[mlx.core.array]:
    """
    Alignments (N, T) and scores (N, T) of what ctc_loss takes. segment_frames: between two checkpoints on the CPU, on which the result does not depend; 0: as many as suit the shapes.
    """

def ctc_posteriors(log_probs: mlx.core.array, targets: mlx.core.array, input_lengths: mlx.core.array, target_lengths: mlx.core.array, blank: int, *, with_logits: bool, by_class: bool, stream: mlx.core.Stream | mlx.core.ThreadLocalStream | mlx.core.Device | mlx.core.DeviceType | None = None) -> mlx.core.array:
    """Posteriors (N, T, S + 1) or (N, T, C) of what ctc_loss takes."""

def greedy_decode(log_probs: mlx.core.array, input_lengths: mlx.core.array, blank: int, *, with_logits: bool, stream: mlx.core.Stream | mlx.core.ThreadLocalStream | mlx.core.Device | mlx.core.DeviceType | None = None) -> list[mlx.core.array]:
    """
    Labels (N, T), their numbers (N), scores (N), frames (N, T) and probabilities (N, T) of log_probs (T, N, C) and lengths (N,), int32, on the CPU.
    """

def greedy_decode_at_once(log_probs: mlx.core.array, frames: int | None, blank: int, *, with_logits: bool, batch_first: bool) -> list[mlx.core.array] | None:
    """
    The same of few known scores (T, N, C), (N, T, C) or (T, C), evaluated; else None.
    """

def is_known(arg: mlx.core.array, /) -> bool:
    """Whether an array's values can be read without an evaluation."""

def is_plain_batch(op: str, log_probs: object | None, targets: object | None, input_lengths: object | None, target_lengths: object | None, blank: object | None) -> bool:
    """
    Whether a batch is written as the ops take it; known values that are out of range are refused.
    """

def check_lengths(op: str, name: str, lengths: mlx.core.array, most: int) -> None:
    """Refuses known lengths (N,) out of [0, most]."""

def check_labels(op: str, targets: mlx.core.array, lengths: mlx.core.array, C: int, excluded: int) -> None:
    """
    Refuses known targets (N, S) with a label out of [0, C), or `excluded`.
    """

def check_fit(op: str, targets: mlx.core.array, targets_are_known: bool, input_lengths: mlx.core.array, target_lengths: mlx.core.array) -> None:
    """Refuses a target that needs more frames than its sequence has."""

def pad_targets(op: str, targets: mlx.core.array, targets_are_known: bool, lengths: mlx.core.array, stream: mlx.core.Stream | mlx.core.ThreadLocalStream | mlx.core.Device | mlx.core.DeviceType | None = None) -> mlx.core.array:
    """Concatenated targets (sum(lengths),) as rows (N, S)."""

def mask_lengths(op: str, name: str, mask: mlx.core.array) -> mlx.core.array:
    """
    The ones that each row of a known mask (N, W) begins with, (N,). Refuses ones after a zero.
    """

def label_lengths(op: str, targets: mlx.core.array, blank: int) -> mlx.core.array:
    """
    The labels that each row of known targets (N, S) begins with, (N,). Refuses labels after padding: a negative number or the blank.
    """

def to_int32(a: mlx.core.array) -> mlx.core.array:
    """A known array in 32 bits, saturated."""

def check_log_probs(log_probs: mlx.core.array, lengths: Sequence[int], most: float) -> None:
    """
    Refuses a finite value above `most` in the used frames of log_probs (T, N, C), which is evaluated, contiguous and float32 or float64.
    """

def beam_search(log_probs: mlx.core.array, lengths: Sequence[int], *, beam_width: int, blank: int, nbest: int, max_labels: int, label_threshold: float, beam_threshold: float, rescore: bool, scorer: object | None = None, prefix_scorer: object | None = None, hotwords: Sequence[tuple[Sequence[int], float]]) -> list[list[tuple[list[int], float, list[int], list[float]]]]:
    """
    The best of each sequence of log_probs (T, N, C), which is evaluated, contiguous and float32 or float64: labels, score, and the frame and the probability of each label.
    """

def gpu_launches(log_probs: mlx.core.array, targets: mlx.core.array, input_lengths: mlx.core.array, target_lengths: mlx.core.array, *, blank: int, with_logits: bool, zero_infinity: bool, normalized: bool) -> dict:
    """
    What each plan launches on Metal for inputs of these shapes and dtypes, as keyword arguments of mx.fast.metal_kernel.
    """

def check_gpu_memory(log_probs: mlx.core.array, targets: mlx.core.array, input_lengths: mlx.core.array, target_lengths: mlx.core.array, blank: int, *, with_logits: bool, limit: int) -> None:
    """
    Refuses an alignment whose tables take more than `limit` bytes on a GPU.
    """

def cuda_texts(shape: Sequence[int], dtype: mlx.core.Dtype, *, blank: int = 0, with_logits: bool = True, zero_infinity: bool = False, normalized: bool = True) -> dict:
    """
    Of each plan the functions and the texts that NVRTC would compile for a batch of shape (T, N, C, S).
    """

def cuda_compile(library: str, architecture: int, sources: Sequence[tuple[str, str]], *, folder: str = '', shipped: str = '', nvfatbin: str = '', driver: int = 13000) -> tuple:
    """
    The codes of sources (function, text) for a device of an architecture such as 90 and a driver of CUDA 13.0, and the counts: from the folder of shipped kernels, from the user's, or compiled at the same time by the NVRTC of a library.
    """

def ship_kernel(library: str, nvfatbin: str, architecture: int, function: str, text: str, folder: str) -> int:
    """
    Compiles a kernel for an architecture and puts it into a folder of shipped kernels; returns its size.
    """

def cuda_architecture() -> int:
    """The first GPU's, such as 90."""

def cuda_compilations() -> dict:
    """
    Kernels that this process has had from the package, has loaded from the user's folder, has compiled, and has left to MLX; the last error.
    """

def load_from_cache(folder: str, key: bytes) -> object:
    """What is stored in a folder under a key, or None."""

def store_in_cache(folder: str, key: bytes, value: bytes, max_bytes: int) -> bool:
    """Whether the value has been stored."""

def shipped_folder() -> str:
    """Where the package's compiled kernels are."""

def cache_folder() -> str:
    """Where compiled kernels are kept; empty if nowhere."""
