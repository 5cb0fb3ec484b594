# Half a minute of the fuzzer, and what it reports of planted faults.

import os
import signal
import time

import fuzz
import numpy as np
import pytest

SECONDS = 30


def test_random_calls():
    first = int(time.time()) * 1000  # other seeds each time; a failure names its own
    made, failures = fuzz.drive(SECONDS, None, first, workers=2)
    assert failures == []
    assert made > 1000


def wrong(seed):
    assert seed != 7, "planted"


def wrong_everywhere(seed):
    raise AssertionError(f"check_loss: planted;\n{np.arange(seed, seed + 99)}")


def crash(seed):
    if seed == 7:
        os.kill(os.getpid(), signal.SIGSEGV)


def hang(seed):
    if seed == 7:
        time.sleep(1000)


@pytest.mark.parametrize(
    ("run", "says"),
    [(wrong, "planted"), (crash, "exit code -11"), (hang, "no progress for 2 s")],
)
def test_planted_faults_are_reported_with_their_seed(run, says):
    calls = 20 * fuzz.CALLS_PER_SEED
    made, [(seed, text)] = fuzz.drive(None, calls, 0, workers=2, run=run, hang=2)
    assert seed == 7
    assert says in text
    assert made == calls  # the seeds after it ran too


def run_seeds():
    for seed in range(200):
        fuzz.run_seed(seed)


def test_a_wrong_result_is_found(monkeypatch):
    right = fuzz.ctc_loss

    def slightly_wrong(*arguments, **options):
        return right(*arguments, **options) * 1.00001

    monkeypatch.setattr(fuzz, "ctc_loss", slightly_wrong)
    with pytest.raises(AssertionError, match="check_"):
        run_seeds()


def test_a_wrong_star_is_found(monkeypatch):
    right = fuzz.forced_align

    def slightly_wrong(*arguments, star, **options):
        star = None if star is None else star - 1e-3
        return right(*arguments, star=star, **options)

    monkeypatch.setattr(fuzz, "forced_align", slightly_wrong)
    with pytest.raises(AssertionError, match=r"check_alignment.*star=-?\d"):
        run_seeds()


def test_a_fault_that_is_not_refused_is_found(monkeypatch):
    monkeypatch.setattr(fuzz, "ctc_loss", lambda x, *_, **__: fuzz.mx.zeros(()))
    with pytest.raises(AssertionError, match="check_"):
        run_seeds()


def test_equal_faults_are_reported_once():
    calls = 20 * fuzz.CALLS_PER_SEED
    _, failures = fuzz.drive(None, calls, 0, workers=2, run=wrong_everywhere)
    assert len(failures) == 1
