"""Writes complete Metal sources, as MLX gives them to Apple's compiler.

    python tests/metal/translation_units.py FOLDER [LIBMLX]

For every kernel of every problem of mlx_ctc.check: MLX's preamble, which is a string in
libmlx.dylib, and the text that MLX's generator writes. LIBMLX is the library of a wheel
for macOS; by default that of the installed MLX. On a Mac each file compiles with

    xcrun metal -std=metal3.1 -c FILE -o /dev/null
"""

import sys
from pathlib import Path

import mlx.core as mx
from ctc_on_emulator import OPS, launches_of
from metal_text import generate

from mlx_ctc import check

# In the preamble (mlx/backend/metal/kernels/utils.h) and in no other of the library's
# strings that begins with a copyright: those of kernels have more than this.
IN_PREAMBLE = b"typedef half float16_t;"


def preamble(library):
    """The text that MLX puts before every custom kernel."""
    data = library.read_bytes()
    place = data.find(IN_PREAMBLE)
    if place < 0:
        raise SystemExit(
            f"{library} has no Metal preamble: it is not a library for macOS"
        )
    return data[data.rfind(b"\0", 0, place) + 1 : data.find(b"\0", place)].decode()


def launches_with_texts(T, N, C, S, dtype, **options):
    """(launch, MetalText) of every kernel of every op, for a problem's sizes."""
    inputs = {
        "log_probs": mx.zeros((T, N, C), dtype),
        "targets": mx.zeros((N, S), mx.int32),
        "input_lengths": mx.zeros(N, mx.int32),
        "target_lengths": mx.zeros(N, mx.int32),
    }
    for op in OPS:
        arrays = {**inputs, "cotangent": mx.zeros(N)}
        for launch in launches_of(inputs.values(), op, blank=0, **options):
            arrays["options"] = mx.array(launch.options)
            yield launch, generate(launch, [arrays[name] for name in launch.arrays])
            outputs = zip(
                launch.output_names,
                launch.output_shapes,
                launch.output_dtypes,
                strict=True,
            )
            for name, shape, of in outputs:
                arrays[name] = mx.zeros(shape, of)


def texts():
    """{name: generated text}, of all kernels that mlx_ctc.check compiles."""
    found = {}
    for T, N, C, S, _, _ in check.PROBLEMS:
        for dtype in check.DTYPES:
            for kind, (with_logits, normalized) in check.KINDS.items():
                size = f"{T}x{N}x{C}x{S}_{str(dtype)[9:]}_{kind}"
                kernels = launches_with_texts(
                    T, N, C, S, dtype, with_logits=with_logits, normalized=normalized
                )
                for launch, metal in kernels:
                    found[f"{launch.name}_{size}"] = metal.text
    return found


def main():
    folder = Path(sys.argv[1])
    library = Path(mx.__file__).parent / "lib" / "libmlx.dylib"
    if len(sys.argv) > 2:
        library = Path(sys.argv[2])
    folder.mkdir(parents=True, exist_ok=True)
    before = preamble(library)
    seen = set()
    for name, text in texts().items():
        if text not in seen:  # other sizes may give the same text
            seen.add(text)
            (folder / f"{name}.metal").write_text(f"{before}\n{text}")
    print(f"{len(seen)} sources in {folder}")


if __name__ == "__main__":
    main()
