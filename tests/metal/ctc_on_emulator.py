# The library's loss and gradient with its GPU kernels on the emulator: the launches
# that csrc/gpu plans, on a problem's arrays.

from dataclasses import dataclass, replace

import mlx.core as mx
from buffer import Buffer
from emulator import Emulator
from metal_text import Launch, MetalText, generate

from mlx_ctc import _ext

INPUTS = ["log_probs", "targets", "input_lengths", "target_lengths"]
# The plans of each op, as mlx_ctc._ext.gpu_launches names them, and what comes of it.
OPS = {
    "ctc_loss": ["loss", "gradient"],
    "loss": ["loss"],
    "forced_align": ["align"],
    "posteriors": ["posteriors"],
    "posteriors by class": ["posteriors_by_class"],
}
RESULTS = {
    "ctc_loss": ["loss", "gradient"],
    "loss": ["loss"],
    "forced_align": ["alignments", "scores"],
    "posteriors": ["by_label"],
    "posteriors by class": ["by_label", "by_class"],
}


@dataclass
class Run:
    launches: list[Launch]
    arrays: dict[str, Buffer]

    @property
    def loss(self) -> mx.array:
        return self.arrays["loss"].array()

    @property
    def gradient(self) -> mx.array:
        return self.arrays["gradient"].array()

    def texts(self) -> list[MetalText]:
        return [
            generate(
                launch,
                [
                    mx.zeros(self.arrays[name].shape, self.arrays[name].dtype)
                    for name in launch.arrays
                ],
            )
            for launch in self.launches
        ]


def launches_of(
    arrays, op, zero_infinity=False, normalized=True, **options
) -> list[Launch]:
    described = _ext.gpu_launches(
        *arrays, zero_infinity=zero_infinity, normalized=normalized, **options
    )
    return [Launch(**launch) for part in OPS[op] for launch in described[part]]


def run(
    emulator: Emulator,
    problem,
    dtype=mx.float32,
    op="ctc_loss",
    cotangent=None,
    batch_first=False,
    edit=lambda launch: launch,
    **options,
) -> Run:
    """An op's results, of which no bit may depend on what Metal leaves open."""
    log_probs, *integers = problem.arrays(dtype)
    inputs = [log_probs, *(array.astype(mx.int32) for array in integers)]
    arrays = {n: Buffer.of(array) for n, array in zip(INPUTS, inputs, strict=True)}
    if batch_first:
        swapped = Buffer.of(log_probs.swapaxes(0, 1))
        arrays["log_probs"] = swapped.transposed((1, 0, 2))
    if cotangent is None:
        cotangent = mx.ones(log_probs.shape[1])
    if not isinstance(cotangent, Buffer):
        cotangent = Buffer.of(cotangent.astype(mx.float32))
    arrays["cotangent"] = cotangent
    options = {**problem.options, "normalized": problem.normalized, **options}
    launches = launches_of(inputs, op, **options)
    assert launches, (
        f"{op}: no launch for scores of shape {log_probs.shape}, so that nothing would "
        f"write {', '.join(RESULTS[op])}"
    )
    launches = [edit(launch) for launch in launches]
    arrays["options"] = Buffer.of(mx.array(launches[0].options))
    return Run(launches, emulator.run(launches, arrays, RESULTS[op]))


def in_parts_of(labels: int):
    """An edit: targets are taken in parts, as if no more labels fitted in memory."""

    def edit(launch: Launch) -> Launch:
        template = [
            (name, min(labels, value) if name in ("PART", "CAPACITY") else value)
            for name, value in launch.template
        ]
        shapes = dict(zip(launch.output_names, launch.output_shapes, strict=True))
        if "classes" in shapes:  # a row for each part
            N, _, C = shapes["classes"]
            S = max(shapes["checkpoints"][3] - 1, 1)
            shapes["classes"] = (N, -(-S // labels), C)
        return replace(launch, template=template, output_shapes=[*shapes.values()])

    return edit
