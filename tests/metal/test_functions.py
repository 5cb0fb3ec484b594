# The errors of functions in the kernels' headers, beside longer arithmetic.

from decimal import Decimal, getcontext

import ctc_on_emulator
import mlx.core as mx
import numpy as np
import pytest
from buffer import Buffer
from metal_text import Launch
from problems import random_problem

THREADS = 1024
getcontext().prec = 40


def call(emulator, expression, *inputs):
    """The expression (high, low, e) for each of the inputs a, b, as decimals."""
    names = ["a", "b"][: len(inputs)]
    problem = random_problem(np.random.default_rng(0))
    launches = ctc_on_emulator.launches_of(problem.arrays(), "loss", **problem.options)
    (refine,) = (x for x in launches if x.name == "ctc_refine")
    launch = Launch(
        name="functions",
        input_names=names,
        output_names=["m", "e"],
        output_shapes=[(THREADS, 2), (THREADS,)],
        output_dtypes=[mx.float32, mx.int32],
        header=refine.header,
        source=f"""
  using namespace mlx_ctc;
  const int i = int(thread_position_in_grid.x);
  const Wide result = {expression};
  m[2 * i] = result.m.high;
  m[2 * i + 1] = result.m.low;
  e[i] = result.e;
""",
        grid=(THREADS, 1, 1),
    )
    arrays = {
        name: Buffer.of(mx.array(x)) for name, x in zip(names, inputs, strict=True)
    }
    arrays = emulator.run([launch], arrays, ["m", "e"])
    return [
        (Decimal(high) + Decimal(low)) * Decimal(2) ** int(e)
        for (high, low), e in zip(
            arrays["m"].numpy().tolist(), arrays["e"].numpy(), strict=True
        )
    ]


def greatest_error(found, expected):
    return max(abs(float(f / e - 1)) for f, e in zip(found, expected, strict=True))


def scores(rng):
    """From the sizes of confident log-probabilities to those of impossible ones."""
    sizes = 10 ** rng.uniform(-9, 3, THREADS)
    return (sizes * rng.choice([1, -1], THREADS)).astype(np.float32)


def numbers(rng):
    return rng.uniform(1, 2, (THREADS, 2)).astype(np.float32) * [1, 2**-26]


def greatest_error_in_places(found, expected):
    """In units of the last of a float's 24 binary places."""
    return max(
        abs(float(f - e)) / 2.0 ** (np.floor(np.log2(float(f))) - 23)
        for f, e in zip(found, expected, strict=True)
    )


def test_polynomial_of_exp_is_within_0_64_units_in_the_last_place(emulator, rng):
    x = np.linspace(-np.log(2) / 2, np.log(2) / 2, THREADS, dtype=np.float32)
    found = call(emulator, "wide(Extended{exp_near_zero(a[i]), 0})", x)
    expected = [Decimal(float(value)).exp() for value in x]
    assert greatest_error_in_places(found, expected) <= 0.64


def test_exp_less_one_keeps_its_digits(emulator, rng):
    sizes = 10 ** rng.uniform(-12, np.log10(np.log(2) / 2), THREADS)
    x = (sizes * rng.choice([1, -1], THREADS)).astype(np.float32)
    found = call(emulator, "wide(Extended{expm1_near_zero(a[i]), 0})", x)
    expected = [Decimal(float(value)).exp() - 1 for value in x]
    assert greatest_error(found, expected) <= 2**-22


def test_exp_is_within_0_9_units_in_the_last_place(emulator, rng):
    x = scores(rng).clip(-400, 400)
    found = call(emulator, "wide(extended_exp(a[i], round_offset_bits))", x)
    expected = [Decimal(float(value)).exp() for value in x]
    assert greatest_error_in_places(found, expected) <= 0.9


def test_exp_in_two_floats_is_within_1e_13(emulator, rng):
    x = scores(rng).clip(-100, 100)
    found = call(emulator, "wide_exp(a[i])", x)
    expected = [Decimal(float(value)).exp() for value in x]
    assert greatest_error(found, expected) <= 1e-13


@pytest.mark.parametrize("greatest", [0.1, 20, 1e5])
def test_exp_of_a_difference_does_not_depend_on_its_terms(emulator, rng, greatest):
    b = np.full(THREADS, greatest, np.float32)
    a = (b - rng.uniform(0, 30, THREADS)).astype(np.float32)
    found = call(emulator, "wide(exp_of_difference(a[i], b[i]))", a, b)
    expected = [
        (Decimal(float(x)) - Decimal(float(y))).exp() for x, y in zip(a, b, strict=True)
    ]
    assert greatest_error(found, expected) <= 2**-23


@pytest.mark.parametrize(
    ("function", "operation"),
    [
        ("add", Decimal.__add__),
        ("multiply", Decimal.__mul__),
        ("quotient", Decimal.__truediv__),
    ],
)
def test_arithmetic_in_two_floats_has_45_bits(emulator, rng, function, operation):
    a, b = numbers(rng), numbers(rng)
    left, right = ("Wide{{TwoFloats{{{0}[2 * i], {0}[2 * i + 1]}}, {1}}}",) * 2
    expression = f"{function}({left.format('a', 3)}, {right.format('b', 0)})"
    found = call(emulator, expression, a.astype(np.float32), b.astype(np.float32))
    expected = [
        operation(
            (Decimal(float(x[0])) + Decimal(float(np.float32(x[1])))) * 8,
            Decimal(float(y[0])) + Decimal(float(np.float32(y[1]))),
        )
        for x, y in zip(a, b, strict=True)
    ]
    assert greatest_error(found, expected) <= 2**-45
