# The generator's traps, seen in its own text.

from dataclasses import replace

import mlx.core as mx
import pytest
from metal_text import Launch, Parameter, generate

LAUNCH = Launch(
    name="scale",
    input_names=["x", "lengths", "factor"],
    output_names=["y"],
    output_shapes=[(64,)],
    output_dtypes=[mx.bfloat16],
    template=[("T", mx.bfloat16), ("N", 4), ("FAST", True)],
    source="  y[thread_index_in_simdgroup] = T(x[lengths_shape[0]] * factor);\n",
)


def parameters(batch_size):
    arrays = [mx.zeros(64), mx.zeros(batch_size, mx.int32), mx.array(2.0)]
    return generate(LAUNCH, arrays).parameters


@pytest.mark.parametrize(("batch_size", "space"), [(7, "constant"), (8, "device")])
def test_a_batch_below_8_has_its_lengths_in_constant_memory(batch_size, space):
    lengths = Parameter(f"const {space} int32_t*", "lengths", "buffer(1)")
    assert lengths in parameters(batch_size)


def test_the_signature_is_understood():
    assert parameters(8) == [
        Parameter("const device float*", "x", "buffer(0)"),
        Parameter("const device int32_t*", "lengths", "buffer(1)"),
        Parameter("const constant int*", "lengths_shape", "buffer(2)"),
        Parameter("const constant float&", "factor", "buffer(3)"),
        Parameter("device bfloat16_t*", "y", "buffer(4)"),
        Parameter("uint", "thread_index_in_simdgroup", "thread_index_in_simdgroup"),
    ]


def test_template_arguments_are_understood():
    text = generate(LAUNCH, [mx.zeros(8), mx.zeros(8, mx.int32), mx.array(2.0)])
    assert text.template_parameters == [
        ("typename", "T"),
        ("int", "N"),
        ("bool", "FAST"),
    ]
    assert text.template_arguments == ["bfloat16_t", "4", "1"]


def test_a_signature_that_mlx_garbles_is_refused():
    # Two outputs, a shape in the source, and no thread attribute.
    launch = replace(
        LAUNCH,
        input_names=["x"],
        output_names=["y", "z"],
        output_shapes=[(1,)] * 2,
        output_dtypes=[mx.float32] * 2,
        source="  y[0] = x_shape[0];\n  z[0] = 0;\n",
    )
    with pytest.raises(ValueError, match="no well-formed signature"):
        generate(launch, [mx.zeros(8)])
