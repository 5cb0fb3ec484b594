# The lists of functions that tests go through are complete.

import inspect

import fuzz
from ops import OPS

import mlx_ctc

WITH_TARGETS = {
    name
    for name in mlx_ctc.__all__
    if inspect.isfunction(function := getattr(mlx_ctc, name))
    and "targets" in inspect.signature(function).parameters
}


def test_every_function_of_targets_is_an_op():
    assert {name.split()[0] for name in OPS} == WITH_TARGETS


def test_every_function_of_targets_is_fuzzed():
    called = {name for check in fuzz.CHECKS for name in check.__code__.co_names}
    assert called >= WITH_TARGETS
