# A small correct kernel, in which the tests plant faults.

from dataclasses import replace

import mlx.core as mx
from metal_text import Launch

# y = x + (x mirrored in its row) + (x's left neighbour) + (twice the row's sum).
# A threadgroup of two simdgroups per row; every kind of cooperation occurs once.
ROWS, COLUMNS = 3, 64
SOURCE = """
  threadgroup float row[2][COLUMNS];
  threadgroup float partial[2];
  const uint i = thread_index_in_threadgroup;
  const uint lane = thread_index_in_simdgroup;
  const uint start = threadgroup_position_in_grid.y * COLUMNS;
  const float value = x[start + i];

  float left = metal::simd_shuffle_up(value, 1);
  if (i % 32 == 0) {
    left = i == 0 ? 0.0f : x[start + i - 1];
  }

  float mirrored[2];
  for (uint turn = 0; turn < 2; turn++) {
    row[turn][i] = value;
    metal::threadgroup_barrier(metal::mem_flags::mem_threadgroup);
    mirrored[turn] = row[turn][COLUMNS - 1 - i];
  }

  float total = 0.0f;
  for (uint turn = 0; turn < 2; turn++) {
    const float sum = metal::simd_sum(value);
    if (lane == 0) {
      partial[i / 32] = sum;
    }
    metal::threadgroup_barrier(metal::mem_flags::mem_threadgroup);
    total += partial[0] + partial[1];
    metal::threadgroup_barrier(metal::mem_flags::mem_threadgroup);
  }

  y[start + i] = combine(value, mirrored[0], left, total);
"""
HEADER = """
METAL_FUNC float combine(float value, float mirrored, float left, float total) {
  return value + mirrored + left + total;
}
METAL_FUNC float rest(float value) {
  return metal::simd_sum(value) - value;
}
"""
LAUNCH = Launch(
    name="rows",
    input_names=["x"],
    output_names=["y"],
    output_shapes=[(ROWS, COLUMNS)],
    output_dtypes=[mx.float32],
    template=[("COLUMNS", COLUMNS)],
    source=SOURCE,
    header=HEADER,
    grid=(COLUMNS, ROWS, 1),
    threadgroup=(COLUMNS, 1, 1),
)
X = mx.arange(ROWS * COLUMNS, dtype=mx.float32).reshape(ROWS, COLUMNS)


def edited(old: str, new: str) -> Launch:
    """The launch with one edit of its source."""
    assert SOURCE.count(old) == 1
    return replace(LAUNCH, source=SOURCE.replace(old, new))
