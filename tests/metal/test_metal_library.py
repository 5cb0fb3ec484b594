# The emulator's Metal library computes what Metal's does.

import mlx.core as mx
import numpy as np
import pytest
from buffer import Buffer
from metal_text import Launch


def run(emulator, body, inputs, dtype=mx.float32, threads=32, size=None, **launch):
    """The array y that the threads i of one threadgroup compute."""
    launch = Launch(
        name="body",
        input_names=list(inputs),
        output_names=["y"],
        output_shapes=[(size or threads,)],
        output_dtypes=[dtype],
        source="  const uint i = thread_index_in_threadgroup;\n"
        "  const uint lane = thread_index_in_simdgroup;\n" + body,
        grid=(threads, 1, 1),
        threadgroup=(threads, 1, 1),
        **launch,
    )
    arrays = {name: Buffer.of(mx.array(x)) for name, x in inputs.items()}
    return emulator.run([launch], arrays, ["y"])["y"].numpy()


# What lane l gets if v are the values x of all lanes; None if Metal does not say.
SIMD_FUNCTIONS = {
    "simd_shuffle(x, lane / 2)": lambda v, l: v[l // 2],
    "simd_shuffle_up(x, 3)": lambda v, l: v[l - 3] if l >= 3 else None,
    "simd_shuffle_down(x, 3)": lambda v, l: v[l + 3] if l <= 28 else None,
    "simd_shuffle_xor(x, 5)": lambda v, l: v[l ^ 5],
    "simd_broadcast(x, 7)": lambda v, l: v[7],
    "simd_broadcast_first(x)": lambda v, l: v[0],
    "simd_sum(x)": lambda v, l: v.sum(),
    "simd_product(x % 2 + 1)": lambda v, l: np.prod(v % 2 + 1),
    "simd_max(x)": lambda v, l: v.max(),
    "simd_min(x)": lambda v, l: v.min(),
    "simd_and(x | 4)": lambda v, l: np.bitwise_and.reduce(v | 4),
    "simd_or(x & 6)": lambda v, l: np.bitwise_or.reduce(v & 6),
    "simd_xor(x * x)": lambda v, l: np.bitwise_xor.reduce(v * v),
    "simd_prefix_inclusive_sum(x)": lambda v, l: v[: l + 1].sum(),
    "simd_prefix_exclusive_sum(x)": lambda v, l: v[:l].sum(),
    "int(simd_any(x == 9))": lambda v, l: 1,
    "int(simd_any(x == 99))": lambda v, l: 0,
    "int(simd_all(x < 32))": lambda v, l: 1,
    "int(simd_all(x < 31))": lambda v, l: 0,
}


@pytest.mark.parametrize("call", SIMD_FUNCTIONS)
def test_simd_function(emulator, call):
    values = np.array([7 * lane % 32 for lane in range(32)])
    expected = [SIMD_FUNCTIONS[call](values, lane) for lane in range(32)]
    found = run(
        emulator,
        f"  const int x = values[i];\n"
        f"  const int result = {call};\n"
        f"  y[i] = defined[i] ? result : -1;\n",
        {
            "values": values.astype(np.int32),
            "defined": np.array([e is not None for e in expected]),
        },
        mx.int32,
    )
    assert found.tolist() == [-1 if e is None else e for e in expected]


def test_a_last_simdgroup_with_fewer_lanes(emulator):
    x = np.arange(40, dtype=np.float32)
    found = run(emulator, "  y[i] = simd_sum(x[i]);\n", {"x": x}, threads=40)
    assert found.tolist() == [x[:32].sum()] * 32 + [x[32:].sum()] * 8


# Functions of one float, by what NumPy makes of it.
UNARY = {
    "precise::exp": np.exp,
    "precise::exp2": np.exp2,
    "precise::exp10": lambda x: 10.0**x,
    "precise::log": np.log,
    "precise::log2": np.log2,
    "precise::log10": np.log10,
    "precise::sqrt": np.sqrt,
    "precise::rsqrt": lambda x: 1 / np.sqrt(x),
    "precise::sin": np.sin,
    "precise::cos": np.cos,
    "precise::tanh": np.tanh,
    "abs": np.abs,
    "fabs": np.abs,
    "floor": np.floor,
    "ceil": np.ceil,
    "rint": np.rint,
    "trunc": np.trunc,
    "sign": np.sign,
}

# Calls, and their values.
CALLS = {
    "fma(3.0f, 4.0f, -5.0f)": 7,
    "precise::exp(1.0f)": np.e,
    "fast::log(2.0f)": np.log(2),
    "floor(-1.5f)": -2,
    "ceil(-1.5f)": -1,
    "rint(-1.5f)": -2,
    "rint(0.5f)": 0,
    "round(0.5f)": 1,
    "trunc(-1.5f)": -1,
    "sign(-3.0f)": -1,
    "pow(2.0f, -3.0f)": 0.125,
    "fmod(-7.0f, 4.0f)": -3,
    "copysign(2.0f, -0.0f)": -2,
    "ldexp(0.75f, 5)": 24,
    "max(2.0f, 3.0f)": 3,
    "min(2.0f, 3.0f)": 2,
    "fmax(2.0f, numeric_limits<float>::quiet_NaN())": 2,
    "clamp(7.0f, 0.0f, 5.0f)": 5,
    "select(2.0f, 3.0f, true)": 3,
    "isnan(numeric_limits<float>::quiet_NaN())": 1,
    "isinf(numeric_limits<half>::infinity())": 1,
    "isfinite(numeric_limits<float>::max())": 1,
    "numeric_limits<float>::lowest()": np.finfo(np.float32).min,
    "numeric_limits<bfloat>::max()": float(mx.finfo(mx.bfloat16).max),
    "numeric_limits<half>::max()": 65504,
    "numeric_limits<int>::min()": -(2.0**31),
    "numeric_limits<uint>::max()": 2.0**32 - 1,
    "popcount(0xf0f1u)": 9,
    "clz(0x00010000u)": 15,
    "clz(0u)": 32,
    "ctz(0x00010000)": 16,
    "mulhi(1 << 30, 12)": 3,
    "max(-1, 1)": 1,
    "abs(-3)": 3,
}


def test_functions_of_one_float(emulator):
    x = np.linspace(0.25, 8, 32, dtype=np.float32)
    body = "".join(
        f"  y[{k * 32} + i] = metal::{name}(x[i]);\n" for k, name in enumerate(UNARY)
    )
    found = run(emulator, body, {"x": x}, size=32 * len(UNARY))
    expected = [function(x.astype(np.float64)) for function in UNARY.values()]
    np.testing.assert_allclose(
        found.reshape(-1, 32), expected, rtol=1e-6, atol=1e-6, err_msg=f"{list(UNARY)}"
    )


def test_values_of_functions(emulator):
    body = "  if (i == 0) {\n"
    for k, call in enumerate(CALLS):
        body += f"    y[{k}] = static_cast<float>(metal::{call});\n"
    body += "  }\n"
    found = run(emulator, body, {"x": np.zeros(1)}, size=len(CALLS))
    found = dict(zip(CALLS, found.tolist(), strict=True))
    assert found == {call: pytest.approx(value) for call, value in CALLS.items()}


def test_fast_exponentials_are_2_ulp_low(emulator):
    x = np.linspace(-120, 0, 32, dtype=np.float32)
    body = (
        "  y[i] = metal::fast::exp2(x[i]);\n  y[32 + i] = metal::precise::exp2(x[i]);\n"
    )
    fast, precise = run(emulator, body, {"x": x}, size=64).reshape(2, 32)
    ulp = np.spacing(precise.astype(np.float32) * np.float32(1 - 2**-24))
    np.testing.assert_array_equal(fast, precise - 2 * ulp)


def test_fast_logarithms_are_off_by_2_to_minus_21_near_1(emulator):
    x = np.linspace(0.3, 2.2, 32, dtype=np.float32)
    body = (
        "  y[i] = metal::fast::log(x[i]);\n  y[32 + i] = metal::precise::log(x[i]);\n"
    )
    fast, precise = run(emulator, body, {"x": x}, size=64).reshape(2, 32)
    near_1 = (x >= 0.5) & (x <= 2)
    assert np.array_equal(fast[~near_1], precise[~near_1])
    error = (fast - precise)[near_1]
    np.testing.assert_allclose(np.abs(error), 2**-21, atol=2**-24)
    assert {-1, 1} == set(np.sign(error))


def test_as_type_keeps_the_bits(emulator):
    body = "  y[i] = as_type<float>((x[i] + 127) << 23);\n"
    x = np.arange(-16, 16, dtype=np.int32)
    assert np.array_equal(run(emulator, body, {"x": x}), 2.0**x)


def test_frexp_takes_a_thread_reference(emulator):
    body = "  int e;\n  const float m = metal::frexp(x[i], e);\n  y[i] = m * 100 + e;\n"
    x = np.full(32, 12.0, np.float32)
    assert run(emulator, body, {"x": x})[0] == 75 + 4


def test_vectors(emulator):
    body = (
        "  float4 v = float4(x[i], 1.0f, 2.0f, 3.0f);\n"
        "  v = 2.0f * v + float4(1.0f);\n"
        "  const int2 p = int2(3, 4) - int2(1, 1);\n"
        "  y[i] = v.x + v[1] + v.w + float(p.x * p.y) + float(sizeof(float3));\n"
    )
    x = np.arange(32, dtype=np.float32)
    expected = (2 * x + 1) + 3 + 7 + 6 + 16
    assert np.array_equal(run(emulator, body, {"x": x}), expected)


@pytest.mark.parametrize("dtype", [mx.float16, mx.bfloat16])
def test_narrow_floats_are_rounded_to_nearest_even(emulator, dtype):
    values = np.float32(1) + np.arange(32, dtype=np.float32) * np.float32(2**-11)
    values[:4] = [np.inf, -np.inf, np.nan, 1e-30]
    found = run(
        emulator, "  y[i] = T(x[i]);\n", {"x": values}, dtype, template=[("T", dtype)]
    )
    expected = mx.array(values).astype(dtype).astype(mx.float32)
    np.testing.assert_array_equal(found, np.array(expected))


def test_subnormals_may_be_zero(emulator):
    x = np.full(32, 1e-38, np.float32)
    assert not run(emulator, "  y[i] = x[i] * 0.5f;\n", {"x": x}).any()


def test_thread_attributes(emulator):
    launch = Launch(
        name="attributes",
        input_names=["unused"],
        output_names=["y"],
        output_shapes=[(4, 6, 8, 8)],
        output_dtypes=[mx.uint32],
        source="""
  const uint3 at = thread_position_in_grid;
  const uint3 size = threads_per_grid;
  device uint* row = y + ((at.z * size.y + at.y) * size.x + at.x) * 8;
  row[0] = at.x + 100 * at.y + 10000 * at.z;
  row[1] = threadgroup_position_in_grid.z;
  row[2] = thread_position_in_threadgroup.y;
  row[3] = threads_per_threadgroup.x;
  row[4] = threadgroups_per_grid.y;
  row[5] = thread_index_in_threadgroup;
  row[6] = simdgroup_index_in_threadgroup;
  row[7] = simdgroups_per_threadgroup;
""",
        grid=(8, 6, 4),
        threadgroup=(8, 3, 2),
    )
    arrays = {"unused": Buffer.of(mx.zeros(1))}
    y = emulator.run([launch], arrays, ["y"])["y"].numpy()
    z, row, x = 3, 4, 5
    index = (z % 2 * 3 + row % 3) * 8 + x
    expected = [x + 100 * row + 10000 * z, z // 2, row % 3, 8, 2, index, index // 32, 2]
    assert y[z, row, x].tolist() == expected


def test_shapes_strides_and_scalars_of_inputs(emulator):
    launch = Launch(
        name="transpose",
        input_names=["x", "factor"],
        output_names=["y"],
        output_shapes=[(4, 8)],
        output_dtypes=[mx.float32],
        source="""
  const uint i = thread_index_in_threadgroup;
  const int row = i / x_shape[1], column = i % x_shape[1];
  y[i] = factor * x[row * x_strides[0] + column * x_strides[x_ndim - 1]];
""",
        ensure_row_contiguous=False,
    )
    x = mx.arange(32, dtype=mx.float32).reshape(8, 4)
    arrays = {
        "x": Buffer.of(x).transposed((1, 0)),
        "factor": Buffer.of(mx.array(2.0)),
    }
    y = emulator.run([launch], arrays, ["y"])["y"].array()
    assert mx.array_equal(y, 2 * x.T)
