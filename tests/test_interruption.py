# Ctrl-C ends a beam search at once, and what comes after it works.

import os
import signal
import subprocess
import sys
import threading
import time

import pytest

# Each search would take minutes.
PROGRAM = """
import os
import signal
import sys
import time

import mlx.core as mx
import numpy as np

from mlx_ctc import beam_search_decode

# A shell's background jobs ignore SIGINT, and their children inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)
rng = np.random.default_rng(0)
N = int(sys.argv[1])
logits = rng.standard_normal((4000, N, 500)).astype(np.float32)
scorer = (lambda prefix, label: 0.0) if sys.argv[2] == "scorer" else None
options = {"beam_width": 2000, "with_logits": True, "scorer": scorer}


def threads():
    return len(os.listdir("/proc/self/task")) if os.path.isdir("/proc/self/task") else 0


short = mx.array(logits[:20])
expected = beam_search_decode(short, [20] * N, 10, with_logits=True)
before = threads()
for round in range(2):
    print("started", flush=True)
    try:
        beam_search_decode(logits, [4000] * N, **options)
    except KeyboardInterrupt:
        print("interrupted", flush=True)
assert beam_search_decode(short, [20] * N, 10, with_logits=True) == expected
# A thread leaves /proc a moment after it is joined, under qemu later: there may be
# fewer than before, too.
deadline = time.monotonic() + 5
while threads() > before and time.monotonic() < deadline:
    time.sleep(0.01)
assert threads() <= before, (before, threads())
print("right", flush=True)
"""


@pytest.mark.parametrize("scorer", ["none", "scorer"])
@pytest.mark.parametrize("sequences", [1, 5])
def test_ctrl_c_ends_a_beam_search(sequences, scorer):
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(sequences), scorer],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONFAULTHANDLER": "1"},
    ) as process:
        watchdog = threading.Timer(60, process.kill)
        watchdog.start()
        try:
            for _ in range(2):
                assert process.stdout.readline() == "started\n"
                time.sleep(0.5)
                process.send_signal(signal.SIGINT)
                start = time.monotonic()
                assert process.stdout.readline() == "interrupted\n"
                # A tenth of a second, if other processes leave it the processor.
                assert time.monotonic() - start < 5
            assert process.stdout.readline() == "right\n"
            assert process.wait(10) == 0
        finally:
            watchdog.cancel()
            process.kill()
