# What orders two threads' accesses, and what does not.
#
# In each kernel thread 0 writes, then someone reads (or the other way round). The
# text between the two decides whether that is a race.

import mlx.core as mx
import pytest
from buffer import Buffer
from emulator import KernelError
from metal_text import Launch

BARRIER = "metal::threadgroup_barrier(metal::mem_flags::{});"
SIMD_BARRIER = "metal::simdgroup_barrier(metal::mem_flags::{});"
NEIGHBOUR, OTHER_SIMDGROUP = 1, 33

WRITE_THEN_READ = """
  threadgroup float shared[1];
  const uint i = thread_index_in_threadgroup;
  if (i == 0) {
    place[0] = 2.0f;
  }
  BETWEEN
  if (i == READER) {
    y[0] = place[0];
  }
"""
READ_THEN_WRITE = """
  threadgroup float shared[1];
  const uint i = thread_index_in_threadgroup;
  if (i == 0) {
    place[0] = 1.0f;
  }
  metal::threadgroup_barrier(
      metal::mem_flags::mem_threadgroup | metal::mem_flags::mem_device);
  if (i == 0 || i == READER) {
    y[i / 32 * 2 + i % 2] = place[0];
  }
  BETWEEN
  if (i == 0) {
    place[0] = 2.0f;
  }
"""


def run(emulator, source, place, between, reader):
    source = source.replace("BETWEEN", between).replace("READER", str(reader))
    launch = Launch(
        name="order",
        input_names=["unused"],
        output_names=["scratch", "y"],
        output_shapes=[(1,), (4,)],
        output_dtypes=[mx.float32, mx.float32],
        source=source.replace("place", place),
        grid=(64, 1, 1),
        threadgroup=(64, 1, 1),
    )
    emulator.run([launch], {"unused": Buffer.of(mx.zeros(1))}, results=[])


SOURCES = {"write then read": WRITE_THEN_READ, "read then write": READ_THEN_WRITE}
PLACES = {"shared": "mem_threadgroup", "scratch": "mem_device"}


@pytest.mark.parametrize("source", SOURCES.values(), ids=SOURCES)
@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("reader", [NEIGHBOUR, OTHER_SIMDGROUP])
class TestOrder:
    def test_a_barrier_for_the_memory_orders(self, emulator, source, place, reader):
        run(emulator, source, place, BARRIER.format(PLACES[place]), reader)

    def test_a_barrier_for_other_memory_does_not(self, emulator, source, place, reader):
        other = PLACES["shared" if place == "scratch" else "scratch"]
        with pytest.raises(KernelError, match="race"):
            run(emulator, source, place, BARRIER.format(other), reader)

    def test_a_simdgroup_barrier_orders_its_simdgroup_alone(
        self, emulator, source, place, reader
    ):
        between = SIMD_BARRIER.format(PLACES[place])
        if reader == NEIGHBOUR:
            run(emulator, source, place, between, reader)
        else:
            with pytest.raises(KernelError, match="race"):
                run(emulator, source, place, between, reader)

    def test_a_simd_operation_orders_nothing(self, emulator, source, place, reader):
        with pytest.raises(KernelError, match=r"race|uninitialised"):
            run(emulator, source, place, "metal::simd_sum(1.0f);", reader)


def test_a_thread_is_ordered_with_itself(emulator):
    run(emulator, WRITE_THEN_READ, "shared", between="", reader=0)


def test_reads_alone_never_race(emulator):
    launch = Launch(
        name="reads",
        input_names=["x"],
        output_names=["y"],
        output_shapes=[(128,)],
        output_dtypes=[mx.float32],
        source="  y[thread_position_in_grid.x] = x[0];\n",
        grid=(128, 1, 1),
        threadgroup=(64, 1, 1),
    )
    emulator.run([launch], {"x": Buffer.of(mx.ones(8))}, ["y"])


def test_a_later_launch_sees_what_an_earlier_one_wrote(emulator):
    def copy(source, target, body):
        return Launch(
            name=f"make_{target}",
            input_names=[source],
            output_names=[target],
            output_shapes=[(32,)],
            output_dtypes=[mx.float32],
            source=body,
        )

    i = "const uint i = thread_index_in_simdgroup;"
    backwards = copy("a", "b", f"  {i}\n  b[31 - i] = a[i];\n")
    half = copy("a", "b", f"  {i}\n  if (i < 16) {{\n    b[i] = a[i];\n  }}\n")
    onwards = copy("b", "c", f"  {i}\n  c[i] = 2.0f * b[i];\n")

    a = {"a": Buffer.of(mx.arange(32, dtype=mx.float32))}
    c = emulator.run([backwards, onwards], a, ["c"])["c"]
    assert c.array().tolist() == [2.0 * (31 - i) for i in range(32)]
    with pytest.raises(KernelError, match=r"make_c: uninitialised.*byte 64 of 'b'"):
        emulator.run([half, onwards], a, ["c"])
